"""Stored predictions: one JSON line per expression, from this project or from another system.

{"example_id": "7", "image_size": [640, 480], "dialect": "qwen3_vl", "answer": "...", "reasoning": "...", "error": null,
 "no_target_in_words": false, "repeated": 0, "instances": [
    {"box": [x1, y1, x2, y2], "points": [[x, y], [x, y]], "negative_points": [], "score": 0.9,
     "mask": {"size": [h, w], "counts": "..."}}]}

The `box` of an instance that has points only is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from genseg_hub.errors import PredictionError
from genseg_hub.images import MAX_PIXELS
from genseg_hub.schema import (
    Failure,
    InstancePrompt,
    Point,
    Prediction,
    ReferringExample,
    Response,
    ResponseError,
    decode_mask,
    normalize_expression,
)

_MAX_MASKS = 1_000_000_000  # pixels of all masks of one expression, one byte each in memory


def to_line(example: ReferringExample, result: Prediction | Failure) -> dict[str, Any]:
    """Return the line of one result.

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


def from_line(line: Mapping[str, Any]) -> Prediction | Failure:
    """Return the result of a line of `to_line`, or of another system.

    An instance must have a `mask`. A missing box becomes the mask's tight box (see `has_boxes`), unless it is null
    beside points. A missing score becomes 1.

    Args:
        line: parsed JSON.

    Raises:
        PredictionError: the line has another form, or a number that is not finite.
    """
    try:
        if "failure" in line:
            return Failure(str(line["failure"]), RuntimeError(line["failure"]))
        masks, prompts, scores, pixels = [], [], [], 0
        for instance in line["instances"]:
            if not isinstance(instance["mask"], dict):
                raise ValueError('a mask is no COCO RLE, {"size": [h, w], "counts": "..."}')
            height, width = map(int, instance["mask"]["size"])
            rle = {"size": [height, width], "counts": instance["mask"]["counts"]}
            pixels += height * width
            if min(height, width) < 1 or height * width > MAX_PIXELS or pixels > _MAX_MASKS:
                raise ValueError(f"a mask is {width} x {height}, after {pixels - height * width:,} pixels of others")
            masks.append(decode_mask(rle))
            prompts.append(_prompt(instance, rle))
            scores.append(_number(instance.get("score", 1.0)))
        error = ResponseError(line["error"]) if line.get("error") else None
        response = Response(
            str(line.get("answer", "")),
            str(line.get("reasoning", "")),
            tuple(prompts),
            error,
            no_target_in_words=bool(line.get("no_target_in_words")) and not prompts and error is None,
            repeated=int(_number(line.get("repeated") or 0)),
        )
        if any(mask.shape != masks[0].shape for mask in masks):
            raise ValueError("its masks have several sizes")
        size = masks[0].shape[::-1] if masks else map(_number, line.get("image_size") or (0, 0))
        across, down = map(int, size)
        return Prediction(response, tuple(masks), tuple(scores), (across, down), str(line.get("dialect") or ""))
    except Exception as error:  # a stranger's file can raise errors of any type
        raise PredictionError(
            f"the prediction of {line.get('example_id')!r} cannot be read: {_reason(error)}"
        ) from error


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
    if not abs(number) <= MAX_PIXELS:  # False for NaN, too
        raise ValueError(f"{value!r} is no number of pixels and no score")
    return number


def has_boxes(line: Mapping[str, Any]) -> bool:
    """Return whether every instance of a line has its own box, so that no box comes from a mask."""
    return all(instance.get("box") for instance in line.get("instances") or ())


