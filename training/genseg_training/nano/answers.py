"""Ground-truth answers in the genseg dialect.

nano imitates them in its warm start. Real checkpoints never see them, because GRPO needs no supervised reasoning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from genseg_hub.dialects import genseg
from genseg_hub.images import load_image
from genseg_hub.schema import InstancePrompt, Point, ReferringExample, decode_mask

from genseg_training.nano.expressions import SceneQuery, matches
from genseg_training.nano.scenes import Scene, Shape

if TYPE_CHECKING:
    from genseg_hub.segmenters.base import Segmenter

FITS, REFERENCE, NEITHER = "+", "*", "-"  # marks of a shape in the think part


def interior_points(mask: np.ndarray) -> tuple[Point, Point]:
    """Return two points inside a mask, as (x, y) in pixels, left then right.

    A vertical line through the centroid cuts the mask. Each point is the pixel of its half that is nearest to the
    centroid of that half. A mask one pixel wide gives the same half twice.

    Args:
        mask: bool[H, W].

    Raises:
        ValueError: for an empty mask.
    """
    ys, xs = np.nonzero(mask)
    if not len(xs):
        raise ValueError("an empty mask has no interior points")
    left = xs <= xs.mean()
    points = []
    for half in (left, ~left if not left.all() else left):
        x, y = xs[half], ys[half]
        nearest = np.argmin((x - x.mean()) ** 2 + (y - y.mean()) ** 2)
        points.append((float(x[nearest]) + 0.5, float(y[nearest]) + 0.5))
    return points[0], points[1]


def _at(shape: Shape, size: tuple[int, int]) -> str:
    x, y = shape.center
    return f"{round(1000 * x / size[0])},{round(1000 * y / size[1])}"


def _mark(shape: Shape, query: SceneQuery) -> str:
    if query.reference and matches(shape, query.reference):
        return REFERENCE
    return FITS if shape in query.targets or matches(shape, query.described) else NEITHER


def reasoning(query: SceneQuery, scene: Scene) -> str:
    """Return the think part: every shape from left to right, then the decision.

    A shape has a mark and its centre. The mark says that the shape fits the description (+), that a relation starts
    from it (*), or neither (-): "large red star- 312,440; small red star+ 620,180. match 620,180". Centres are
    thousandths of the image.

    Args:
        query: query about the scene.
        scene: scene with the shapes.
    """
    seen = "; ".join(f"{s.size} {s.color} {s.kind}{_mark(s, query)} {_at(s, scene.size)}" for s in scene.shapes)
    decision = " and ".join(_at(shape, scene.size) for shape in query.targets)
    return f"{seen}. match {decision or 'none'}"


def instance_prompts(query: SceneQuery) -> tuple[InstancePrompt, ...]:
    """Return box and two interior points of every target, from left to right.

    Args:
        query: query with its targets.
    """
    return tuple(InstancePrompt(shape.box, interior_points(shape.mask)) for shape in query.targets)


def answer(query: SceneQuery, scene: Scene, thinks: bool = True) -> str:
    """Return the whole answer text.

    Args:
        query: query about the scene.
        scene: scene with the shapes.
        thinks: False for an empty think part.
    """
    return genseg.render(reasoning(query, scene) if thinks else "", instance_prompts(query), scene.size)


def segmenter_miou(
    segmenter: Segmenter, examples: Iterable[ReferringExample], on_example: Callable[[], Any] = lambda: None
) -> float:
    """Return a segmenter's mean IoU on true boxes and interior points.

    Args:
        segmenter: segmenter to measure.
        examples: examples with masks.
        on_example: called after each example, for a progress bar.
    """
    ious = []
    for example in examples:
        image = np.array(load_image(example.image))
        truth = [decode_mask(rle) for rle in example.masks or ()]
        prompts = []
        for mask in truth:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
            prompts.append(InstancePrompt(box, interior_points(mask)))
        masks, _ = segmenter.segment(image, prompts, key=example.image_id or None)
        ious += [(a & b).sum() / (a | b).sum() for a, b in zip(truth, masks, strict=True)]
        on_example()
    return float(np.mean(ious))
