"""Failure kinds: exactly one per expression, each with its definition."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fiftyone_genseg.statuses import FAILED, MISSING, UNPARSABLE

CORRECT = "correct"
WRONG_INSTANCE = "wrong_instance"
MISSED_INSTANCES = "missed_instances"
EXTRA_INSTANCES = "extra_instances"
UNDER_SEGMENTATION = "under_segmentation"
OVER_SEGMENTATION = "over_segmentation"
FALSE_ALARM = "false_alarm"
MISSED_TARGET = "missed_target"

DEFINITIONS = {
    CORRECT: "every target and every predicted mask has its counterpart and the unions overlap with IoU >= 0.5; "
    "or nothing is meant and nothing was answered",
    WRONG_INSTANCE: "a target was not touched and a predicted mask lies on something else: a distractor was hit",
    MISSED_INSTANCES: "some targets were not touched; no predicted mask lies on something else",
    EXTRA_INSTANCES: "every target was touched, and a predicted mask lies on something else",
    UNDER_SEGMENTATION: "the right objects with IoU < 0.5, and less area than the targets have",
    OVER_SEGMENTATION: "the right objects with IoU < 0.5, and at least the area that the targets have",
    FALSE_ALARM: "nothing is meant, and something was answered",
    MISSED_TARGET: "something is meant, and nothing was answered",
    UNPARSABLE: "the answer could not be read and gave no mask",
    FAILED: "the sample could not be segmented or scored",
    MISSING: "there is no prediction for the expression",
}
KINDS = tuple(DEFINITIONS)
CORRECT_IOU = 0.5
REASONER, SEGMENTER, RUN, NOBODY = "reasoner", "segmenter", "run", "nobody"


def failure_kinds(table: pd.DataFrame) -> pd.Series:
    """Return the kind of each expression, by the first rule that holds.

    1. status missing or failed: `missing`, `failed`.
    2. an unparsable answer that gave no mask: `unparsable`.
    3. no target: `correct` when nothing was answered, else `false_alarm`.
    4. a target and nothing answered: `missed_target`.
    5. by `n_missed` and `n_extra` (see `matching.compare`): both `wrong_instance`, one of them
       `missed_instances` or `extra_instances`.
    6. union IoU >= 0.5: `correct`; else `under_segmentation` or `over_segmentation` by area.

    Args:
        table: table with the columns status, intersection, target_area, prediction_area, n_missed, n_extra.
    """
    status = table["status"].astype(str)
    target, prediction = table["target_area"] > 0, table["prediction_area"] > 0
    union = table["target_area"] + table["prediction_area"] - table["intersection"]
    missed, extra = table["n_missed"] > 0, table["n_extra"] > 0
    rules = [
        (status == MISSING, MISSING),
        (status == FAILED, FAILED),
        ((status == UNPARSABLE) & ~prediction, UNPARSABLE),
        (~target & ~prediction, CORRECT),
        (~target, FALSE_ALARM),
        (~prediction, MISSED_TARGET),
        (missed & extra, WRONG_INSTANCE),
        (missed, MISSED_INSTANCES),
        (extra, EXTRA_INSTANCES),
        (table["intersection"] >= CORRECT_IOU * union, CORRECT),
        (table["prediction_area"] < table["target_area"], UNDER_SEGMENTATION),
    ]
    kinds = np.select([rule for rule, _ in rules], [kind for _, kind in rules], OVER_SEGMENTATION)
    return pd.Series(pd.Categorical(kinds, categories=KINDS), index=table.index, name="kind")


def faults(table: pd.DataFrame) -> pd.Series:
    """Return whose fault each failure is.

    A bad mask of the right object is the segmenter's fault if the reasoner's box was right (box IoU >= 0.5). Every
    other wrong answer is the reasoner's.

    Args:
        table: table with the columns kind and box_iou.
    """
    kind = table["kind"].astype(str)
    badly = kind.isin([UNDER_SEGMENTATION, OVER_SEGMENTATION])
    fault = np.select(
        [kind == CORRECT, kind.isin([FAILED, MISSING]), badly & (table["box_iou"] >= CORRECT_IOU)],
        [NOBODY, RUN, SEGMENTER],
        REASONER,
    )
    return pd.Series(pd.Categorical(fault, categories=[NOBODY, REASONER, SEGMENTER, RUN]), index=table.index)
