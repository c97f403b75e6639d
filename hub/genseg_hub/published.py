"""Published figures of the systems whose checkpoints this project runs; none of them was measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GENSEG_R1 = "GenSeg-R1, arXiv 2602.09701"


@dataclass(frozen=True)
class Published:
    """One row of a published table.

    Attributes:
        system: as its authors name it.
        benchmark, split: as in `benchmarks`.
        figures: names of `metrics` -> share in [0, 1].
        source: who says so.
    """

    system: str
    benchmark: str
    split: str
    figures: Mapping[str, float]
    source: str


PUBLISHED = (
    Published("GenSeg-R1-8B", "refcocog", "val", {"ciou": 0.7127, "miou": 0.7382, "box_miou": 0.8101}, GENSEG_R1),
    Published(
        "Qwen3-VL-8B-Instruct + SAM 2", "refcocog", "val", {"ciou": 0.560, "miou": 0.519}, f"{GENSEG_R1} (about)"
    ),
    Published("Seg-Zero-7B", "refcocog", "val", {"ciou": 0.680}, f"{GENSEG_R1} (about)"),
    Published("GenSeg-R1-G", "grefcoco", "val", {"ciou": 0.7683, "target_miou": 0.7669, "n_acc": 0.8240}, GENSEG_R1),
    Published("GenSeg-R1-4B", "reasonseg", "test", {"miou": 0.6840}, GENSEG_R1),
    Published("Seg-Zero-7B", "reasonseg", "test", {"miou": 0.614}, f"{GENSEG_R1} (about)"),
    Published("Seg-R1-7B", "reasonseg", "test", {"miou": 0.577}, f"{GENSEG_R1} (about)"),
)


def of(benchmark: str, split: str) -> list[Published]:
    """The rows about one split."""
    return [row for row in PUBLISHED if (row.benchmark, row.split) == (benchmark, split)]
