"""Match one expression's targets with its predictions.

Targets and predictions are masks in cut-outs of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from genseg_hub.evaluation.metrics import box_iou, enclosing_box
from genseg_hub.schema import Box
from scipy.optimize import linear_sum_assignment

from fiftyone_genseg.cutouts import Cutout

MATCH_IOU = 0.5
SAME_OBJECT = 0.5


def without(cutout: Cutout, ignored: Sequence[Cutout]) -> Cutout | None:
    """Return the part of a mask that lies outside others; None when nothing does."""
    left = cutout.mask.copy()
    for other in ignored:
        x1, y1 = max(cutout.left, other.left), max(cutout.top, other.top)
        x2, y2 = min(cutout.window[2], other.window[2]), min(cutout.window[3], other.window[3])
        if x1 < x2 and y1 < y2:
            part = left[y1 - cutout.top : y2 - cutout.top, x1 - cutout.left : x2 - cutout.left]
            part &= ~other.within((x1, y1, x2, y2))
    return Cutout(cutout.left, cutout.top, left) if left.any() else None


@dataclass(frozen=True)
class Comparison:
    """One expression, compared.

    Attributes:
        intersection, target_area, prediction_area: pixels, of the unions of the instances.
        box_iou: IoU of the enclosing boxes; 0 when either side is empty.
        pairs: (target, prediction, mask IoU) of the instances, by index; None for no counterpart.
        n_missed: targets without counterpart that no predicted mask touches.
        n_extra: predicted masks without counterpart that touch no target.
    """

    intersection: int
    target_area: int
    prediction_area: int
    box_iou: float
    pairs: tuple[tuple[int | None, int | None, float], ...]
    n_missed: int
    n_extra: int


def _overlap(a: Cutout, b: Cutout) -> int:
    window = (
        max(a.left, b.left),
        max(a.top, b.top),
        min(a.window[2], b.window[2]),
        min(a.window[3], b.window[3]),
    )
    if window[0] >= window[2] or window[1] >= window[3]:
        return 0
    return int(np.count_nonzero(a.within(window) & b.within(window)))


def _painted(cutouts: Sequence[Cutout], window: tuple[int, int, int, int]) -> np.ndarray:
    canvas = np.zeros((window[3] - window[1], window[2] - window[0]), dtype=bool)
    for cutout in cutouts:
        y, x = cutout.top - window[1], cutout.left - window[0]
        canvas[y : y + cutout.mask.shape[0], x : x + cutout.mask.shape[1]] |= cutout.mask
    return canvas


def compare(targets: Sequence[Cutout], predictions: Sequence[Cutout], boxes: Sequence[Box] = ()) -> Comparison:
    """Match instances and measure the unions.

    Instances are paired one to one so that the sum of mask IoUs is largest (the Hungarian method). A pair counts from
    IoU 0.5 on. An unpaired mask touches another when their intersection is at least half of the smaller of the two: it
    is the same object, badly segmented, split or merged.

    Args:
        targets: non-empty true masks.
        predictions: non-empty predicted masks.
        boxes: the reasoner's boxes, xyxy pixels; without any, the boxes of the predicted masks.
    """
    overlap = np.array([[_overlap(t, p) for p in predictions] for t in targets], dtype=np.int64)
    overlap = overlap.reshape(len(targets), len(predictions))
    target_areas = np.array([np.count_nonzero(t.mask) for t in targets], dtype=np.int64)
    prediction_areas = np.array([np.count_nonzero(p.mask) for p in predictions], dtype=np.int64)
    ious = overlap / (target_areas[:, None] + prediction_areas[None] - overlap) if overlap.size else overlap * 1.0
    rows, columns = linear_sum_assignment(-ious)
    paired = {int(t): int(p) for t, p in zip(rows, columns, strict=True) if ious[t, p] >= MATCH_IOU}
    pairs: list[tuple[int | None, int | None, float]] = [(t, p, float(ious[t, p])) for t, p in paired.items()]
    free_targets = [t for t in range(len(targets)) if t not in paired]
    free_predictions = sorted(set(range(len(predictions))) - set(paired.values()))
    pairs += [(t, None, 0.0) for t in free_targets] + [(None, p, 0.0) for p in free_predictions]
    smaller = np.minimum(target_areas[:, None], prediction_areas[None])
    touch = overlap >= SAME_OBJECT * smaller if overlap.size else overlap.astype(bool)
    missed = sum(not touch[t].any() for t in free_targets)
    extra = sum(not touch[:, p].any() for p in free_predictions)
    if len(targets) == len(predictions) == 1:
        both, target_area, prediction_area = overlap[0, 0], target_areas[0], prediction_areas[0]
    elif len(targets) + len(predictions):
        hull = enclosing_box(c.window for c in (*targets, *predictions))
        truth, guess = _painted(targets, hull), _painted(predictions, hull)
        both, target_area, prediction_area = (np.count_nonzero(m) for m in (truth & guess, truth, guess))
    else:
        both = target_area = prediction_area = 0
    boxes_agree = 0.0
    if targets and predictions:
        guessed = enclosing_box(boxes or [p.box for p in predictions])
        boxes_agree = box_iou(enclosing_box(t.box for t in targets), guessed)
    return Comparison(int(both), int(target_area), int(prediction_area), boxes_agree, tuple(pairs), missed, extra)
