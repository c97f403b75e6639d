"""Stored predictions of any system: one line of strict JSON per expression.

{"example_id": "7", "image_size": [640, 480], "dialect": "qwen3_vl", "answer": "...", "reasoning": "...", "error": null,
 "no_target_in_words": false, "repaired": false, "repeated": 0, "cut": false, "tokens": 61,
 "cost": {"seconds": 0.4, "memory_bytes": 1900000000, "device": "cpu"}, "instances": [
    {"box": [x1, y1, x2, y2], "points": [[x, y], [x, y]], "negative_points": [], "score": 0.9,
     "mask": {"size": [h, w], "counts": "..."}}]}

A mask of another system may also be polygons, or an RLE that is not compressed (see `masks`). The `box` of an instance
that has points only is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pycocotools import mask as coco_mask

from genseg_hub.answers import (
    MAX_CHARACTERS,
    MAX_MASK_PIXELS,
    MAX_MESSAGE_CHARACTERS,
    MAX_REASONING_CHARACTERS,
    bounded,
    storable,
)
from genseg_hub.errors import PredictionError
from genseg_hub.images import MAX_PIXELS
from genseg_hub.masks import normal_rle, to_rle
from genseg_hub.schema import (
    Cost,
    Failure,
    InstancePrompt,
    Point,
    Prediction,
    ReferringExample,
    Response,
    ResponseError,
    Rle,
    decode_mask,
    normalize_expression,
)

_FARTHEST = 2 * MAX_PIXELS  # a point may lie outside the image, see `answers`


def to_line(example: ReferringExample, result: Prediction | Failure) -> dict[str, Any]:
    """Return the line of one result, from which `from_line` makes the same result.

    The line has `example_id`, `image_id` and the normalized `expression`. A Failure adds `failure`; a Prediction adds
    the raw `answer` and the values of `Prediction.to_dict`.

    Args:
        example: the question.
        result: its prediction, or the reason why there is none.
    """
    line: dict[str, Any] = {
        "example_id": example.example_id,
        "image_id": example.image_id,
        "expression": normalize_expression(example.expression),
    }
    if isinstance(result, Failure):
        return line | {"failure": result.message}
    return line | {"answer": result.response.text} | result.to_dict()


def to_json(line: Mapping[str, Any]) -> str:
    """Return a line as strict JSON, without the line break.

    Raises:
        ValueError: a number is not finite, so that no reader could read the file.
    """
    return json.dumps(line, allow_nan=False)


def from_line(line: Mapping[str, Any]) -> Prediction | Failure:
    """Return the result of a line of `to_line`, or of another system.

    An instance must have a `mask`. A missing box becomes the mask's tight box (see `has_boxes`), unless it is null
    beside points. A missing score becomes 1. Texts are bounded as `answers` bounds them.

    Args:
        line: parsed JSON.

    Raises:
        PredictionError: the line has another form, or a number that is not finite.
    """
    result, masks = without_masks(line)
    if isinstance(result, Failure):
        return result
    return replace(result, masks=tuple(decode_mask(rle) for rle in masks))


def without_masks(line: Mapping[str, Any]) -> tuple[Prediction | Failure, list[Rle]]:
    """Return the result of a line before its masks are decoded, and the masks.

    See `from_line`.
    """
    try:
        if "failure" in line:
            message = storable(str(line["failure"]), MAX_MESSAGE_CHARACTERS)
            return Failure(message, RuntimeError(message)), []
        masks: list[Rle] = []
        prompts, scores, pixels = [], [], 0
        for instance in line["instances"]:
            rle = _mask(instance["mask"], line.get("image_size"))
            height, width = rle["size"]
            pixels += height * width
            if pixels > MAX_MASK_PIXELS:
                raise ValueError(
                    f"a mask is {width} x {height}, after {pixels - height * width:,} pixels of the other masks"
                )
            masks.append(rle)
            prompts.append(_prompt(instance, rle))
            scores.append(_number(instance.get("score", 1.0)))
        if any(rle["size"] != masks[0]["size"] for rle in masks):
            raise ValueError("its masks have several sizes")
        size = masks[0]["size"][::-1] if masks else map(_number, line.get("image_size") or (0, 0))
        across, down = map(int, size)
        dialect = storable(str(line.get("dialect") or ""), MAX_MESSAGE_CHARACTERS)
        response, cost = _response(line, prompts), _cost(line.get("cost"))
        return Prediction(response, (), tuple(scores), (across, down), dialect, cost), masks
    except Exception as error:  # a stranger's file can raise errors of any type
        raise PredictionError(
            f"the prediction of {line.get('example_id')!r} cannot be read: {reason(error)}"
        ) from error


def _response(line: Mapping[str, Any], prompts: Sequence[InstancePrompt]) -> Response:
    answer, answer_cut = bounded(str(line.get("answer") or ""), MAX_CHARACTERS)
    reasoning, reasoning_cut = bounded(str(line.get("reasoning") or ""), MAX_REASONING_CHARACTERS)
    error = ResponseError(line["error"]) if line.get("error") else None
    return Response(
        answer,
        reasoning,
        tuple(prompts),
        error,
        repaired=bool(line.get("repaired")),
        no_target_in_words=bool(line.get("no_target_in_words")) and not prompts and error is None,
        repeated=int(_number(line.get("repeated") or 0)),
        cut=bool(line.get("cut")) or answer_cut or reasoning_cut,
        tokens=None if line.get("tokens") is None else int(_number(line["tokens"])),
    )


def _cost(cost: Mapping[str, Any] | None) -> Cost | None:
    if cost is None:
        return None
    device = storable(str(cost["device"]), MAX_MESSAGE_CHARACTERS)
    return Cost(_finite(cost["seconds"]), int(_finite(cost["memory_bytes"])), device)


def _mask(mask: Any, image_size: Sequence[Any] | None) -> Rle:
    """Return a mask of an instance.

    The mask is an RLE of any form, or polygons of a line with an `image_size`.
    """
    if not isinstance(mask, list):
        return normal_rle(mask)
    if not image_size:
        raise ValueError('a mask is no COCO RLE, and polygons need the "image_size" of their line, [width, height]')
    width, height = map(int, map(_number, image_size))
    return to_rle(mask, height, width)


def _prompt(instance: Mapping[str, Any], rle: dict[str, Any]) -> InstancePrompt:
    points, negative = _points(instance.get("points")), _points(instance.get("negative_points"))
    if points and instance.get("box", ...) is None:
        return InstancePrompt(None, points, negative_points=negative)
    x, y, w, h = coco_mask.toBbox(rle).tolist()
    x1, y1, x2, y2 = map(_number, instance.get("box") or (x, y, x + w, y + h))
    if x1 > x2 or y1 > y2:
        raise ValueError(f"a box is {[x1, y1, x2, y2]}, not x1, y1, x2, y2 with x1 <= x2 and y1 <= y2")
    outside = sum(not (x1 <= x <= x2 and y1 <= y <= y2) for x, y in points)
    return InstancePrompt((x1, y1, x2, y2), points, outside, negative)


def _points(pairs: Sequence[Any] | None) -> tuple[Point, ...]:
    return tuple((_number(x), _number(y)) for x, y in pairs or ())


def _number(value: Any) -> float:
    number = float(value)
    if not abs(number) <= _FARTHEST:  # False for NaN, too
        raise ValueError(f"{value!r} is no number of pixels and no score")
    return number


def _finite(value: Any) -> float:
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{value!r} is no number of seconds or bytes")
    return number


def has_boxes(line: Mapping[str, Any]) -> bool:
    """Return whether every instance of a line has its own box, not the mask's."""
    return all(instance.get("box") for instance in line.get("instances") or ())


def asked(line: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    """Return the example_id, the image_id and the expression of a line.

    The expression is normalized. In a line of another system the image_id and the expression are None.

    Args:
        line: line with an `example_id`.
    """
    said = [line.get(name) if is_own(line) else None for name in ("image_id", "expression")]
    image_id, expression = (None if value is None else str(value) for value in said)
    return line["example_id"], image_id, None if expression is None else normalize_expression(expression)


def is_about(said: tuple[str, str | None, str | None], example_id: str, image_id: str | None, expression: str) -> bool:
    """Return whether a line is about an example.

    A None on either side is not compared.

    Args:
        said: `asked` of the line.
        example_id: id of the example.
        image_id: id of the example, None for unknown.
        expression: expression of the example, normalized or not.
    """
    its = (example_id, image_id, normalize_expression(expression))
    return all(a is None or b is None or a == b for a, b in zip(said, its, strict=True))


def is_own(line: Mapping[str, Any]) -> bool:
    """Return whether `to_line` made a line."""
    return "answer" in line or "failure" in line


def reason(error: Exception) -> str:
    """Return a short message for a line that cannot be read."""
    return f"{type(error).__name__}: {error}"[:200]
