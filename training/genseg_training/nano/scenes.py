"""Rendered scenes: shapes of known kind, colour and size, with exact masks.

This module knows shapes, their attributes and pixels. It knows no expressions.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

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
_SUPERSAMPLING = 3
_MAX_HIDDEN = 0.4  # an object is never covered by more than this share of its area


@dataclass(frozen=True, eq=False)
class Shape:
    """One drawn object.

    Attributes:
        kind: one of KINDS.
        color: a key of COLORS.
        size: one of SIZES.
        mask: its visible part, bool[H, W].
        box: tight box of the mask, xyxy in pixels.
    """

    kind: str
    color: str
    size: str
    mask: np.ndarray
    box: tuple[float, float, float, float]

    @property
    def center(self) -> tuple[float, float]:
        """Return the centre (x, y) of the box, in pixels."""
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2

    @property
    def held_out(self) -> bool:
        """Return whether colour and kind are a held-out pair."""
        return (self.color, self.kind) in HELD_OUT


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture, uint8[H, W, 3], and its shapes from left to right."""

    image: np.ndarray
    shapes: tuple[Shape, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Return (width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]


def scene(
    rng: random.Random,
    count: int | None = None,
    canvas: tuple[int, int] | None = None,
    allow_held_out: bool = True,
) -> Scene:
    """Draw one scene.

    Args:
        rng: the only source of randomness.
        count: number of shapes; None for 2 to 6. Fewer may fit on the canvas.
        canvas: (width, height) in pixels; None for one of CANVASES.
        allow_held_out: whether the colour and kind pairs of HELD_OUT may appear.
    """
    width, height = canvas or rng.choice(CANVASES)
    count = count or rng.randint(2, 6)
    unit = math.sqrt(width * height)
    image = _background(rng, width, height)
    crowded = rng.random() < 0.35  # shapes may cover each other
    drawn: list[tuple[str, str, str, np.ndarray, int]] = []  # kind, colour, size, full mask, full area
    owner = np.full((height, width), -1, dtype=np.int8)
    for _ in range(count * 25):
        if len(drawn) == count:
            break
        kind, color, size = rng.choice(KINDS), rng.choice(list(COLORS)), rng.choice(SIZES)
        if drawn and rng.random() < 0.4:  # hard distractors share attributes with another shape
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


def _background(rng: random.Random, width: int, height: int) -> np.ndarray:
    """Draw a pale or dark background, float32[H, W, 3].

    Saturated colours belong to shapes alone.
    """
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


def _alpha(kind: str, cx: float, cy: float, radius: float, angle: float, size: tuple[int, int]):
    """Return a shape's coverage, float32[h, w], and its upper left corner (x, y)."""
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


def _outline(kind: str, radius: float, angle: float) -> list[tuple[float, float]]:
    """Return the polygon of a shape around (0, 0), in pixels."""
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
