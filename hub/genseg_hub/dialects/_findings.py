"""Find boxes and points in the JSON of untuned models.

Keys and wrappers of the JSON may have any name. Some forms are errors, because a guess would give a wrong box without a
word: `box_2d` is the key of Gemini and Gemma, which put y first; `bbox_3d` has nine numbers; and a list of two, three
or eight numbers may mean anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from genseg_hub.dialects._loose_json import Object
from genseg_hub.dialects._parsing import finite
from genseg_hub.schema import ResponseError

_MAX_DEPTH = 20
_BOXES = {"bbox_2d", "bboxes_2d", "bbox", "bboxes", "box", "boxes", "bounding_box", "bounding_boxes"}
_POINTS = {"point_2d", "points_2d", "point", "points"}
# Keys under which a bare list of numbers is a box or a point; "" is the missing key of {[1, 2, 3, 4]}.
_HOLDERS = {
    "", "answer", "answers", "coordinate", "coordinates", "detections", "instances", "location", "locations", "objects",
    "output", "position", "predictions", "regions", "result", "results", "targets",
}  # fmt: skip
_FOREIGN = {"box_2d", "boxes_2d", "box_3d", "boxes_3d", "bbox_3d", "bboxes_3d"}
_VERDICTS = {"found", "detected", "exists", "present", "visible", "target_found", "object_found"}


@dataclass(frozen=True)
class Found:
    """One instance as the model says it, in the model's coordinates.

    Attributes:
        box: four finite numbers; None if there are points only.
        points: a list of points or any other JSON value; None if there are none.
    """

    box: list[float] | None
    points: Any = None


class Nothing(Enum):
    """Ways to say that there is no instance."""

    EMPTY_LIST = auto()
    IN_WORDS = auto()  # a null, an empty box, a box of zeros, or {"found": false}


Finding = Found | Nothing | ResponseError


def findings(data: Any) -> list[Finding]:
    """Return the boxes and points of a JSON value, in its order; [] for none.

    Args:
        data: a value of `_loose_json.read`.
    """
    return list(_of_value(data, bare=True, depth=0))


def _of_value(data: Any, bare: bool, depth: int) -> Iterator[Finding]:
    """Yield the findings of a value.

    Args:
        data: the value.
        bare: whether lists of numbers are boxes.
        depth: depth of the value in its outermost value.
    """
    if depth > _MAX_DEPTH:
        yield ResponseError.WRONG_SCHEMA
    elif isinstance(data, Object):
        for group in data.groups():
            yield from _of_object({_name(key): value for key, value in group.items()}, depth)
    elif isinstance(data, list) and bare:
        yield from _of_list(data, depth)
    elif isinstance(data, list) and any(isinstance(item, Object) for item in data):
        yield from _of_list([item for item in data if isinstance(item, Object)], depth)


def _of_list(items: list[Any], depth: int) -> Iterator[Finding]:
    if not items:
        yield Nothing.EMPTY_LIST
    elif _is_zeros(items):
        yield Nothing.IN_WORDS
    elif any(_is_number(item) for item in items):
        box = finite(items, 4)
        yield Found(box) if box else ResponseError.WRONG_SCHEMA
    elif any(isinstance(item, list | Object) for item in items):
        for item in items:
            found = list(_of_value(item, bare=True, depth=depth + 1))
            yield from found or [ResponseError.WRONG_SCHEMA]  # a loss is an error


def _of_object(pairs: dict[str, Any], depth: int) -> Iterator[Finding]:
    box = next((key for key in pairs if key in _BOXES or "bbox_2d" in key), None)
    points = next((pairs[key] for key in pairs if key in _POINTS), None)
    if isinstance(points, list) and points and all(_is_number(value) for value in points):
        points = [points]
    denied = any(pairs.get(key) is False for key in _VERDICTS - {"visible"})  # an invisible object may be hidden
    if pairs.keys() & _FOREIGN or (denied and box is not None and not _says_nothing(pairs[box])):
        yield ResponseError.WRONG_SCHEMA
    elif box is not None and not (_says_nothing(pairs[box]) and _has_points(points)):
        yield from _of_box(pairs[box], points, depth)
    elif points:
        yield Found(None, points)
    else:
        for key, value in pairs.items():
            yield from _of_pair(key, value, depth)


def _of_box(value: Any, points: Any, depth: int) -> Iterator[Finding]:
    """Yield the findings of the value of a box's key, beside the points of its object."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if _says_nothing(value):
        yield Nothing.IN_WORDS
    elif box := finite(value, 4):
        yield Found(box, points)
    elif isinstance(value, list) and all(isinstance(item, list | Object) for item in value):
        yield from _of_list(value, depth)  # points beside several boxes belong to none of them
    else:
        yield ResponseError.WRONG_SCHEMA


def _of_pair(key: str, value: Any, depth: int) -> Iterator[Finding]:
    """Yield the findings of a key that is no key of a box or a point."""
    if (key in _HOLDERS and value is None) or (key in _VERDICTS and value is False):
        yield Nothing.IN_WORDS
    elif key in _HOLDERS and finite(value, 2):
        yield Found(None, [value])
    else:
        yield from _of_value(value, key in _HOLDERS, depth + 1)


def _name(key: str) -> str:
    return key.strip().lower().replace(" ", "_").replace("-", "_")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_zeros(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(_is_number(number) and not number for number in value)


def _has_points(points: Any) -> bool:
    """Return whether a list has a point other than (0, 0)."""
    return isinstance(points, list) and any(any(finite(point, 2) or ()) for point in points)


def _says_nothing(value: Any) -> bool:
    return value is None or value == [] or _is_zeros(value)
