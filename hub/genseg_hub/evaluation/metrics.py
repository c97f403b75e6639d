"""Streaming metrics of referring segmentation; a named policy scores empty masks.

Published evaluators differ in expressions with an empty target or an empty prediction (I and U are the sums of cIoU;
IoU enters mIoU):

| policy    | target empty, prediction empty | target empty, prediction not      | target, prediction empty         |
|-----------|--------------------------------|-----------------------------------|----------------------------------|
| grefcoco  | IoU 1, nothing to I and U      | IoU 0, predicted area added to U  | IoU 0, target area added to U    |
| reasonseg | IoU 1, nothing to I and U      | IoU 0, predicted area added to U  | IoU 0, target area added to U    |
| refcoco   | IoU 0, nothing to I and U      | IoU 0, predicted area added to U  | IoU 0, target area added to U    |

On masks, grefcoco and reasonseg agree. They are two names because a result's policy names the evaluator that it can be
compared with. A prediction of fewer than `min_pixels` pixels counts as empty. gRefCOCO's paper (arXiv 2306.00968) says
50, but its code has no such limit, so all policies default to 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from pycocotools import mask as coco_mask

from genseg_hub.figures import PRECISION_AT
from genseg_hub.schema import Box, Rle, decode_mask, encode_mask

Number = TypeVar("Number", int, float)
_BLOCK = 1000  # expressions added at once, because arrays of length 1 cost more than the measurement


@dataclass(frozen=True)
class Policy:
    """Rules of an evaluator for empty masks.

    Attributes:
        name: stored with every result.
        rejection_iou: IoU of a no-target expression with an empty prediction.
        source: the evaluator that has these rules.
    """

    name: str
    rejection_iou: float
    source: str


POLICIES = {
    policy.name: policy
    for policy in (
        Policy("grefcoco", 1.0, "ReLA, gres_model/evaluation/refer_evaluation.py (arXiv 2306.00968)"),
        Policy("reasonseg", 1.0, "LISA, train_ds.py, validate() (arXiv 2308.00692)"),
        Policy("refcoco", 0.0, "the IoU of an empty union is 0, as for ReLA's and LAVT's RefCOCO expressions"),
    )
}
DEFAULT_POLICY = "grefcoco"


class Overlap(NamedTuple):
    """Overlap of predictions and targets.

    The values are numbers for one expression, or arrays [N] for N expressions.

    Attributes:
        intersection, target_area, prediction_area: pixels.
        box_iou: IoU of the target's tight box and the predicted box; ignored without a target.
        answered: False if the model failed or its answer is unreadable. A no-target expression is then not correct.
            This is the project's own choice, because an empty mask cannot tell a failure from a no-target answer.
    """

    intersection: Any
    target_area: Any
    prediction_area: Any
    box_iou: Any
    answered: Any


Masks = Rle | np.ndarray | Sequence[Rle] | None


def _union(masks: Masks) -> Rle | None:
    if masks is None:
        return None
    if isinstance(masks, np.ndarray):
        return encode_mask(masks)
    if isinstance(masks, dict):
        return masks
    return coco_mask.merge(list(masks)) if len(masks) else None


def _without(ignore: Rle | None, rle: Rle | None) -> Rle | None:
    if not ignore or not rle:
        return rle
    if list(rle["size"]) != list(ignore["size"]):
        raise ValueError(
            f"a mask is {rle['size']} (height, width), the pixels to ignore {ignore['size']}; make them of one size"
        )
    return encode_mask(decode_mask(rle) & ~decode_mask(ignore))


def box_iou(a: Box, b: Box) -> float:
    """Return the IoU of two xyxy boxes; 0 if both are empty."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return float(both / either) if either else 0.0


