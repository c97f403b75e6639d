"""The editor of an answer's boxes and points in the panel "Ask"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fiftyone.operators import types
from genseg_hub.schema import Box, InstancePrompt, Point

from fiftyone_genseg.panels import _layout

STEPS = {"1 pixel": 1.0, "5 pixels": 5.0, "20 pixels": 20.0, "100 pixels": 100.0}
_DEFAULT_STEP = "5 pixels"
_DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_SIDES = {"left side": (0, 0), "top": (1, 1), "right side": (2, 0), "bottom": (3, 1)}  # (place in the box, axis)


def add(
    panel: types.Object, handlers: Any, prompts: Sequence[InstancePrompt], chosen: Mapping[str, Any], typing: bool
) -> None:
    """Add the editor of boxes and points.

    Args:
        panel: panel to add it to.
        handlers: the panel's class, with a handler for each button.
        prompts: the present instance prompts.
        chosen: the user's choices: `part` and `step`.
        typing: whether numbers can be typed, too. The App writes typed text into the panel's state.
    """
    names = parts(prompts)
    if names:
        row = _layout.row(panel, "moving")
        part = chosen["part"] if chosen.get("part") in names else names[0]
        _layout.dropdown(row, "part", "Move", names, part, handlers.choose_part)
        step = chosen["step"] if chosen.get("step") in STEPS else _DEFAULT_STEP
        _layout.dropdown(row, "step", "by", list(STEPS), step, handlers.choose_step)
        for name in _DIRECTIONS:
            _layout.button(row, f"move_{name}", name.capitalize(), handlers.move, params={"direction": name})
    adding = _layout.row(panel, "adding")
    if names:
        _layout.button(adding, "add_inside", "Add a point inside", handlers.add_inside)
        _layout.button(adding, "add_outside", "Add a point outside", handlers.add_outside)
    _layout.button(adding, "again", "Segment again", handlers.again)
    _layout.button(adding, "done", "Done", handlers.done)
    if not typing:
        return
    _layout.text(panel, "dragging", "A box can also be dragged in the tab Annotate. Press Segment again after that.")
    view = types.TextFieldView(multiline=True, rows=5)
    panel.str(
        "prompt",
        label="Boxes and points in pixels",
        description="box x1 y1 x2 y2; + x y for a point inside; - x y for one outside; an empty line between instances",
        view=view,
    )
    row = _layout.row(panel, "typing")
    _layout.button(row, "again_from_text", "Segment from these numbers", handlers.again_from_text)


def parts(prompts: Sequence[InstancePrompt]) -> list[str]:
    """Return the names of the movable parts, such as "1: left side" and "1: point 2".

    Points outside are named "1: point outside 1".
    """
    names = []
    for number, prompt in enumerate(prompts, 1):
        found = ["box", *_SIDES] if prompt.box else []
        found += [f"point {i}" for i, _ in enumerate(prompt.points, 1)]
        found += [f"point outside {i}" for i, _ in enumerate(prompt.negative_points, 1)]
        names += [f"{number}: {name}" for name in found]
    return names


def moved(
    prompts: Sequence[InstancePrompt], part: str | None, direction: str, step: str | None, size: tuple[int, int]
) -> list[InstancePrompt]:
    """Return the prompts with one part moved; it stops at the border of the image.

    Args:
        prompts: prompts in pixels of the image.
        part: a name of `parts`; the first one if there is no such part.
        direction: "left", "right", "up" or "down".
        step: a key of `STEPS`; 5 pixels if there is no such step.
        size: (width, height) of the image in pixels.

    Raises:
        ValueError: there is nothing to move, or the box would have no area.
    """
    index, name = _which(prompts, part)
    pixels = STEPS.get(step or _DEFAULT_STEP, STEPS[_DEFAULT_STEP])
    dx, dy = (pixels * sign for sign in _DIRECTIONS[direction])
    prompt = prompts[index]
    if name == "box" and prompt.box:
        x1, y1, x2, y2 = prompt.box
        dx = min(max(dx, -x1), size[0] - x2)
        dy = min(max(dy, -y1), size[1] - y2)
        changed = replace(prompt, box=(x1 + dx, y1 + dy, x2 + dx, y2 + dy))
    elif name in _SIDES and prompt.box:
        changed = replace(prompt, box=_with_side(prompt.box, name, (dx, dy), size))
    else:
        outside = name.startswith("point outside")
        points: list[Point] = list(prompt.negative_points if outside else prompt.points)
        place = int(name.rpartition(" ")[2]) - 1
        x, y = points[place]
        points[place] = min(max(x + dx, 0.0), size[0] - 1.0), min(max(y + dy, 0.0), size[1] - 1.0)
        there = tuple(points)
        changed = replace(prompt, negative_points=there) if outside else replace(prompt, points=there)
    return [changed if number == index else other for number, other in enumerate(prompts)]


def with_point(
    prompts: Sequence[InstancePrompt], part: str | None, negative: bool, size: tuple[int, int]
) -> list[InstancePrompt]:
    """Return the prompts with a further point of the chosen instance.

    The user moves it from there. A point inside starts in the middle of the box, and a point outside left of it.
    """
    index, _ = _which(prompts, part)
    prompt = prompts[index]
    box = prompt.box or (*prompt.points[0], *prompt.points[0])
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    if negative:
        changed = replace(prompt, negative_points=(*prompt.negative_points, (max(box[0] - 5.0, 0.0), y)))
    else:
        changed = replace(prompt, points=(*prompt.points, (min(x, size[0] - 1.0), min(y, size[1] - 1.0))))
    return [changed if number == index else other for number, other in enumerate(prompts)]


def _which(prompts: Sequence[InstancePrompt], part: str | None) -> tuple[int, str]:
    """Return the number of the instance, from 0, and the part's name without it."""
    names = parts(prompts)
    if not names:
        raise ValueError("there is no box and no point to begin with: type one below")
    number, _, name = (part if part in names else names[0]).partition(": ")
    return int(number) - 1, name


def _with_side(box: Box, name: str, by: tuple[float, float], size: tuple[int, int]) -> Box:
    place, axis = _SIDES[name]
    sides = list(box)
    sides[place] = min(max(sides[place] + by[axis], 0.0), float(size[axis]))
    if sides[2] <= sides[0] or sides[3] <= sides[1]:
        raise ValueError("the box would have no area: move the other side first")
    return sides[0], sides[1], sides[2], sides[3]
