"""Parse the answers of tuned checkpoints.

Model text is hostile input, so no function here raises. Each step either reads its part or returns the ResponseError
that says why not. Readable parts are kept beside an error: a truncated list still gives its complete instances.
`_untuned` reads the answers of other checkpoints; it shares the geometry with this module.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import json_repair

from genseg_hub.dialects import _loose_json
from genseg_hub.dialects._thought import split_thought
from genseg_hub.schema import Box, InstancePrompt, Point, Response, ResponseError

_TOLERANCE, _PATCH = 1.1, 28  # models may miss the edge by a little; one patch of a small image is more than 10 %
_MAX_POINTS = 100  # of one list
_MAX_REPAIR_CHARACTERS = 3_000
_MAX_FAILURES = 300

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_BRACKET = re.compile(r"[\[{]")


@dataclass(frozen=True)
class Form:
    """JSON form of a family's answers.

    Attributes:
        scale: (x, y) coordinates of the lower right corner of the image.
        tagged: whether the answer must stand in `<answer>`; otherwise any JSON in the text counts.
        box: part of the key of an instance's box.
        points: returns the list of an instance's points, None for an instance without points.
        wanted: number of points that an instance must have.
    """

    scale: tuple[float, float]
    tagged: bool = True
    box: str = "bbox_2d"
    points: Callable[[dict[str, Any]], Any] = lambda item: item.get("points")
    wanted: int = 2


def parse_tagged(text: str, image_size: tuple[int, int], form: Form, truncated: bool) -> Response:
    """Read `<think>…</think><answer>JSON</answer>` into a Response.

    Args:
        text: the generated answer.
        image_size: (width, height) of the original image in pixels.
        form: JSON form of the dialect.
        truncated: whether generation stopped at the token limit.
    """
    reasoning, rest, unfinished = split_thought(text)
    if unfinished:
        return Response(text, reasoning, error=ResponseError.TRUNCATED_THOUGHT)
    _, opened, tail = rest.rpartition("<answer>")
    answer, closing, after = tail.partition("</answer>")
    if form.tagged and not opened:
        missing = ResponseError.TRUNCATED if truncated else ResponseError.NO_ANSWER_TAG
        return Response(text, reasoning, error=missing)
    if truncated and (after.strip() if closing else _loose_json.read(tail, cut=True).goes_on):
        return Response(text, reasoning, error=ResponseError.TRUNCATED)  # the JSON was a guess
    open_ended = not closing and (truncated or bool(opened))
    data, error, repaired = _load(answer if opened else rest, form.box, may_repair=not open_ended)
    if open_ended and (truncated or repaired or data is None):
        error = ResponseError.TRUNCATED
    if data is None:  # nothing is readable, or the JSON is `null`, which is not an empty list
        return Response(text, reasoning, error=error or ResponseError.WRONG_SCHEMA)
    instances, problem = _instances(data, image_size, form)
    return Response(text, reasoning, tuple(instances), error or problem, repaired)


def _load(answer: str, box: str, may_repair: bool) -> tuple[Any, ResponseError | None, bool]:
    """Return the JSON value or None, the error, and whether the JSON was repaired.

    JSON may stand in prose or fences, or lack brackets: every complete object with a box counts. If the text names more
    boxes than complete objects have, json-repair may add or remove punctuation. Its result counts only if it has the
    same numbers in the same order, and no string in it contains a bracket.
    """
    try:
        return json.loads(answer, object_pairs_hook=_without_repeats), None, False
    except (ValueError, RecursionError):
        pass
    begun = answer.count(box)
    values = _complete_values(answer)
    items = [item for value in values for item in (value if isinstance(value, list) else [value])]
    boxes = [item for item in items if isinstance(item, dict) and any(box in key for key in item)]
    if len(boxes) == begun > 0:
        return boxes, None, True
    if may_repair and begun and len(answer) <= _MAX_REPAIR_CHARACTERS:
        data = _repaired(answer)
        if data is not None:
            return data, None, True
    if boxes:
        return boxes, ResponseError.INVALID_JSON, True
    if values:
        nothing = all(value == [] for value in values)
        return values[0], None if nothing else ResponseError.WRONG_SCHEMA, True
    return None, ResponseError.INVALID_JSON, False


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; raise for a repeated key.

    Python's `json` would keep only the last of equal keys.
    """
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError("a key is repeated")
    return data


def _complete_values(text: str) -> list[Any]:
    """Return the outermost complete JSON lists and objects of a text, left to right."""
    values, failures = [], 0
    decoder = json.JSONDecoder(object_pairs_hook=_without_repeats)
    start = _BRACKET.search(text)
    while start and failures < _MAX_FAILURES:
        try:
            value, end = decoder.raw_decode(text, start.start())
            values.append(value)
        except (ValueError, RecursionError):
            failures, end = failures + 1, start.end()
        start = _BRACKET.search(text, end)
    return values


def _repaired(answer: str) -> Any:
    start = _BRACKET.search(answer)
    if not start:
        return None
    answer = answer[start.start() :]
    try:
        data = json_repair.loads(answer, skip_json_loads=True)
        written = json.dumps(data, ensure_ascii=False)
    except Exception:  # noqa: BLE001  hostile text in a third-party parser: any error means "not JSON"
        return None
    swallowed = any(_BRACKET.search(text) for text in re.findall(r'"[^"]*"', written))
    if isinstance(data, list | dict) and data and not swallowed and _numbers(written) == _numbers(answer):
        return data
    return None


def _numbers(text: str) -> list[float]:
    return [float(number) for number in _NUMBER.findall(text)]