def enclosing_box(boxes: Iterable[tuple[Number, Number, Number, Number]]) -> tuple[Number, Number, Number, Number]:
    """Return the smallest xyxy box around one or more boxes."""
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def measure(
    target: Masks, prediction: Masks, answered: bool = True, boxes: Sequence[Box] = (), ignore: Rle | None = None
) -> Overlap:
    """Compare one expression's target and prediction.

    Args:
        target: the union mask bool[H, W], its COCO RLE, or the RLEs of its instances; None or [] for an empty mask.
        prediction: as `target`.
        answered: see `Overlap`.
        boxes: boxes that the model itself predicted, xyxy pixels. Their enclosing box is compared with the target's
            box; without boxes, the tight box of the predicted mask is.
        ignore: pixels that are removed from both masks, as LISA does for ReasonSeg.

    Raises:
        ValueError: the two masks have different sizes.
    """
    truth, guess = (_without(ignore, _union(masks)) for masks in (target, prediction))
    target_area = int(coco_mask.area(truth)) if truth else 0
    prediction_area = int(coco_mask.area(guess)) if guess else 0
    if not truth or not guess:
        return Overlap(0, target_area, prediction_area, 0.0, answered)
    if list(truth["size"]) != list(guess["size"]):
        raise ValueError(
            f"the target mask is {truth['size']} (height, width), the prediction {guess['size']}; predict on the same "
            "image"
        )
    if not target_area or not prediction_area:
        return Overlap(0, target_area, prediction_area, 0.0, answered)
    both = int(coco_mask.area(coco_mask.merge([truth, guess], intersect=True)))
    true, tight = ((x, y, x + w, y + h) for x, y, w, h in coco_mask.toBbox([truth, guess]).tolist())
    predicted = enclosing_box(boxes) if boxes else tight
    return Overlap(both, target_area, prediction_area, box_iou(true, predicted), answered)


def get_policy(name: str) -> Policy:
    """Return the policy of that name.

    Raises:
        ValueError: there is no such policy; the message lists all policies.
    """
    if name not in POLICIES:
        raise ValueError(f"there is no policy {name!r}; choose one of {', '.join(POLICIES)}")
    return POLICIES[name]


