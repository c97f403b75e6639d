"""Predictions at rest: one JSON line per expression, of this project's making or of somebody else's.

{"example_id": "7", "image_size": [640, 480], "answer": "...", "reasoning": "...", "error": null, "instances": [
    {"box": [x1, y1, x2, y2], "points": [[x, y], [x, y]], "negative_points": [], "score": 0.9,
     "mask": {"size": [h, w], "counts": "..."}}]}
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
)

_MAX_MASKS = 1_000_000_000  # pixels of all masks of one expression: a byte each in memory


def to_line(example: ReferringExample, result: Prediction | Failure) -> dict[str, Any]:
    """One line: `example_id`, `image_id`, `expression`, and `failure` or what `Prediction.to_dict` gives with the raw
    `answer`."""
    line: dict[str, Any] = {
        "example_id": example.example_id,
        "image_id": example.image_id,
        "expression": example.expression,
    }
    if isinstance(result, Failure):
        return line | {"failure": result.message}
    return line | {"answer": result.response.text} | result.to_dict()


def from_line(line: Mapping[str, Any]) -> Prediction | Failure:
    """What `to_line` was given.

    Of an instance only its `mask` must be there: a box that is not said is that of the mask (see `has_boxes`), a score
    is 1.

    Raises:
        PredictionError: for anything else, numbers that are not finite included.
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
        response = Response(str(line.get("answer", "")), str(line.get("reasoning", "")), tuple(prompts), error)
        if any(mask.shape != masks[0].shape for mask in masks):
            raise ValueError("its masks have several sizes")
        size = masks[0].shape[::-1] if masks else map(_number, line.get("image_size") or (0, 0))
        across, down = map(int, size)
        return Prediction(response, tuple(masks), tuple(scores), (across, down))
    except Exception as error:  # files of strangers are malformed in any way they like
        raise PredictionError(
            f"the prediction of {line.get('example_id')!r} cannot be read: {_reason(error)}"
        ) from error


def _prompt(instance: Mapping[str, Any], rle: dict[str, Any]) -> InstancePrompt:
    x, y, w, h = coco_mask.toBbox(rle).tolist()
    x1, y1, x2, y2 = map(_number, instance.get("box") or (x, y, x + w, y + h))
    if x1 > x2 or y1 > y2:
        raise ValueError(f"a box is {[x1, y1, x2, y2]}, not x1, y1, x2, y2 with x1 <= x2 and y1 <= y2")
    points, negative = _points(instance.get("points")), _points(instance.get("negative_points"))
    outside = sum(not (x1 <= x <= x2 and y1 <= y <= y2) for x, y in points)
    return InstancePrompt((x1, y1, x2, y2), points, outside, negative)


def _points(pairs: Sequence[Any] | None) -> tuple[Point, ...]:
    return tuple((_number(x), _number(y)) for x, y in pairs or ())


def _number(value: Any) -> float:
    number = float(value)
    if not abs(number) <= MAX_PIXELS:  # NaN is not, either
        raise ValueError(f"{value!r} is no number of pixels and no score")
    return number


def has_boxes(line: Mapping[str, Any]) -> bool:
    """Whether every instance of a readable line has a box of its own, and not only that of its mask."""
    return all(instance.get("box") for instance in line.get("instances") or ())


def read(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of predictions made elsewhere: JSON lines as above, or COCO's results.

    Of COCO's results (`.json`, a list of {"image_id", "segmentation", "score"}) each entry is an instance of the
    expression whose `example_id` it names, or else whose id it has for its `image_id`. An expression without an entry
    has no line.

    Raises:
        PredictionError: for a file that is neither, naming the line or the entry.
    """
    if file.suffix.lower() == ".json":
        yield from _coco_results(file)
        return
    seen: dict[str, int] = {}
    for _, number, line in lines(file):
        # A run asks again what failed, so that its own lines may say the same expression twice.
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
    """(byte where it begins, its number from 1, the line) of each line of JSON lines; blank ones are skipped.

    Raises:
        PredictionError: a line that is no JSON object in UTF-8 with an `example_id`, or that has a number which is not
            finite.
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
    """Where in a file of JSON lines the prediction of each expression is; the last one counts. Keeps no masks.

    Raises:
        PredictionError: see `lines`.
    """

    def __init__(self, file: Path):
        self.file = file
        self._places = {line["example_id"]: (place, asked(line)) for place, _, line in lines(file)}

    def find(self, example: ReferringExample) -> dict[str, Any] | None:
        """The line about an example, None where there is none about this very image and expression."""
        place, said = self._places.get(example.example_id, (0, None))
        if said is None or not is_about(said, example.example_id, example.image_id, example.expression):
            return None
        with self.file.open("rb") as stream:
            stream.seek(place)
            return _parse(stream.readline())


def asked(line: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    """(example_id, image_id, expression) that a line of `to_line` is about; of a line made elsewhere the id alone
    counts, and the others are None."""
    said = [line.get(name) if _is_own(line) else None for name in ("image_id", "expression")]
    image_id, expression = (None if value is None else str(value) for value in said)
    return line["example_id"], image_id, expression


def is_about(said: tuple[str, str | None, str | None], example_id: str, image_id: str | None, expression: str) -> bool:
    """Whether what `asked` says is about this example; unknown images of either side are not compared."""
    return all(
        mine is None or its is None or mine == its
        for mine, its in zip(said, (example_id, image_id, expression), strict=True)
    )


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