def finite(values: Any, count: int) -> list[float] | None:
    """Return `count` finite floats, or None."""
    if not isinstance(values, list) or len(values) != count:
        return None
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return None
    try:
        floats = [float(value) for value in values]
    except OverflowError:
        return None
    return floats if all(map(math.isfinite, floats)) else None


def _instances(data: Any, image_size: tuple[int, int], form: Form) -> tuple[list[InstancePrompt], ResponseError | None]:
    items = [data] if isinstance(data, dict) else data
    if not isinstance(items, list):
        return [], ResponseError.WRONG_SCHEMA
    boxes = [_boxes(item, form.box) for item in items]
    if any(has_wrong_scale(finite(raw, 4) or (), limits(form.scale)) for several in boxes for raw in several):
        return [], ResponseError.WRONG_SCALE
    error: ResponseError | None = None
    instances = []
    for item, several in zip(items, boxes, strict=True):
        for raw in several:
            instance, problem = _instance(item, raw, image_size, form, alone=len(several) == 1)
            error = error or problem
            if instance:
                instances.append(instance)
    return instances, error


def _boxes(item: Any, name: str) -> list[Any]:
    """Return the different boxes under an item's keys of a box, [None] for none."""
    said = [value for key, value in item.items() if name in key] if isinstance(item, dict) else []
    boxes = {tuple(box): box for value in said if (box := finite(value, 4))}
    others = [value for value in said if isinstance(value, list) and not finite(value, 4)]
    return [*boxes.values(), *others] or said[:1] or [None]


def _names_box(value: Any, name: str) -> bool:
    """Return whether an object inside a value has a key of a box."""
    inner = [value]
    while inner:
        value = inner.pop()
        if isinstance(value, dict):
            if any(name in key for key in value):
                return True
            inner += value.values()
        elif isinstance(value, list):
            inner += value
    return False


def _instance(
    item: Any, raw: Any, image_size: tuple[int, int], form: Form, alone: bool
) -> tuple[InstancePrompt | None, ResponseError | None]:
    """Return the instance of one box of an item, and the error.

    Args:
        item: any JSON value.
        raw: see `pixel_box`.
        image_size: (width, height) of the original image in pixels.
        form: JSON form of the dialect.
        alone: whether the item has no other box. Points beside several boxes belong to none of them.
    """
    box, problem = pixel_box(raw, image_size, form.scale)
    if box is None:
        return None, problem
    if not alone:
        return InstancePrompt(box, ()), ResponseError.WRONG_SCHEMA
    points, clean = _points(form.points(item), image_size, form)
    clean = clean and not any(_names_box(value, form.box) for value in item.values())  # boxes inside would be lost
    outside = sum(not inside(point, box) for point in points)
    return InstancePrompt(box, points, outside), None if clean else ResponseError.WRONG_SCHEMA


def limits(scale: tuple[float, float]) -> tuple[float, float]:
    """Return the largest x and y that are read as rounding of the edge.

    Args:
        scale: see `Form`.
    """
    x, y = (max(_TOLERANCE * side, side + _PATCH) for side in scale)
    return x, y


def has_wrong_scale(numbers: Sequence[float], largest: tuple[float, float]) -> bool:
    """Return whether coordinates are shares of the image, or pixels of a larger image.

    Args:
        numbers: x, y, ... in the model's coordinates.
        largest: the largest x and y that are no sign of a larger image, see `limits`.
    """
    shares = all(0 <= number <= 1 for number in numbers) and any(number % 1 for number in numbers)
    return shares or any(number > largest[i % 2] for i, number in enumerate(numbers))


def pixel_box(
    raw: Any, image_size: tuple[int, int], scale: tuple[float, float]
) -> tuple[Box | None, ResponseError | None]:
    """Return a box in pixels, ordered and cut to the image, or the error of the box.

    Args:
        raw: the box in the model's coordinates, [x1, y1, x2, y2], or any other JSON value.
        image_size: (width, height) of the original image in pixels.
        scale: see `Form`.
    """
    values = finite(raw, 4)
    if values is None:
        return None, ResponseError.WRONG_SCHEMA
    width, height = image_size
    x_unit, y_unit = width / scale[0], height / scale[1]
    x1, x2 = sorted((values[0] * x_unit, values[2] * x_unit))
    y1, y2 = sorted((values[1] * y_unit, values[3] * y_unit))
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        return None, ResponseError.BOX_OUT_OF_IMAGE
    box: Box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if box[2] <= box[0] or box[3] <= box[1]:
        return None, ResponseError.EMPTY_BOX
    return box, None


def pixel_points(raw: Any, image_size: tuple[int, int], scale: tuple[float, float]) -> tuple[list[Point], bool]:
    """Return the readable points in pixels, and whether all points are readable.

    Args:
        raw: points in the model's coordinates, [[x, y], ...], or any other JSON value.
        image_size: (width, height) of the original image in pixels.
        scale: see `Form`.
    """
    x_unit, y_unit = image_size[0] / scale[0], image_size[1] / scale[1]
    pairs = [finite(pair, 2) for pair in raw[:_MAX_POINTS]] if isinstance(raw, list) else [None]
    points = [(pair[0] * x_unit, pair[1] * y_unit) for pair in pairs if pair]
    points = [point for point in points if all(map(math.isfinite, point))]
    return points, len(points) == len(pairs)


def inside(point: Point, box: Box) -> bool:
    """Return whether a point lies in a box or on its edge."""
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def _points(raw: Any, image_size: tuple[int, int], form: Form) -> tuple[tuple[Point, ...], bool]:
    """Return the readable points in pixels, and whether they have the wanted form."""
    if raw is None:
        return (), False
    points, clean = pixel_points(raw, image_size, form.scale)
    return tuple(points[: form.wanted]), clean and len(points) == form.wanted