class ReferringMetrics:
    """Metrics that accumulate in constant memory; `compute` may be called at any time.

    Single expressions are collected and added as arrays of 1,000.

    Args:
        policy: a name in `POLICIES`.
        min_pixels: predictions of fewer pixels count as empty.
    """

    def __init__(self, policy: str = DEFAULT_POLICY, min_pixels: int = 0):
        self.policy = get_policy(policy)
        self.min_pixels = min_pixels
        self._counts: Counter[str] = Counter()
        self._sums = {"iou": 0.0, "target_iou": 0.0, "box_iou": 0.0}
        self._waiting: list[Overlap] = []

    def update(self, target: Masks, prediction: Masks, answered: bool = True, boxes: Sequence[Box] = ()) -> float:
        """Measure one expression, add it and return its IoU.

        Args:
            target: as `measure` takes it.
            prediction: as `measure` takes it.
            answered: as `measure` takes it.
            boxes: as `measure` takes them.

        Raises:
            ValueError: as `measure`.
        """
        return self.add_one(measure(target, prediction, answered, boxes))

    def add_one(self, overlap: Overlap) -> float:
        """Add the overlap of one expression and return its IoU."""
        iou = float(self._iou(*overlap[:3], bool(overlap.answered)))
        self._waiting.append(overlap)
        if len(self._waiting) >= _BLOCK:
            self._add_waiting()
        return iou

    def _add_waiting(self) -> None:
        if self._waiting:
            overlap = Overlap(*map(np.array, zip(*self._waiting, strict=True)))
            self._waiting.clear()
            self.add(overlap)

    def _iou(self, intersection: Any, target: Any, prediction: Any, answered: Any) -> Any:
        """Return the IoU of one expression, given as numbers, or of N, given as arrays."""
        seen = prediction >= max(1, self.min_pixels)
        intersection, prediction = intersection * seen, prediction * seen
        union = target + prediction - intersection
        rejected = (target == 0) & (prediction == 0) & answered
        return rejected * self.policy.rejection_iou + intersection / (union + (union == 0))

    def ious(self, overlap: Overlap) -> np.ndarray:
        """Return the IoU of each expression under this policy, float64[N]; add nothing."""
        intersection, target, prediction, _, answered = self._columns(overlap)
        return self._iou(intersection, target, prediction, answered)

    def add(self, overlap: Overlap) -> np.ndarray:
        """Add the overlaps of N expressions and return their IoUs: float64[N]."""
        intersection, target, prediction, boxes, answered = self._columns(overlap)
        ious = self._iou(intersection, target, prediction, answered)
        has_target, silent = target > 0, prediction == 0
        for name, values in (
            ("intersection", intersection),
            ("union", target + prediction - intersection),
            ("n_target", has_target),
            ("n_no_target", ~has_target),
            ("n_failed", ~answered),
            ("target_answered", has_target & ~silent),
            ("rejected", ~has_target & silent & answered),
            *((f"pr@{x}", has_target & (ious >= x)) for x in PRECISION_AT),
        ):
            self._counts[name] += int(values.sum())
        self._sums["iou"] += float(ious.sum())
        self._sums["target_iou"] += float(ious[has_target].sum())
        self._sums["box_iou"] += float(boxes[has_target].sum())
        return ious

    def _columns(self, overlap: Overlap) -> tuple[np.ndarray, ...]:
        intersection, target, prediction = (np.atleast_1d(np.asarray(c, dtype=np.int64)) for c in overlap[:3])
        seen = prediction >= max(1, self.min_pixels)
        boxes = np.atleast_1d(np.asarray(overlap.box_iou, dtype=np.float64))
        answered = np.atleast_1d(np.asarray(overlap.answered, dtype=bool))
        return intersection * seen, target, prediction * seen, np.where(seen, boxes, 0.0), answered

    def merge(self, other: ReferringMetrics) -> None:
        """Add all expressions of other metrics.

        Raises:
            ValueError: their policy or `min_pixels` is another one.
        """
        mine, its = (self.policy.name, self.min_pixels), (other.policy.name, other.min_pixels)
        if mine != its:
            raise ValueError(
                f"figures under (policy, min_pixels) {mine} and {its} cannot be merged; compute both under one"
            )
        other._add_waiting()
        self._counts.update(other._counts)
        for name, total in other._sums.items():
            self._sums[name] += total

    def compute(self) -> dict[str, Any]:
        """Return the figures: shares in [0, 1], or None if undefined, and counts.

        Returns:
            The figures by name. `ciou` is the sum of intersections / sum of unions. `miou` is the mean IoU of all
            expressions, which gRefCOCO and ReasonSeg call `giou`. `target_miou`, `box_miou` and `pr@X` (share with
            IoU >= X) are over expressions with a target. `n_acc` is the share of no-target expressions with an empty
            prediction, and `t_acc` the share of the others with a prediction. `n`, `n_target`, `n_no_target` and
            `n_failed` (not answered) are numbers of expressions.
        """
        self._add_waiting()
        counts, sums = self._counts, self._sums
        n_target, n_no_target = counts["n_target"], counts["n_no_target"]

        def share(part: float, whole: int) -> float | None:
            return part / whole if whole else None

        miou = share(sums["iou"], n_target + n_no_target)
        return {
            "policy": self.policy.name,
            "min_pixels": self.min_pixels,
            "ciou": share(counts["intersection"], counts["union"]),
            "miou": miou,
            "giou": miou,
            "target_miou": share(sums["target_iou"], n_target),
            "n_acc": share(counts["rejected"], n_no_target),
            "t_acc": share(counts["target_answered"], n_target),
            **{f"pr@{x}": share(counts[f"pr@{x}"], n_target) for x in PRECISION_AT},
            "box_miou": share(sums["box_iou"], n_target),
            "n": n_target + n_no_target,
            "n_target": n_target,
            "n_no_target": n_no_target,
            "n_failed": counts["n_failed"],
        }
