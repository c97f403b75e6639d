"""Checkpoints and segmenters with known properties.

Any other Hub id or folder of a known family also works.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

NANO = "nano"
# Checkpoints in this package: name -> folder. Each names nano's segmenter, "nano".
_PACKAGE = Path(__file__).parents[1]
EMBEDDED = {NANO: _PACKAGE / "nano", "nano-sft": _PACKAGE / "nano_sft"}
DEFAULT_SEGMENTER = "facebook/sam2.1-hiera-large"
SAM3 = "facebook/sam3"
AGENT = "sam3-agent"  # a segmenter's name, see `names.split_agent`
ITSELF = "."  # the segmenter of SAM 3, which takes words and has no reasoner
_SAM2_GIGABYTES = 3.0  # SAM 2 large in float32 and one image of 1024 pixels, as docs/training_results.md counts it
SAM3_IMAGE_GIGABYTES = 0.7  # one image and one phrase in float32: 0.62 by benchmarks/sam3_memory.py
_ANSWER_TOKENS = 2048 + 400 + 1024  # image, prompt and answer
# Hub id -> (configuration in the sam2 package, weights file in the repository)
SAM2_REPOSITORIES = {
    f"facebook/sam{version}-hiera-{size}": (
        f"sam{version}/sam{version}_hiera_{short}",
        f"sam{version}_hiera_{size.replace('-', '_')}.pt",
    )
    for version in ("2", "2.1")
    for size, short in (("tiny", "t"), ("small", "s"), ("base-plus", "b+"), ("large", "l"))
}


@dataclass(frozen=True)
class KnownCheckpoint:
    """A checkpoint that forms and help offer.

    Attributes:
        name: as the user types it.
        parameters: their number, from the checkpoint's Hub page.
        needs: hardware, and other limits.
        gigabytes: size of the reasoner's weights as 16-bit numbers.
        context: tokens for which the model has positions, from its config.json.
        token_bytes: bytes of a token's keys and values as 16-bit numbers, from its config.json (layers, key-value heads
            and their size).
        licence: licence of the weights, from their Hub page; "" for unknown.
        dialect, segmenter: defaults; `genseg.json` of the repository overrides them. "" and ITSELF for SAM 3.
    """

    name: str
    parameters: str
    needs: str
    gigabytes: float
    context: int = 262_144
    token_bytes: int = 147_456
    licence: str = "apache-2.0"
    dialect: str = "qwen3_vl"
    segmenter: str = DEFAULT_SEGMENTER

    @property
    def takes_words(self) -> bool:
        """Return whether it is SAM 3, whose weights are loaded in float32."""
        return self.segmenter == ITSELF

    @property
    def memory(self) -> float:
        """Estimate the gigabytes of one answer: weights, keys and values, and SAM 2.

        The image has the default size.
        """
        if self.takes_words:
            return self.gigabytes + SAM3_IMAGE_GIGABYTES
        answer = 2 * _ANSWER_TOKENS * self.token_bytes / 1e9  # keys and values are copied once
        return self.gigabytes + answer + (0.1 if self.segmenter == NANO else _SAM2_GIGABYTES)


_NANO: dict[str, Any] = {"context": 4096, "token_bytes": 1024, "dialect": "genseg", "segmenter": NANO}
_QWEN2_5_VL_7B: dict[str, Any] = {"context": 128_000, "token_bytes": 57_344}
KNOWN = (
    KnownCheckpoint(NANO, "4 M + 2.5 M", "a CPU; rendered scenes only", 0.01, **_NANO),
    KnownCheckpoint("nano-sft", "4 M + 2.5 M", "a CPU; where GRPO of nano starts", 0.01, **_NANO),
    KnownCheckpoint("Qwen/Qwen3-VL-2B-Instruct", "2 B", "a GPU", 4.3, token_bytes=114_688),
    KnownCheckpoint("Qwen/Qwen3-VL-4B-Instruct", "4 B", "a GPU", 8.9),
    KnownCheckpoint("Qwen/Qwen3-VL-8B-Instruct", "8 B", "a GPU", 17.5),
    KnownCheckpoint(
        "Ricky06662/Seg-Zero-7B",
        "7 B",
        "a GPU",
        16.6,
        licence="other",
        dialect="seg_zero",
        segmenter="facebook/sam2-hiera-large",
        **_QWEN2_5_VL_7B,
    ),
    KnownCheckpoint(
        "Ricky06662/VisionReasoner-7B",
        "7 B",
        "a GPU",
        16.6,
        licence="",
        dialect="vision_reasoner",
        segmenter="facebook/sam2-hiera-large",
        **_QWEN2_5_VL_7B,
    ),
    KnownCheckpoint("geshang/Seg-R1-7B", "7 B", "a GPU", 16.6, licence="", dialect="seg_r1", **_QWEN2_5_VL_7B),
    KnownCheckpoint(
        SAM3,
        "0.8 B",
        "a GPU, and access that its page grants; words alone, no reasoner",
        3.4,
        context=32,
        token_bytes=0,
        licence="other",
        dialect="",
        segmenter=ITSELF,
    ),
)
