"""RefScenes: rendered scenes with exact masks and unambiguous referring expressions.

This module knows shapes, pixels and the words for them. It knows nothing of models, prompts or
answers. `scene(rng)` draws one scene, `refer(rng, scene)` asks one question about it, and
`refscenes(split)` yields the fixed benchmark.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from genseg_hub.schema import ReferringExample, encode_mask
from PIL import Image, ImageDraw

VERSION = "1.0"

KINDS = ("circle", "square", "triangle", "star", "cross")
COLORS = {
    "red": (214, 40, 40),
    "orange": (245, 130, 30),
    "yellow": (240, 215, 40),
    "green": (46, 160, 67),
    "cyan": (40, 200, 215),
    "blue": (40, 80, 214),
    "purple": (140, 60, 180),
}
SIZES = ("small", "large")
# Radius as a share of sqrt(width * height).
RADII = {"small": (0.055, 0.08), "large": (0.125, 0.165)}
# (colour, kind) pairs that training scenes never show and training expressions never name.
HELD_OUT = frozenset({("red", "star"), ("green", "triangle"), ("blue", "cross"), ("yellow", "circle")})
# (width, height) in pixels.
CANVASES = ((256, 256), (320, 240), (240, 320), (336, 224), (224, 336), (384, 256), (288, 288), (400, 225))
EXPRESSION_KINDS = {"attribute": 32, "relation": 25, "extreme": 13, "several": 15, "no_target": 15}
SPLITS = {"val": 1, "test": 2}
SCENES_PER_SPLIT, EXPRESSIONS_PER_SCENE = 500, 4

_SUPERSAMPLING = 3
_MAX_HIDDEN = 0.4  # an object is never covered by more than this share of its area
_MARGIN = 0.03  # two positions closer than this share of the canvas are not compared in words


@dataclass(frozen=True, eq=False)
class Shape:
    """One drawn object. `mask` is its visible part, bool[H, W]; `box` its tight xyxy box in pixels."""

    kind: str
    color: str
    size: str
    mask: np.ndarray
    box: tuple[float, float, float, float]

    @property
    def center(self) -> tuple[float, float]:
        """Centre (x, y) of the visible box, in pixels."""
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2

    @property
    def held_out(self) -> bool:
        return (self.color, self.kind) in HELD_OUT


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture, uint8[H, W, 3], and its shapes from left to right."""

    image: np.ndarray
    shapes: tuple[Shape, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]


Attributes = tuple[str | None, str | None, str | None]  # size, colour, kind; None is "any"


@dataclass(frozen=True, eq=False)
class Question:
    """An expression, its kind (a key of EXPRESSION_KINDS) and the shapes it refers to, left to right.

    `described` are the attributes that the expression names for what it looks for, `reference`
    those of the shape that a relation starts from.
    """

    kind: str
    expression: str
    targets: tuple[Shape, ...]
    held_out: bool
    described: Attributes
    reference: Attributes | None


def _outline(kind: str, radius: float, angle: float) -> list[tuple[float, float]]:
    if kind == "square":
        points = [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]
    elif kind == "triangle":
        points = [(0, -1.05), (1.05, 0.85), (-1.05, 0.85)]
    elif kind == "star":
        points = [
            (
                (1.1 if i % 2 == 0 else 0.48) * math.sin(i * math.pi / 5),
                -(1.1 if i % 2 == 0 else 0.48) * math.cos(i * math.pi / 5),
            )
            for i in range(10)
        ]
    elif kind == "cross":
        a, b = 0.33, 1.0
        points = [
            (-a, -b),
            (a, -b),
            (a, -a),
            (b, -a),
            (b, a),
            (a, a),
            (a, b),
            (-a, b),
            (-a, a),
            (-b, a),
            (-b, -a),
            (-a, -a),
        ]
    else:
        points = [(math.cos(i * math.pi / 16), math.sin(i * math.pi / 16)) for i in range(32)]
    c, s = math.cos(angle) * radius, math.sin(angle) * radius
    return [(x * c - y * s, x * s + y * c) for x, y in points]


def _alpha(kind: str, cx: float, cy: float, radius: float, angle: float, size: tuple[int, int]):
    """Coverage float32[h, w] of one outline and the integer (x, y) of its upper left corner."""
    width, height = size
    reach = radius * 1.35 + 1
    x0, y0 = max(0, int(cx - reach)), max(0, int(cy - reach))
    x1, y1 = min(width, int(cx + reach) + 1), min(height, int(cy + reach) + 1)
    k = _SUPERSAMPLING
    patch = Image.new("L", ((x1 - x0) * k, (y1 - y0) * k))
    outline = [((x + cx - x0) * k, (y + cy - y0) * k) for x, y in _outline(kind, radius, angle)]
    ImageDraw.Draw(patch).polygon(outline, fill=255)
    coverage = np.asarray(patch.reduce(k), dtype=np.float32) / 255
    return coverage, x0, y0


