"""Samples with squares for masks, and the kind that an evaluation gives each of them."""

import fiftyone as fo
import numpy as np

from fiftyone_genseg import labels, statuses

WIDTH, HEIGHT = 40, 30


def square(x, y, side=10, **attributes):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + side, x : x + side] = True
    return labels.detection_from_mask(mask, label=labels.LABEL, **attributes)


def response(expression, status):
    return fo.DynamicEmbeddedDocument(expression=expression, status=status)


def one(expression, truth, found, status=statuses.SEGMENTED):
    return {
        "expression": expression,
        "ground_truth": fo.Detections(detections=truth),
        "genseg": None if found is None else fo.Detections(detections=found),
        "genseg_responses": None if status is None else [response(expression, status)],
    }


def one_of_each():
    """Return a sample for each of KINDS."""
    return [
        one("hit", [square(0, 0)], [square(0, 0)]),
        one("elsewhere", [square(0, 0)], [square(20, 0)]),
        one("half", [square(0, 0), square(20, 0)], [square(20, 0)]),
        one("nothing there", [], [], statuses.NO_TARGET),
        one("invented", [], [square(5, 5)]),
        one("silence", [square(0, 0)], [], statuses.NO_TARGET),
        one("gibberish", [square(0, 0)], [], statuses.UNPARSABLE),
        one("broken", [square(0, 0)], [square(0, 0)], statuses.FAILED),  # an earlier run left a mask
        one("never asked", [square(0, 0)], None, None),
        one("a bit too large", [square(5, 5, 4)], [square(5, 5, 10)]),
    ]


KINDS = [
    "correct", "wrong_instance", "missed_instances", "correct", "false_alarm", "missed_target", "unparsable",
    "failed", "missing", "over_segmentation",
]  # fmt: skip
