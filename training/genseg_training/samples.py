"""Draw ground truth and answers of held-out examples, for files and trackers."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from genseg_hub.images import load_image
from genseg_hub.overlay import contact_sheet, draw_masks, draw_prediction
from genseg_hub.schema import Failure, Prediction, ReferringExample, decode_mask
from PIL import Image
from transformers.integrations import TensorBoardCallback

N_SAMPLES = 8
TAG = "held_out/samples"
_TRACKERS = ("trackio", "wandb")


class Samples:
    """Collection of the first examples about different images.

    Args:
        count: examples at most.
    """

    def __init__(self, count: int = N_SAMPLES):
        self._count = count
        self._panels: dict[str, list[tuple[Image.Image, str]]] = {}

    def add(self, example: ReferringExample, result: Prediction | Failure) -> None:
        """Keep an example if its image is new and there is room.

        Args:
            example: example with its masks.
            result: result of the example.
        """
        if len(self._panels) < self._count and example.image_id not in self._panels:
            self._panels[example.image_id] = _panels(example, result)

    def sheet(self) -> Image.Image:
        """Return one picture of the examples: true masks left, answers right."""
        return contact_sheet([panel for panels in self._panels.values() for panel in panels])


def show(picture: Path, step: int, report_to: Sequence[str], callbacks: Sequence[Any]) -> None:
    """Log a picture to the trackers of a run: trackio, W&B and TensorBoard.

    Args:
        picture: PNG file.
        step: step of the trainer.
        report_to: Transformers' option; other names are left out.
        callbacks: callbacks of the trainer, among which TensorBoard's has the open writer.
    """
    for name in _TRACKERS:
        if name in report_to:
            tracker = importlib.import_module(name)
            if name != "wandb" or tracker.run is not None:  # an evaluation before the training has no run yet
                tracker.log({TAG: tracker.Image(str(picture)), "train/global_step": step})
    for callback in callbacks:
        writer = getattr(callback, "tb_writer", None) if isinstance(callback, TensorBoardCallback) else None
        if writer is not None:
            with Image.open(picture) as opened:
                writer.add_image(TAG, np.asarray(opened.convert("RGB")), step, dataformats="HWC")


def _panels(example: ReferringExample, result: Prediction | Failure) -> list[tuple[Image.Image, str]]:
    image = load_image(example.image)
    true = [decode_mask(rle) for rle in example.masks or ()]
    panels = [(draw_masks(image, true), f"{example.expression}\nground truth: {len(true)} instances")]
    if isinstance(result, Failure):
        return [*panels, (image, f"failed: {result.message[:40]}")]
    error = result.response.error
    said = error.value if error else f"{len(result.masks)} instances"
    return [*panels, (draw_prediction(image, result), f"answer: {said}")]