def _background(rng: random.Random, width: int, height: int) -> np.ndarray:
    """Pale or dark, never saturated, so that the colour words stay true: float32[H, W, 3]."""
    level = rng.uniform(185, 235) if rng.random() < 0.75 else rng.uniform(25, 60)
    base = np.array([level + rng.uniform(-14, 14) for _ in range(3)], dtype=np.float32)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    angle, contrast = rng.uniform(0, math.pi), rng.uniform(6, 22)
    along = x * math.cos(angle) + y * math.sin(angle)
    texture = rng.choice(("plain", "gradient", "stripes", "checks", "clouds"))
    if texture == "plain":
        pattern: np.ndarray = np.zeros_like(x)
    elif texture == "gradient":
        pattern = along / math.hypot(width, height) * 2 - 0.5
    elif texture == "stripes":
        pattern = np.sin(along * (2 * math.pi / rng.uniform(10, 40)))
    elif texture == "checks":
        cell = rng.uniform(10, 32)
        pattern = np.where((x // cell + y // cell) % 2 == 0, 1.0, -1.0)
    else:
        coarse = np.random.default_rng(rng.getrandbits(32)).uniform(-1, 1, (6, 8)).astype(np.float32)
        pattern = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return base + contrast * pattern.astype(np.float32)[..., None]


def scene(
    rng: random.Random,
    count: int | None = None,
    canvas: tuple[int, int] | None = None,
    allow_held_out: bool = True,
) -> Scene:
    """Draw one scene.

    Args:
        rng: the only source of randomness.
        count: number of shapes; 2 to 6 by default. Fewer may fit on a crowded canvas.
        canvas: (width, height) in pixels, one of CANVASES by default.
        allow_held_out: whether HELD_OUT colour and kind pairs may appear.
    """
    width, height = canvas or rng.choice(CANVASES)
    count = count or rng.randint(2, 6)
    unit = math.sqrt(width * height)
    image = _background(rng, width, height)
    crowded = rng.random() < 0.35  # shapes may cover each other
    drawn: list[tuple[str, str, str, np.ndarray, int]] = []  # kind, colour, size, mask, full area
    owner = np.full((height, width), -1, dtype=np.int8)
    for _ in range(count * 25):
        if len(drawn) == count:
            break
        kind, color, size = rng.choice(KINDS), rng.choice(list(COLORS)), rng.choice(SIZES)
        if drawn and rng.random() < 0.4:  # share attributes with another shape: hard distractors
            like = rng.choice(drawn)
            if rng.random() < 0.6:
                kind = like[0]
            if rng.random() < 0.6:
                color = like[1]
        if not allow_held_out and (color, kind) in HELD_OUT:
            continue
        radius = rng.uniform(*RADII[size]) * unit
        border = radius * 0.95 + 1
        cx, cy = rng.uniform(border, width - border), rng.uniform(border, height - border)
        coverage, x0, y0 = _alpha(kind, cx, cy, radius, rng.uniform(-0.25, 0.25), (width, height))
        rows, columns = slice(y0, y0 + coverage.shape[0]), slice(x0, x0 + coverage.shape[1])
        inside = coverage >= 0.5
        below = owner[rows, columns]
        covered = np.bincount(below[inside & (below >= 0)].astype(np.int64), minlength=len(drawn))
        if covered.sum() and not crowded:
            continue
        if any((owner == i).sum() - covered[i] < (1 - _MAX_HIDDEN) * drawn[i][4] for i in np.flatnonzero(covered)):
            continue
        below[inside] = len(drawn)
        drawn.append((kind, color, size, inside, int(inside.sum())))
        paint = np.array(COLORS[color], dtype=np.float32) + np.array(
            [rng.uniform(-14, 14) for _ in range(3)], dtype=np.float32
        )
        shade = np.linspace(-1, 1, coverage.shape[0], dtype=np.float32)[:, None, None] * rng.uniform(-16, 16)
        if rng.random() < 0.3:  # striped paint
            shade = (
                shade
                + 10 * np.sin(np.arange(coverage.shape[1], dtype=np.float32) * rng.uniform(0.3, 1.2))[None, :, None]
            )
        image[rows, columns] += coverage[..., None] * (paint + shade - image[rows, columns])
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal((height, width, 1), dtype=np.float32)
    pixels = (image + rng.uniform(0, 7) * noise).clip(0, 255).astype(np.uint8)
    shapes = []
    for i, (kind, color, size, _, _) in enumerate(drawn):
        mask = owner == i
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1))
        shapes.append(Shape(kind, color, size, mask, box))
    return Scene(pixels, tuple(sorted(shapes, key=lambda shape: shape.center)))


