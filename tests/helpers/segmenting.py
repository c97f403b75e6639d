"""Images and instance prompts for segmenters, and comparisons of their masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from genseg_hub.images import load_image
from genseg_hub.schema import InstancePrompt, ReferringExample
from genseg_training.nano.refscenes import refscenes

PHOTOS = Path(__file__).parents[2] / "examples" / "photos" / "images"


def photo(name: str = "000000000030.jpg") -> np.ndarray:
    return np.array(load_image(PHOTOS / name))


def prompts(image: np.ndarray, seed: int) -> list[InstancePrompt]:
    """Return boxes anywhere, with 0 to 2 points inside and 0 to 2 negative points anywhere."""
    rng, (height, width) = np.random.default_rng(seed), image.shape[:2]
    made = []
    for inside, outside in ((0, 0), (1, 0), (2, 0), (1, 1), (2, 2), (0, 1)):
        (x1, x2), (y1, y2) = np.sort(rng.uniform(0, width, 2)), np.sort(rng.uniform(0, height, 2))
        points = tuple((rng.uniform(x1, x2), rng.uniform(y1, y2)) for _ in range(inside))
        others = tuple((rng.uniform(0, width), rng.uniform(0, height)) for _ in range(outside))
        made.append(InstancePrompt((x1, y1, x2, y2), points, negative_points=others))
    return made


def referring() -> ReferringExample:
    """Return an example with a target, which nano answers."""
    return next(example for example in refscenes("val", 20) if example.masks)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum() if (a | b).any() else 1.0


def assert_same(ours: tuple[list, list], theirs: tuple[list, list]) -> None:
    """Compare masks and scores of two segmenters."""
    for a, b in zip(ours[0], theirs[0], strict=True):
        assert a.dtype == b.dtype == bool
        assert iou(a, b) > 0.99
    assert ours[1] == pytest.approx(theirs[1], abs=1e-3)
