"""The user's own data: a COCO annotation file, and a table of expressions.

The folder holds `instances.json`, `images/` and `expressions.csv` or `expressions.jsonl` with the columns

| column | contents |
|---|---|
| `image` | file name in `images/`, as in the annotation file |
| `expression` | the natural-language query |
| `annotations` | ids of the referred annotations, separated by spaces (JSONL: a list); empty for no-target |
| `id` | optional; if missing or blank, the number of the row, from 0 |

Ids may be numbers or text; 7 and "7" are the same.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import datasets

from genseg_hub.archives.base import Benchmark, Entry, Problem, Unusable
from genseg_hub.archives.coco_instances import CocoInstances
from genseg_hub.archives.records import as_id, as_text, malformed, text_of
from genseg_hub.errors import ArchiveError
from genseg_hub.schema import Rle

_REQUIRED = ("image", "expression", "annotations")
Row = tuple[int, dict[str, Any] | Unusable]  # line number, and the row or the reason why it is unusable


def _tables(root: Path) -> list[Path]:
    return [file for file in (root / "expressions.csv", root / "expressions.jsonl") if file.is_file()]


def _files(root: Path, split: str) -> list[Path]:
    tables = _tables(root)
    if len(tables) > 1:
        raise ArchiveError(f"{root} has both {tables[0].name} and {tables[1].name}; leave one")
    return [*(tables or [root / "expressions.csv"]), root / "instances.json", root / "images"]


def _entries(root: Path, split: str) -> Iterator[Entry]:
    table, annotations, images = _files(root, split)
    instances = CocoInstances(annotations, images)
    rows = _rows(table)
    ids = [(as_id(row.get("id")) if isinstance(row, dict) else None) or str(i) for i, (_, row) in enumerate(rows)]
    names = [as_text(row.get("image")) if isinstance(row, dict) else None for _, row in rows]
    times = Counter(ids)
    for i in sorted(range(len(rows)), key=lambda i: names[i] or ""):
        line, row = rows[i]
        image: Path | None = None
        masks: tuple[Rle, ...] = ()
        unusable: Unusable | None = None
        try:
            if isinstance(row, Unusable):
                raise row
            if times[ids[i]] > 1:
                raise Unusable(Problem.DUPLICATE_ID, f"{table} has {times[ids[i]]} times id {ids[i]}")
            image, masks = _referred(row, f"line {line} of {table}", instances)
        except Unusable as error:
            unusable = error
        expression = as_text(row.get("expression")) if isinstance(row, dict) else None
        yield Entry(expression or "", ids[i], names[i], image, masks, unusable=unusable)


def _rows(table: Path) -> list[Row]:
    """Return the rows of a table.

    Raises:
        ArchiveError: the file is no such table; the message names the line.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            return list(_csv_rows(stream, table) if table.suffix == ".csv" else _jsonl_rows(stream, table))
    except UnicodeDecodeError as error:
        raise ArchiveError(f"{table} is not in UTF-8 ({error}); save it as UTF-8") from error


def _csv_rows(stream: TextIO, table: Path) -> Iterator[Row]:
    reader = csv.DictReader(stream, strict=True, skipinitialspace=True)
    try:
        columns = reader.fieldnames or []
        if not set(_REQUIRED) <= set(columns):
            raise ArchiveError(
                f"{table} has the columns {', '.join(columns) or 'none'}; needed are {', '.join(_REQUIRED)}, "
                "with commas between them"
            )
        for row in reader:
            if None in row:
                said = f"line {reader.line_num} of {table} has more cells than columns; quote what holds a comma"
                yield reader.line_num, Unusable(Problem.MALFORMED_RECORD, said)
            else:
                yield reader.line_num, row
    except csv.Error as error:
        said = f"what follows line {reader.line_num} of {table} is not CSV ({error}); mend its quotes"
        raise ArchiveError(said) from error


def _jsonl_rows(stream: TextIO, table: Path) -> Iterator[Row]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"it is a {type(row).__name__}")
            yield number, row
        except (ValueError, RecursionError) as error:
            said = f"line {number} of {table} is no JSON object ({error})"
            yield number, Unusable(Problem.MALFORMED_RECORD, said)


def _referred(row: dict[str, Any], what: str, instances: CocoInstances) -> tuple[Path, tuple[Rle, ...]]:
    """Return the image of a row, and the masks to which the row refers."""
    name = text_of(row, "image", what)
    if not text_of(row, "expression", what):
        raise Unusable(Problem.EMPTY_EXPRESSION, f"the expression of {what} is empty")
    cell = row.get("annotations")
    cells = cell.split() if isinstance(cell, str) else cell
    ids = [as_id(one) for one in cells] if isinstance(cells, list) else [None]
    if None in ids:
        raise malformed(
            row, "annotations", what, "a list of ids, an empty one for an expression that refers to nothing"
        )
    images = instances.ids_by_file_name.get(name, [])
    if len(images) != 1:
        problem = Problem.DUPLICATE_ID if images else Problem.MISSING_ANNOTATION
        raise Unusable(problem, f"{instances.file} has {len(images)} images with the file_name {name}")
    return instances.image(images[0]), instances.masks([one for one in ids if one], images[0])


BENCHMARKS = (
    Benchmark(
        name="coco",
        archive="your own folder: instances.json (COCO), images/ and expressions.csv or .jsonl (docs/benchmarks.md)",
        policy="grefcoco",
        splits={"data": {}},
        counts_source="",
        attributes=datasets.Features(),
        files=_files,
        entries=_entries,
    ),
)