def matches(shape: Shape, attributes: Attributes) -> bool:
    """Whether a shape has all of the attributes."""
    return all(a is None or a == b for a, b in zip(attributes, (shape.size, shape.color, shape.kind), strict=True))


def _name(attributes: Attributes, plural: bool = False) -> str:
    size, color, kind = attributes
    noun = kind or "shape"
    if plural:
        noun += "es" if noun == "cross" else "s"
    return " ".join(word for word in (size, color, noun) if word)


def _some_attributes(rng: random.Random, shape: Shape) -> Attributes:
    while True:
        attributes = (
            shape.size if rng.random() < 0.4 else None,
            shape.color if rng.random() < 0.75 else None,
            shape.kind if rng.random() < 0.75 else None,
        )
        if any(attributes):
            return attributes


def _is_relation(word: str, a: Shape, b: Shape, size: tuple[int, int]) -> bool:
    dx, dy = (a.center[0] - b.center[0]) / size[0], (a.center[1] - b.center[1]) / size[1]
    offset = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[word]
    return offset > _MARGIN


RELATIONS = ("left of", "right of", "above", "below")
OPPOSITES = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))
# word -> (axis, sign): the extreme shape has the smallest sign * centre[axis]
EXTREMES = {"leftmost": (0, 1), "rightmost": (0, -1), "topmost": (1, 1), "bottommost": (1, -1)}
_COUNT_WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


def _names_held_out(attributes: Attributes) -> bool:
    return (attributes[1], attributes[2]) in HELD_OUT


def _attribute(rng: random.Random, scene: Scene):
    target = rng.choice(scene.shapes)
    attributes = _some_attributes(rng, target)
    if sum(matches(shape, attributes) for shape in scene.shapes) == 1:
        return f"the {_name(attributes)}", (target,), (attributes,)


def _relation(rng: random.Random, scene: Scene):
    if len(scene.shapes) < 2:
        return None
    target, anchor = rng.sample(scene.shapes, 2)
    attributes, anchor_attributes = _some_attributes(rng, target), _some_attributes(rng, anchor)
    if sum(matches(shape, anchor_attributes) for shape in scene.shapes) != 1:
        return None
    word = rng.choice(RELATIONS)
    candidates = [shape for shape in scene.shapes if shape is not anchor and matches(shape, attributes)]
    hits = [shape for shape in candidates if _is_relation(word, shape, anchor, scene.size)]
    clear = all(shape in hits or _is_relation(OPPOSITES[word], shape, anchor, scene.size) for shape in candidates)
    if hits == [target] and clear:
        return (
            f"the {_name(attributes)} {word} the {_name(anchor_attributes)}",
            (target,),
            (attributes, anchor_attributes),
        )


def _extreme(rng: random.Random, scene: Scene):
    like = rng.choice(scene.shapes)
    attributes: Attributes = rng.choice(
        ((None, None, None), (None, like.color, None), (None, None, like.kind), (like.size, None, None))
    )
    candidates = [shape for shape in scene.shapes if matches(shape, attributes)]
    if len(candidates) < 2:
        return None
    word = rng.choice(list(EXTREMES))
    axis, sign = EXTREMES[word]
    candidates.sort(key=lambda shape: sign * shape.center[axis])
    if abs(candidates[1].center[axis] - candidates[0].center[axis]) > _MARGIN * scene.size[axis]:
        return f"the {word} {_name(attributes)}", (candidates[0],), (attributes,)


def _several(rng: random.Random, scene: Scene):
    attributes = (None, None, None) if rng.random() < 0.2 else _some_attributes(rng, rng.choice(scene.shapes))
    hits = tuple(shape for shape in scene.shapes if matches(shape, attributes))
    if len(hits) < 2:
        return None
    quantifiers = ["all", f"the {_COUNT_WORDS[len(hits)]}"] + (["both"] if len(hits) == 2 else [])
    return f"{rng.choice(quantifiers)} {_name(attributes, plural=True)}", hits, (attributes,)


