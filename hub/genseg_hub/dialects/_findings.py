"""Find boxes and points in the JSON of untuned models.

Keys and wrappers of the JSON may have any name. Some forms are errors, because a guess would give a wrong box without a
word: `box_2d` is the key of Gemini and Gemma, which put y first; `bbox_3d` has nine numbers; a list of two, three or
eight numbers may mean anything; an object may have several different boxes; and a tool call is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from genseg_hub.dialects._loose_json import Object
from genseg_hub.dialects._parsing import finite
from genseg_hub.schema import ResponseError

_MAX_DEPTH = 20
_BOXES = {"bbox_2d", "bboxes_2d", "bbox", "bboxes", "box", "boxes", "bounding_box", "bounding_boxes"}
_NUMBER = re.compile(r"_?\d+$")  # at the end of a key: bbox_2d_1
_POINTS = {"point_2d", "points_2d", "point", "points"}
# Keys under which a bare list of numbers is a box or a point; "" is the missing key of {[1, 2, 3, 4]}.
_HOLDERS = {
    "", "answer", "answers", "coordinate", "coordinates", "detections", "instances", "location", "locations", "objects",
    "output", "position", "predictions", "regions", "result", "results", "targets",
}  # fmt: skip
_FOREIGN = {"box_2d", "boxes_2d", "box_3d", "boxes_3d", "bbox_3d", "bboxes_3d"}
_TOOL_CALLS = ({"name", "arguments"}, {"name", "parameters"})
_VERDICTS = {
    "found", "detected", "exists", "present", "visible", "target_found", "object_found", "match", "matches", "matched",
    "is_match", "is_target",
}  # fmt: skip


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
    boxes = {key: _unwrapped(value) for key, value in pairs.items() if _is_box(key)}
    filled = {key: value for key, value in boxes.items() if not _says_nothing(value)}
    filled = {key: value for key, value in filled.items() if _is_exact(key)} or filled
    several = list(filled.values())
    numbered = len({_NUMBER.sub("", key) for key in filled}) == 1
    lists = [_as_points(value) for key, value in pairs.items() if key in _POINTS and value not in (None, [])]
    points = lists[0] if lists else None
    unclear = (_differ(several) and not numbered) or (len(lists) > 1 and not several)
    denied = any(_is_no(pairs.get(key)) for key in _VERDICTS - {"visible"})  # an invisible object may be hidden
    called = any(pairs.keys() >= keys for keys in _TOOL_CALLS) and not (several or lists)
    if pairs.keys() & _FOREIGN or called or unclear or (denied and several):
        yield ResponseError.WRONG_SCHEMA
    elif several or (boxes and not _has_points(points)):
        shared = points if len(several) < 2 else None  # points beside several boxes belong to none of them
        told = several if numbered else several[:1]
        yield from _whole([found for box in told or [None] for found in _of_box(box, shared, depth)], pairs, depth)
    elif points:
        yield from _whole([Found(None, points)], pairs, depth)
    else:
        for key, value in pairs.items():
            yield from _of_pair(key, value, depth)


def _whole(own: list[Finding], pairs: dict[str, Any], depth: int) -> list[Finding]:
    """Return the findings of an object's own keys, or an error.

    Boxes under its other keys would be lost.
    """
    boxes = {tuple(found.box) for found in own if isinstance(found, Found) and found.box}
    for key, value in pairs.items():
        if not _is_box(key) and key not in _POINTS:
            for found in _of_value(value, key in _HOLDERS, depth + 1):
                if isinstance(found, Found) and (tuple(found.box) not in boxes if found.box else not boxes):
                    return [ResponseError.WRONG_SCHEMA]
    return own


def _of_box(value: Any, points: Any, depth: int) -> Iterator[Finding]:
    """Yield the findings of the value of a box's key, beside the points of its object."""
    if _says_nothing(value):
        yield Nothing.IN_WORDS
    elif box := finite(value, 4):
        yield Found(box, points)
    elif isinstance(value, list) and all(isinstance(item, list | Object) for item in value):
        yield from _of_list(value, depth)
    else:
        yield ResponseError.WRONG_SCHEMA


def _of_pair(key: str, value: Any, depth: int) -> Iterator[Finding]:
    """Yield the findings of a key that is no key of a box or a point."""
    if (key in _HOLDERS and value is None) or (key in _VERDICTS and _is_no(value)):
        yield Nothing.IN_WORDS
    elif key in _HOLDERS and finite(value, 2):
        yield Found(None, [value])
    else:
        yield from _of_value(value, key in _HOLDERS, depth + 1)


def _name(key: str) -> str:
    return key.strip().lower().replace(" ", "_").replace("-", "_")


def _is_box(key: str) -> bool:
    return "bbox_2d" in key or _is_exact(key)


def _is_exact(key: str) -> bool:
    """Return whether a key is the name of a box, with or without a number."""
    return key in _BOXES or _NUMBER.sub("", key) in _BOXES


def _unwrapped(value: Any) -> Any:
    """Return the only list of a list."""
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) else value


def _as_points(value: Any) -> Any:
    """Return a list of points; a single point becomes a list."""
    return [value] if isinstance(value, list) and all(_is_number(number) for number in value) else value


def _differ(values: list[Any]) -> bool:
    """Return whether several values are not one and the same box."""
    boxes = [finite(value, 4) for value in values]
    return len(boxes) > 1 and (None in boxes or any(box != boxes[0] for box in boxes))


def _is_no(value: Any) -> bool:
    return value is False or (isinstance(value, str) and value.strip().lower() in ("false", "no"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_zeros(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(_is_number(number) and not number for number in value)


def _has_points(points: Any) -> bool:
    """Return whether a list has a point other than (0, 0)."""
    return isinstance(points, list) and any(any(finite(point, 2) or ()) for point in points)


def _says_nothing(value: Any) -> bool:
    return value is None or value == [] or _is_zeros(value)
