"""Predictions at rest: one JSON line per expression, of this project's making or of somebody else's.

{"example_id": "7", "image_size": [640, 480], "answer": "...", "reasoning": "...", "error": null, "instances": [
    {"box": [x1, y1, x2, y2], "points": [[x, y], [x, y]], "score": 0.9, "mask": {"size": [h, w], "counts": "..."}}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from genseg_hub.images import MAX_PIXELS
from genseg_hub.schema import (
    Failure,
    InstancePrompt,
    Prediction,
    ReferringExample,
    Response,
    ResponseError,
    check_counts,
    decode_mask,
)


class PredictionError(ValueError):
    """A file of predictions that cannot be used; the message says where and why."""


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


def from_line(line: dict[str, Any]) -> Prediction | Failure:
    """What `to_line` was given.

    Of an instance only its `mask` must be there: a box that is not said is that of the mask, a score is 1.

    Raises:
        PredictionError: for anything else.
    """
    try:
        if "failure" in line:
            return Failure(str(line["failure"]), RuntimeError(line["failure"]))
        masks, prompts, scores = [], [], []
        for instance in line["instances"]:
            rle = instance["mask"]
            height, width = map(int, rle["size"])
            if not 0 < height * width <= MAX_PIXELS:
                raise ValueError(f"a mask is {width} x {height}")
            check_counts(rle["counts"])
            mask = decode_mask({"size": list(rle["size"]), "counts": rle["counts"]})
            x, y, w, h = coco_mask.toBbox(rle).tolist()
            box = tuple(map(float, instance.get("box") or (x, y, x + w, y + h)))
            points = tuple((float(x), float(y)) for x, y in instance.get("points") or ())
            prompts.append(InstancePrompt(box, points))  # type: ignore[arg-type]
            masks.append(mask)
            scores.append(float(instance.get("score", 1.0)))
        error = ResponseError(line["error"]) if line.get("error") else None
        response = Response(str(line.get("answer", "")), str(line.get("reasoning", "")), tuple(prompts), error)
        size = masks[0].shape[::-1] if masks else line.get("image_size") or (0, 0)
        if any(mask.shape != masks[0].shape for mask in masks):
            raise ValueError("its masks have several sizes")
        return Prediction(response, tuple(masks), tuple(scores), (int(size[0]), int(size[1])))
    except Exception as error:  # files of strangers are malformed in any way they like
        raise PredictionError(f"the prediction of {line.get('example_id')!r} cannot be read: {error!r}") from error


def read(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of predictions made elsewhere: JSON lines as above, or COCO's results.

    Of COCO's results (a list of {"image_id", "segmentation", "score"}) each entry is an instance of the expression
    whose `example_id` it names, or else whose id it has for its `image_id`. An expression without an entry has no line.

    Raises:
        PredictionError: for a file that is neither.
    """
    if file.suffix != ".json":
        with file.open(encoding="utf-8") as stream:
            for number, text in enumerate(stream, 1):
                try:
                    line = json.loads(text)
                    line["example_id"] = str(line["example_id"])
                except (ValueError, KeyError, TypeError) as error:
                    raise PredictionError(
                        f"line {number} of {file} is not a prediction with an example_id ({error!r})"
                    ) from error
                from_line(line)
                yield line
        return
    instances: dict[str, list[dict[str, Any]]] = {}
    try:
        entries = json.loads(file.read_bytes())
        if not isinstance(entries, list):
            raise TypeError("it is no list")
        for entry in entries:
            example_id = str(entry["example_id"] if "example_id" in entry else entry["image_id"])
            found = {"mask": entry["segmentation"], "score": entry.get("score", 1.0)}
            instances.setdefault(example_id, []).append(found)
    except (ValueError, KeyError, TypeError) as error:
        raise PredictionError(f"{file} is not a list of COCO results with segmentations ({error!r})") from error
    for example_id, its in instances.items():
        line = {"example_id": example_id, "instances": its}
        from_line(line)
        yield line