def _no_target(rng: random.Random, scene: Scene):
    """A near miss: the description of a shape that is there with one attribute, or the relation, changed."""
    like = rng.choice(scene.shapes)
    attributes = _some_attributes(rng, like)
    form = rng.choice(("the", "the", "the", "all", "extreme", "relation"))
    if form == "relation":
        anchor = rng.choice(scene.shapes)
        anchor_attributes = _some_attributes(rng, anchor)
        if anchor is like or sum(matches(shape, anchor_attributes) for shape in scene.shapes) != 1:
            return None
        word = rng.choice(RELATIONS)
        candidates = [shape for shape in scene.shapes if shape is not anchor and matches(shape, attributes)]
        if all(_is_relation(OPPOSITES[word], shape, anchor, scene.size) for shape in candidates):
            names = attributes, anchor_attributes
            return f"the {_name(attributes)} {word} the {_name(anchor_attributes)}", (), names
        return None
    changed = rng.choice([i for i in range(3) if attributes[i]])
    other = rng.choice((SIZES, list(COLORS), KINDS)[changed])
    wrong: Attributes = (
        other if changed == 0 else attributes[0],
        other if changed == 1 else attributes[1],
        other if changed == 2 else attributes[2],
    )
    if any(matches(shape, wrong) for shape in scene.shapes):
        return None
    if form == "all":
        return f"all {_name(wrong, plural=True)}", (), (wrong,)
    if form == "extreme":
        return f"the {rng.choice(list(EXTREMES))} {_name(wrong)}", (), (wrong,)
    return f"the {_name(wrong)}", (), (wrong,)


_FORMS: dict[str, Callable] = {
    "attribute": _attribute,
    "relation": _relation,
    "extreme": _extreme,
    "several": _several,
    "no_target": _no_target,
}


def refer(rng: random.Random, scene: Scene, allow_held_out: bool = True) -> Question:
    """Ask one unambiguous question about a scene.

    The kind is drawn by the weights of EXPRESSION_KINDS; kinds that the scene cannot support (an
    extreme among one shape) are drawn again.
    """
    while True:
        (kind,) = rng.choices(list(EXPRESSION_KINDS), list(EXPRESSION_KINDS.values()))
        for _ in range(8):
            question = _FORMS[kind](rng, scene)
            if question is None:
                continue
            expression, targets, names = question
            held_out = any(map(_names_held_out, names)) or any(shape.held_out for shape in targets)
            if held_out and not allow_held_out:
                continue
            reference = names[1] if len(names) > 1 else None
            return Question(kind, expression, targets, held_out, names[0], reference)


def refscenes(split: str, limit: int | None = None) -> Iterator[ReferringExample]:
    """Yield the fixed benchmark: 500 scenes with 4 expressions each.

    Args:
        split: "val" or "test".
        limit: stop after this many expressions.

    Yields:
        ReferringExample with attributes `kind` (a key of EXPRESSION_KINDS) and `held_out`.

    Raises:
        ValueError: for another split. "train" is endless: see `genseg_training.sft`.
    """
    if split not in SPLITS:
        raise ValueError(f"RefScenes has no fixed split {split!r}; choose one of {', '.join(SPLITS)}")
    left = SCENES_PER_SPLIT * EXPRESSIONS_PER_SCENE if limit is None else limit
    for index in range(SCENES_PER_SPLIT):
        rng = random.Random(f"refscenes-{VERSION}-{split}-{index}")
        drawn = scene(rng)
        for number in range(EXPRESSIONS_PER_SCENE):
            if left <= 0:
                return
            left -= 1
            question = refer(rng, drawn)
            yield ReferringExample(
                image=drawn.image,
                expression=question.expression,
                masks=tuple(encode_mask(shape.mask) for shape in question.targets),
                example_id=f"refscenes-{split}-{index:03d}-{number}",
                image_id=f"refscenes-{split}-{index:03d}",
                attributes={"kind": question.kind, "held_out": question.held_out},
            )


def training_examples(count: int, seed: int) -> Iterator[ReferringExample]:
    """Yield expressions about scenes that are neither RefScenes nor what the warm start saw, without
    held-out combinations: EXPRESSIONS_PER_SCENE of each scene.

    Args:
        count: expressions. seed: another seed gives other scenes.
    """
    for index in range(count):
        scene_number, number = divmod(index, EXPRESSIONS_PER_SCENE)
        if number == 0:
            rng = random.Random(f"training-{seed}-{scene_number}")
            drawn = scene(rng, allow_held_out=False)
        question = refer(rng, drawn, allow_held_out=False)
        image_id = f"training-{seed}-{scene_number}"
        yield ReferringExample(
            image=drawn.image,
            expression=question.expression,
            masks=tuple(encode_mask(shape.mask) for shape in question.targets),
            example_id=f"{image_id}-{number}",
            image_id=image_id,
            attributes={"kind": question.kind},
        )
