"""Choosing the class of a segmenter by what its folder says."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from genseg_hub.segmenters.base import CONFIG_FILE, Segmenter
from genseg_hub.segmenters.sam2 import Sam2Segmenter


def load_segmenter(weights: Path, config: str | None, device: torch.device | str) -> Segmenter:
    """Load the segmenter that `checkpoints.Checkpoint` names; a folder's config.json says of which kind it is.

    Args:
        weights: folder that `save_sam2` or Transformers wrote, or a file of the SAM 2 authors.
        config: for a file, its configuration in the sam2 package; None for a folder.

    Raises:
        ValueError, OSError: the folder is of no kind that is known, or lacks or damages something.
    """
    if config is None:
        file = weights / CONFIG_FILE
        settings = json.loads(file.read_text())
        if not isinstance(settings, dict):
            raise ValueError(f"{file} is no JSON object")
        if "base" not in settings:
            from genseg_hub.segmenters.transformers import TransformersSegmenter

            return TransformersSegmenter.load(weights, device)
    return Sam2Segmenter.load(weights, config, device)
