"""Reading what a model says. Model text is hostile input: nothing here raises, whatever it is given.

Every step either understands or names the ResponseError that explains why not. What was understood
is kept beside an error: a truncated list still gives its complete instances.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import json_repair

from genseg_hub.schema import Box, InstancePrompt, Point, Response, ResponseError

MAX_CHARACTERS = 50_000
MAX_INSTANCES = 100
_MAX_REPAIR_CHARACTERS = 8_000

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_FENCE = re.compile(r"```(?:json)?(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)


def parse_tagged(
    text: str | bytes,
    image_size: tuple[int, int],
    scale: tuple[float, float],
    truncated: bool,
    strict: bool,
) -> Response:
    """Read `<think>…</think><answer>JSON</answer>` into a Response.

    Args:
        text: what the model generated.
        image_size: (width, height) of the original image in pixels.
        scale: (x, y) value that stands for the right and lower edge of the image.
        truncated: whether generation stopped at the token limit.
        strict: require the answer tag and exactly two points; otherwise any JSON in the text
            counts, and points may be missing.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    text = text[:MAX_CHARACTERS]
    reasoning, answer, closed = _split(text)
    cut = ResponseError.TRUNCATED if truncated and not closed else None
    if answer is None:
        if strict:
            return Response(text, reasoning, error=cut or ResponseError.NO_ANSWER_TAG)
        answer = _outside_think(text)
    data, repaired = _load(_unfenced(answer))
    if data is None:
        return Response(text, reasoning, error=cut or ResponseError.INVALID_JSON)
    instances, error = _instances(data, image_size, scale, strict)
    return Response(text, reasoning, instances, cut or error, repaired)


def _split(text: str) -> tuple[str, str | None, bool]:
    """(reasoning, answer or None, whether the answer tag is closed)."""
    head, opened, tail = text.rpartition("<answer>")
    before = head if opened else text
    _, _, thought = before.partition("<think>")
    reasoning = thought.partition("</think>")[0].strip()
    if not opened:
        return reasoning, None, False
    answer, closing, _ = tail.partition("</answer>")
    return reasoning, answer, bool(closing)


def _outside_think(text: str) -> str:
    return text.rpartition("</think>")[2]


def _unfenced(answer: str) -> str:
    fenced = _FENCE.search(answer)
    return (fenced.group(1) if fenced else answer).strip()


def _load(answer: str) -> tuple[Any, bool]:
    """(JSON value or None, whether it had to be repaired).

    JSON may stand in prose. A repair is accepted only where it is unambiguous: it may add or
    remove punctuation, but the numbers must come out the same, in the same order.
    """
    starts = [i for i in (answer.find("["), answer.find("{")) if i >= 0]
    if not starts:
        return None, False
    answer = answer[min(starts) :]
    try:
        return json.JSONDecoder().raw_decode(answer)[0], False
    except (ValueError, RecursionError):
        pass
    if len(answer) > _MAX_REPAIR_CHARACTERS:
        return None, False
    try:
        data = json_repair.loads(answer, skip_json_loads=True)
        written = json.dumps(data)
    except Exception:  # noqa: BLE001  hostile text in a third-party parser: any failure means "not JSON"
        return None, False
    if isinstance(data, list | dict) and data and _numbers(written) == _numbers(answer):
        return data, True
    return None, False


def _numbers(text: str) -> list[float]:
    return [float(number) for number in _NUMBER.findall(text)]


def _finite(values: Any, count: int) -> list[float] | None:
    """`count` finite floats, or None."""
    if not isinstance(values, list) or len(values) != count:
        return None
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return None
    try:
        floats = [float(value) for value in values]
    except OverflowError:
        return None
    return floats if all(map(math.isfinite, floats)) else None


def _instances(
    data: Any, image_size: tuple[int, int], scale: tuple[float, float], strict: bool
) -> tuple[tuple[InstancePrompt, ...], ResponseError | None]:
    items = [data] if isinstance(data, dict) else data
    if not isinstance(items, list):
        return (), ResponseError.WRONG_SCHEMA
    error = ResponseError.TOO_MANY_INSTANCES if len(items) > MAX_INSTANCES else None
    instances = []
    for item in items[:MAX_INSTANCES]:
        instance, problem = _instance(item, image_size, scale, strict)
        error = error or problem
        if instance:
            instances.append(instance)
    return tuple(instances), error


def _instance(
    item: Any, image_size: tuple[int, int], scale: tuple[float, float], strict: bool
) -> tuple[InstancePrompt | None, ResponseError | None]:
    values = _finite(item.get("bbox_2d"), 4) if isinstance(item, dict) else None
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
    points, clean = _points(item.get("points"), x_unit, y_unit, strict)
    outside = sum(not (box[0] <= x <= box[2] and box[1] <= y <= box[3]) for x, y in points)
    return InstancePrompt(box, points, outside), None if clean else ResponseError.WRONG_SCHEMA


def _points(raw: Any, x_unit: float, y_unit: float, strict: bool) -> tuple[tuple[Point, ...], bool]:
    """(the readable points in pixels, whether all was as asked)."""
    if raw is None:
        return (), not strict
    pairs = [_finite(pair, 2) for pair in raw[:MAX_INSTANCES]] if isinstance(raw, list) else [None]
    points = tuple((pair[0] * x_unit, pair[1] * y_unit) for pair in pairs if pair)
    points = tuple(point for point in points if all(map(math.isfinite, point)))
    return points[:2], len(points) == len(pairs) and (len(points) == 2 or not strict)
