"""Load the segmenter of a checkpoint; its folder decides the class."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from genseg_hub.segmenters.base import CONFIG_FILE, Segmenter
from genseg_hub.segmenters.sam2 import Sam2Segmenter


def load_segmenter(weights: Path, config: str | None, device: torch.device | str) -> Segmenter:
    """Load the segmenter of a `checkpoints.Checkpoint`.

    The folder's config.json names its kind.

    Args:
        weights: folder that `save_sam2` or Transformers wrote, or a file of the SAM 2 authors.
        config: for a file, its configuration in the sam2 package; None for a folder.
        device: device for the model.

    Raises:
        ValueError, OSError: the kind is unknown, or files are missing or damaged.
    """
    if config is None:
        file = weights / CONFIG_FILE
        settings = json.loads(file.read_text())
        if not isinstance(settings, dict):
            raise ValueError(f"{file} is no JSON object; pull the checkpoint again")
        if "base" not in settings:
            from genseg_hub.segmenters.transformers import TransformersSegmenter

            return TransformersSegmenter.load(weights, device)
    return Sam2Segmenter.load(weights, config, device)
