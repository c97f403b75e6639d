"""Published figures of systems whose checkpoints this project runs.

This project measured none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GENSEG_R1 = "GenSeg-R1, arXiv 2602.09701"


@dataclass(frozen=True)
class PublishedFigures:
    """One row of a published table.

    Attributes:
        system: name that its authors use.
        benchmark, split: names in `archives`.
        figures: name in `figures.NAMES` -> share in [0, 1].
        source: the publication.
        checkpoint: name in `checkpoints.catalog`; "" if the weights are not public.
    """

    system: str
    benchmark: str
    split: str
    figures: Mapping[str, float]
    source: str
    checkpoint: str = ""

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {100 * value:.1f}" for name, value in self.figures.items())
        return f"{self.benchmark} {self.split}: {figures} ({self.source})"


_ABOUT = f"about, {GENSEG_R1}"
_QWEN3_VL, _SEG_ZERO, _SEG_R1 = "Qwen/Qwen3-VL-8B-Instruct", "Ricky06662/Seg-Zero-7B", "geshang/Seg-R1-7B"
_VISION = "Ricky06662/VisionReasoner-7B"
_SEG_ZERO_PAPER, _SEG_R1_PAPER = "Seg-Zero, arXiv 2503.06520", "Seg-R1, arXiv 2506.22624, abstract"
_VISION_PAPER = "VisionReasoner, arXiv 2505.12081"
PUBLISHED = (
    PublishedFigures(
        "GenSeg-R1-8B", "refcocog", "val", {"ciou": 0.7127, "miou": 0.7382, "box_miou": 0.8101}, GENSEG_R1
    ),
    PublishedFigures("Qwen3-VL-8B + SAM 2", "refcocog", "val", {"ciou": 0.56, "miou": 0.519}, _ABOUT, _QWEN3_VL),
    PublishedFigures("Seg-Zero-7B", "refcocog", "val", {"ciou": 0.68}, _ABOUT, _SEG_ZERO),
    PublishedFigures(
        "GenSeg-R1-G", "grefcoco", "val", {"ciou": 0.7683, "target_miou": 0.7669, "n_acc": 0.8240}, GENSEG_R1
    ),
    PublishedFigures("GenSeg-R1-4B", "reasonseg", "test", {"miou": 0.6840}, GENSEG_R1),
    PublishedFigures("Seg-Zero-7B", "reasonseg", "test", {"miou": 0.614}, _ABOUT, _SEG_ZERO),
    PublishedFigures("Seg-R1-7B", "reasonseg", "test", {"miou": 0.577}, _ABOUT, _SEG_R1),
    PublishedFigures("Seg-Zero-7B", "refcoco", "testA", {"ciou": 0.803}, _SEG_ZERO_PAPER, _SEG_ZERO),
    PublishedFigures("Seg-Zero-7B", "refcoco+", "testA", {"ciou": 0.762}, _SEG_ZERO_PAPER, _SEG_ZERO),
    PublishedFigures("Seg-Zero-7B", "refcocog", "test", {"ciou": 0.726}, _SEG_ZERO_PAPER, _SEG_ZERO),
    PublishedFigures("Seg-Zero-7B", "reasonseg", "val", {"miou": 0.626}, _SEG_ZERO_PAPER, _SEG_ZERO),
    PublishedFigures("Seg-Zero-7B", "reasonseg", "test", {"miou": 0.575}, _SEG_ZERO_PAPER, _SEG_ZERO),
    PublishedFigures("VisionReasoner-7B", "refcoco", "testA", {"miou": 0.789}, _VISION_PAPER, _VISION),
    PublishedFigures("VisionReasoner-7B", "refcoco+", "testA", {"miou": 0.749}, _VISION_PAPER, _VISION),
    PublishedFigures("VisionReasoner-7B", "refcocog", "test", {"miou": 0.713}, _VISION_PAPER, _VISION),
    PublishedFigures("VisionReasoner-7B", "reasonseg", "val", {"miou": 0.663}, _VISION_PAPER, _VISION),
    PublishedFigures("VisionReasoner-7B", "reasonseg", "test", {"miou": 0.636}, _VISION_PAPER, _VISION),
    PublishedFigures("Seg-R1-7B", "refcocog", "test", {"ciou": 0.714}, _SEG_R1_PAPER, _SEG_R1),
    PublishedFigures("Seg-R1-7B", "reasonseg", "test", {"miou": 0.567}, _SEG_R1_PAPER, _SEG_R1),
)


def of(benchmark: str, split: str) -> list[PublishedFigures]:
    """Return the rows about one split."""
    return [row for row in PUBLISHED if (row.benchmark, row.split) == (benchmark, split)]


def about(checkpoint: str) -> list[PublishedFigures]:
    """Return the rows of one checkpoint."""
    return [row for row in PUBLISHED if row.checkpoint == checkpoint]