def read(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of another system's file of predictions: JSON lines as above, or COCO's results.

    COCO's results are a `.json` file with a list of {"image_id", "segmentation", "score"}. Each entry is an instance of
    one expression: its `example_id`, or else its `image_id`, is the expression's id. An expression without an entry has
    no line.

    Args:
        file: of JSON lines, or of COCO's results.

    Raises:
        PredictionError: the file is neither; the message names the line or the entry.
    """
    if file.suffix.lower() == ".json":
        yield from _coco_results(file)
        return
    seen: dict[str, int] = {}
    for _, number, line in lines(file):
        # A run asks again after a failure, so its own lines may have the same expression twice.
        before = seen.setdefault(line["example_id"], number)
        if before != number and not _is_own(line):
            raise PredictionError(
                f"line {number} of {file} is a second prediction of {line['example_id']!r}, after line {before}; "
                "put all instances of an expression into one line"
            )
        _check(line, f"line {number} of {file}")
        yield line


def _coco_results(file: Path) -> Iterator[dict[str, Any]]:
    instances: dict[str, list[dict[str, Any]]] = {}
    where = str(file)
    try:
        entries = _loads(file.read_bytes())
        if not isinstance(entries, list):
            raise TypeError("it is no list")
        for number, entry in enumerate(entries, 1):
            where = f"{file} (entry {number})"
            example_id = _id(entry["example_id"] if "example_id" in entry else entry["image_id"])
            found = {"mask": entry["segmentation"], "score": entry.get("score", 1.0)}
            instances.setdefault(example_id, []).append(found)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PredictionError(f"{where} is not a list of COCO results with segmentations ({_reason(error)})") from error
    for example_id, its in instances.items():
        line = {"example_id": example_id, "instances": its}
        _check(line, str(file))
        yield line


def _check(line: dict[str, Any], where: str) -> None:
    try:
        from_line(line)
    except PredictionError as error:
        raise PredictionError(f"{where}: {error}") from error


def lines(file: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield the first byte, the number from 1 and the content of each JSON line; skip blank lines.

    Args:
        file: of JSON lines.

    Raises:
        PredictionError: a line is no JSON object in UTF-8 with an `example_id`, or has a number that is not finite.
    """
    with file.open("rb") as stream:
        place = 0
        for number, raw in enumerate(stream, 1):
            if raw.strip():
                try:
                    line = _parse(raw)
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise PredictionError(
                        f"line {number} of {file} is not a prediction with an example_id ({_reason(error)})"
                    ) from error
                yield place, number, line
            place += len(raw)


class Index:
    """Places of the predictions in a file of JSON lines, without their masks; the last line of an expression counts.

    Args:
        file: of JSON lines.

    Raises:
        PredictionError: as `lines`.
    """

    def __init__(self, file: Path):
        self.file = file
        self._places = {line["example_id"]: (place, asked(line)) for place, _, line in lines(file)}

    def find(self, example: ReferringExample) -> dict[str, Any] | None:
        """Return the line about an example; None if no line is about its id, image and expression."""
        place, said = self._places.get(example.example_id, (0, None))
        if said is None or not is_about(said, example.example_id, example.image_id, example.expression):
            return None
        with self.file.open("rb") as stream:
            stream.seek(place)
            return _parse(stream.readline())


def asked(line: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    """Return the example_id, the image_id and the normalized expression that a line is about.

    Only a line of `to_line` has the last two; for a line of another system they are None.

    Args:
        line: with an `example_id`.
    """
    said = [line.get(name) if _is_own(line) else None for name in ("image_id", "expression")]
    image_id, expression = (None if value is None else str(value) for value in said)
    return line["example_id"], image_id, None if expression is None else normalize_expression(expression)


def is_about(said: tuple[str, str | None, str | None], example_id: str, image_id: str | None, expression: str) -> bool:
    """Return whether a line is about an example; a None on either side is not compared.

    Args:
        said: `asked` of the line.
        example_id: of the example.
        image_id: of the example, None for unknown.
        expression: of the example, normalized or not.
    """
    its = (example_id, image_id, normalize_expression(expression))
    return all(a is None or b is None or a == b for a, b in zip(said, its, strict=True))


def _is_own(line: Mapping[str, Any]) -> bool:
    return "answer" in line or "failure" in line


def _parse(raw: bytes) -> dict[str, Any]:
    line = _loads(raw)
    line["example_id"] = _id(line["example_id"])
    return line


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def _loads(raw: bytes) -> Any:
    return json.loads(raw.decode("utf-8-sig"), parse_float=_finite, parse_constant=_finite)


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:20]} is no finite number")
    return float(text)


def _id(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():  # as pandas writes ids
        value = int(value)
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise TypeError(f"an id is a string or a number, not {value!r:.40}")
    return str(value)
