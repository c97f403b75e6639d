"""Cut-outs are compared as whole images would be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiftyone_genseg.evaluation.matching import compare
from fiftyone_genseg.labels import cutout, detection_from_mask
from tests.helpers.strategies import masks_of

SIZE = (9, 7)
masks = masks_of(SIZE[::-1], empty=False)
instances = st.lists(masks, max_size=3)


def cut(masks):
    detections = [detection_from_mask(mask) for mask in masks]
    return [cutout(d.bounding_box, d.mask, SIZE)[0] for d in detections]


def union(masks):
    return np.any(masks, 0) if masks else np.zeros(SIZE[::-1], bool)


@given(instances, instances)
def test_unions_are_measured_as_on_the_whole_image(targets, predictions):
    result = compare(cut(targets), cut(predictions))
    truth, guess = union(targets), union(predictions)
    assert result.intersection == (truth & guess).sum()
    assert (result.target_area, result.prediction_area) == (truth.sum(), guess.sum())
    assert sorted(t for t, _, _ in result.pairs if t is not None) == list(range(len(targets)))
    assert sorted(p for _, p, _ in result.pairs if p is not None) == list(range(len(predictions)))
    for t, p, iou in result.pairs:
        if t is not None and p is not None:
            assert iou == pytest.approx((targets[t] & predictions[p]).sum() / (targets[t] | predictions[p]).sum())
            assert iou >= 0.5


@given(masks)
def test_a_stored_mask_comes_back_to_the_pixel(mask):
    detection = detection_from_mask(mask)
    part, resized = cutout(detection.bounding_box, detection.mask, SIZE)
    full = np.zeros_like(mask)
    x1, y1, x2, y2 = part.window
    full[y1:y2, x1:x2] = part.mask
    assert not resized
    assert np.array_equal(full, mask)


def box(x1, y1, x2, y2):
    mask = np.zeros((40, 40), bool)
    mask[y1:y2, x1:x2] = True
    detection = detection_from_mask(mask)
    return cutout(detection.bounding_box, detection.mask, (40, 40))[0]


def test_a_mask_of_another_resolution_is_resized_and_said():
    part, resized = cutout([0, 0, 0.5, 0.5], np.ones((2, 2), bool), (40, 40))
    assert resized
    assert part.window == (0, 0, 20, 20)
    assert cutout([0, 0, 0.5, 0.5], np.zeros((20, 20), bool), (40, 40)) == (None, False)


@pytest.mark.parametrize(
    ("targets", "predictions", "missed", "extra"),
    [
        ([(0, 0, 10, 10)], [(0, 0, 10, 10)], 0, 0),
        ([(0, 0, 10, 10)], [(20, 20, 30, 30)], 1, 1),
        ([(0, 0, 10, 10), (20, 0, 30, 10)], [(0, 0, 10, 10)], 1, 0),
        ([(0, 0, 10, 10)], [(0, 0, 10, 10), (20, 20, 30, 30)], 0, 1),
        ([(0, 0, 10, 10)], [(0, 0, 5, 4)], 0, 0),  # a part of it
        ([(0, 0, 10, 10)], [(0, 0, 40, 40)], 0, 0),  # far too large
        ([(0, 0, 10, 10)], [(0, 0, 10, 5), (0, 5, 10, 10)], 0, 0),  # split in two
        ([(0, 0, 10, 5), (0, 5, 10, 10)], [(0, 0, 10, 10)], 0, 0),  # two in one
        ([(0, 0, 10, 10)], [(6, 6, 16, 16)], 1, 1),  # hardly touched
        ([(0, 0, 10, 10)], [], 1, 0),
        ([], [(0, 0, 10, 10)], 0, 1),
        ([], [], 0, 0),
    ],
)
def test_missed_and_extra_instances(targets, predictions, missed, extra):
    result = compare([box(*t) for t in targets], [box(*p) for p in predictions])
    assert (result.n_missed, result.n_extra) == (missed, extra)


def test_the_box_is_the_reasoners_where_it_is_known():
    target = box(0, 0, 10, 10)
    assert compare([target], [box(0, 0, 10, 10)]).box_iou == 1
    assert compare([target], [box(0, 0, 10, 10)], [(0, 0, 20, 10)]).box_iou == 0.5
