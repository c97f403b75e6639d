"""Metrics of referring segmentation, streaming and on RLE.

Empty against empty follows gRefCOCO's own evaluator (ReLA, arXiv 2306.00968): a no-target
expression answered with nothing has IoU 1 and adds nothing to the intersection and union sums;
answered with something it has IoU 0 and adds the predicted area to the union; a target answered
with nothing has IoU 0 and adds its area to the union.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco_mask

from genseg_hub.schema import Rle, encode_mask

POLICY = "grefcoco"
PRECISION_AT = (0.5, 0.6, 0.7, 0.8, 0.9)


def _union(masks: Rle | np.ndarray | Sequence[Rle] | None) -> Rle | None:
    if masks is None:
        return None
    if isinstance(masks, np.ndarray):
        return encode_mask(masks)
    if isinstance(masks, dict):
        return masks
    return coco_mask.merge(list(masks)) if len(masks) else None


def intersection_and_union(target: Rle | None, prediction: Rle | None) -> tuple[int, int]:
    """Pixels in both and pixels in either; None is the empty mask.

    Raises:
        ValueError: when the two masks have different sizes.
    """
    target_area = int(coco_mask.area(target)) if target else 0
    prediction_area = int(coco_mask.area(prediction)) if prediction else 0
    if not target or not prediction:
        return 0, target_area + prediction_area
    if list(target["size"]) != list(prediction["size"]):
        raise ValueError(f"the target mask is {target['size']} (height, width), the prediction {prediction['size']}")
    both = int(coco_mask.area(coco_mask.merge([target, prediction], intersect=True)))
    return both, target_area + prediction_area - both


@dataclass
class ReferringMetrics:
    """Accumulates expressions; `compute` may be called at any time."""

    intersection: int = 0
    union: int = 0
    target_ious: list[float] = field(default_factory=list)
    no_target_correct: list[bool] = field(default_factory=list)
    answered: int = 0

    @property
    def count(self) -> int:
        """Expressions so far."""
        return len(self.target_ious) + len(self.no_target_correct)

    def update(
        self,
        target: Rle | np.ndarray | Sequence[Rle] | None,
        prediction: Rle | np.ndarray | Sequence[Rle] | None,
        answered: bool = True,
    ) -> float:
        """Add one expression and return its IoU.

        Args:
            target, prediction: the union mask bool[H, W], its RLE, or the RLEs of its instances;
                None or an empty list is nothing.
            answered: False when the model failed or its answer could not be read. Such an
                expression is never a correct no-target (this project's own choice: a mask alone
                cannot tell silence from "nothing is meant").
        """
        target_rle, prediction_rle = _union(target), _union(prediction)
        both, either = intersection_and_union(target_rle, prediction_rle)
        self.intersection += both
        self.union += either
        said_something = bool(prediction_rle is not None and coco_mask.area(prediction_rle))
        if target_rle is not None and coco_mask.area(target_rle):
            self.answered += said_something
            self.target_ious.append(both / either)
            return self.target_ious[-1]
        self.no_target_correct.append(answered and not said_something)
        return float(self.no_target_correct[-1])

    def compute(self) -> dict[str, float | int | str | None]:
        """cIoU, mIoU, target mIoU, N-acc, T-acc and Pr@X, each in [0, 1], None where undefined."""

        def mean(values: Sequence[float]) -> float | None:
            return float(np.mean(values)) if len(values) else None

        ious = np.array(self.target_ious)
        return {
            "policy": POLICY,
            "ciou": self.intersection / self.union if self.union else None,
            "miou": mean(self.target_ious + [float(correct) for correct in self.no_target_correct]),
            "target_miou": mean(self.target_ious),
            "n_acc": mean(self.no_target_correct),
            "t_acc": self.answered / len(ious) if len(ious) else None,
            **{f"pr@{x}": mean((ious >= x).tolist()) for x in PRECISION_AT},
            "n": self.count,
            "n_target": len(ious),
            "n_no_target": len(self.no_target_correct),
        }
