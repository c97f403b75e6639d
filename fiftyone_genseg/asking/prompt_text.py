"""Instance prompts as a text that people edit.

Each instance is a block, and an empty line ends it. Numbers are pixels of the image:

    box 12 30 220 180      x1 y1 x2 y2
    + 100 60               a point inside the instance
    - 20 20                a point outside it
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from genseg_hub.schema import Box, InstancePrompt, Point

_HOW = "write lines such as: box 12 30 220 180, or + 100 60, or - 20 20"


def write(prompts: Sequence[InstancePrompt]) -> str:
    """Return instance prompts as text, coordinates with at most one decimal."""
    return "\n\n".join("\n".join(_lines(prompt)) for prompt in prompts)


def read(text: str, size: tuple[int, int]) -> list[InstancePrompt]:
    """Return the instance prompts of a text.

    Args:
        text: as `write` makes it; commas count as spaces.
        size: (width, height) of the image in pixels.

    Raises:
        ValueError: a line cannot be read, a coordinate is outside the image, a box has no area, or an instance has
            neither a box nor a point inside it.
    """
    blocks = [block for block in re.split(r"\n\s*\n", text.strip()) if block.strip()]
    if not blocks:
        raise ValueError(f"there is no box and no point; {_HOW}")
    return [_block(block, size) for block in blocks]


def _lines(prompt: InstancePrompt) -> list[str]:
    lines = [] if prompt.box is None else ["box " + " ".join(map(_number, prompt.box))]
    lines += [f"+ {_number(x)} {_number(y)}" for x, y in prompt.points]
    return lines + [f"- {_number(x)} {_number(y)}" for x, y in prompt.negative_points]


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _block(block: str, size: tuple[int, int]) -> InstancePrompt:
    boxes: list[Box] = []
    inside: list[Point] = []
    outside: list[Point] = []
    for line in block.splitlines():
        kind, *words = line.replace(",", " ").split()
        numbers = _numbers(line, words, size)
        if kind == "box" and len(numbers) == 4:
            boxes.append(_box(line, *numbers))
        elif kind in ("+", "-") and len(numbers) == 2:
            (inside if kind == "+" else outside).append((numbers[0], numbers[1]))
        else:
            raise ValueError(f"the line {line!r} cannot be read; {_HOW}")
    if len(boxes) > 1:
        raise ValueError(f"an instance has {len(boxes)} boxes; put an empty line between two instances")
    if not boxes and not inside:
        raise ValueError("an instance needs a box or a point inside it; points outside do not tell the instance")
    box = boxes[0] if boxes else None
    beyond = 0 if box is None else sum(not _holds(box, point) for point in inside)
    return InstancePrompt(box, tuple(inside), beyond, tuple(outside))


def _numbers(line: str, words: Sequence[str], size: tuple[int, int]) -> list[float]:
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"the line {line!r} cannot be read; {_HOW}") from None
    for place, number in enumerate(numbers):
        if not math.isfinite(number) or not 0 <= number <= size[place % 2]:
            raise ValueError(f"{words[place]} in {line!r} is outside the image, which has {size[0]} x {size[1]} pixels")
    return numbers


def _box(line: str, x1: float, y1: float, x2: float, y2: float) -> Box:
    if x2 <= x1 or y2 <= y1:
        raise ValueError(f"the box in {line!r} has no area; the second corner is right of the first and below it")
    return x1, y1, x2, y2


def _holds(box: Box, point: Point) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]
