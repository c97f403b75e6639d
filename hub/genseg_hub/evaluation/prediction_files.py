"""Files of stored predictions: JSON lines, or COCO's results.

`predictions` describes the JSON lines.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genseg_hub.errors import PredictionError
from genseg_hub.evaluation.predictions import asked, is_about, is_own, reason, without_masks
from genseg_hub.schema import ReferringExample


def read(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of another system's file of predictions.

    The file holds JSON lines as `predictions` describes them, or COCO's results. COCO's results are a `.json` file with
    a list of {"image_id", "segmentation", "score"}. Each entry is an instance of one expression: its `example_id`, or
    else its `image_id`, is the expression's id. An expression without an entry has no line.

    Args:
        file: file of JSON lines, or of COCO's results.

    Raises:
        PredictionError: the file is neither; the message names the line or the entry.
    """
    if file.suffix.lower() == ".json":
        yield from _coco_results(file)
        return
    seen: dict[str, int] = {}
    for _, number, line in _lines(file):
        if isinstance(line, PredictionError):
            raise line
        # A run asks again after a failure, so its own lines may have the same expression twice.
        before = seen.setdefault(line["example_id"], number)
        if before != number and not is_own(line):
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
        raise PredictionError(f"{where} is not a list of COCO results with segmentations ({reason(error)})") from error
    for example_id, its in instances.items():
        line = {"example_id": example_id, "instances": its}
        _check(line, str(file))
        yield line


def _check(line: dict[str, Any], where: str) -> None:
    try:
        without_masks(line)
    except PredictionError as error:
        raise PredictionError(f"{where}: {error}") from error


def _lines(file: Path) -> Iterator[tuple[int, int, dict[str, Any] | PredictionError]]:
    """Yield the first byte, the number from 1 and the content of each line.

    Blank lines are skipped. The content is an error if the line is no JSON object in UTF-8 with an `example_id`, or has
    a number that is not finite.
    """
    with file.open("rb") as stream:
        place = 0
        for number, raw in enumerate(stream, 1):
            if raw.strip():
                line: dict[str, Any] | PredictionError
                try:
                    line = _parse(raw)
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    where = f"line {number} of {file}"
                    line = PredictionError(f"{where} is not a prediction with an example_id ({reason(error)})")
                yield place, number, line
            place += len(raw)


class Index:
    """Places of the predictions in files of JSON lines, without their masks.

    If several lines are about one question, an answer counts before a failure, and a later line before an earlier one.
    An unreadable line costs its expression, not the file.

    Args:
        *files: files of JSON lines; a missing one has no lines.

    Attributes:
        unreadable: a message about each line that cannot be read.
    """

    def __init__(self, *files: Path):
        self.files = files
        self.unreadable: list[str] = []
        self._places: dict[str, tuple[Path, int, tuple[str, str | None, str | None], bool]] = {}
        for file in files:
            if file.is_file():
                self._read(file)

    def _read(self, file: Path) -> None:
        for place, number, line in _lines(file):
            try:
                if isinstance(line, PredictionError):
                    raise line
                _check(line, f"line {number} of {file}")
            except PredictionError as error:
                self.unreadable.append(str(error))
            else:
                said, failed = asked(line), "failure" in line
                _, _, said_before, failed_before = self._places.get(line["example_id"], (None, 0, None, True))
                if not failed or failed_before or said != said_before:
                    self._places[line["example_id"]] = file, place, said, failed

    def has_answer(self, example_id: str, image_id: str, expression: str) -> bool:
        """Return whether a line about this question is no failure."""
        place = self._place(example_id, image_id, expression)
        return place is not None and not place[2]

    def has_line(self, example_id: str, image_id: str, expression: str) -> bool:
        """Return whether a line, which may be a failure, is about this question."""
        return self._place(example_id, image_id, expression) is not None

    def find(self, example: ReferringExample) -> dict[str, Any] | None:
        """Return the line with an example's id, image and expression; None for none."""
        found = self._place(example.example_id, example.image_id, example.expression)
        if found is None:
            return None
        file, place, _ = found
        with file.open("rb") as stream:
            stream.seek(place)
            return _parse(stream.readline())

    def _place(self, example_id: str, image_id: str, expression: str) -> tuple[Path, int, bool] | None:
        """Return a question's line: its file, its first byte, and whether it is a failure."""
        if example_id not in self._places:
            return None
        file, place, said, failed = self._places[example_id]
        return (file, place, failed) if is_about(said, example_id, image_id, expression) else None

    def __str__(self) -> str:
        return ", ".join(map(str, self.files))


def _parse(raw: bytes) -> dict[str, Any]:
    line = _loads(raw)
    line["example_id"] = _id(line["example_id"])
    return line


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
