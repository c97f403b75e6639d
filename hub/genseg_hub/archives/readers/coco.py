"""The user's own data: a COCO annotation file, and a table of expressions.

The folder holds `instances.json`, `images/` and `expressions.csv` or `expressions.jsonl` with the columns

| column | contents |
|---|---|
| `image` | file name in `images/`, as in the annotation file |
| `expression` | the natural-language query |
| `annotations` | ids of the referred annotations, separated by spaces or as a list; empty for no-target |
| `id` | optional; if missing or blank, the number of the row, from 0, or the next number that no row has |

Ids may be numbers or text; 7 and "7" are the same. A table that pandas wrote is read as it was meant: 41.0 is the id 41
if no annotation has the id "41.0".
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, TextIO

import datasets

from genseg_hub.archives.base import Benchmark, Entry, Problem, Unusable
from genseg_hub.archives.coco_instances import CocoInstances
from genseg_hub.archives.records import as_id, as_text, malformed, text_of, whole
from genseg_hub.errors import ArchiveError
from genseg_hub.schema import Rle

_REQUIRED = ("image", "expression", "annotations")
_READ = (*_REQUIRED, "id")
_EMPTY = ("", "nan", "none", "null", "<na>")  # what pandas writes for an empty cell
_NUMPY = re.compile(r"np\.\w+\(([^()]*)\)")  # a number of a list of NumPy's
_CALLED = re.compile(r"(?:set|frozenset|array|tensor)\(([^()]*?)(?:,\s*dtype=[\w.]+)?\)")  # ids of a Python object
_BRACKETS, _SEPARATORS = ("[", "(", "{"), r"[\s,;]+"
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
    ids = _numbered([as_id(row.get("id")) if isinstance(row, dict) else None for _, row in rows])
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


def _numbered(given: list[str | None]) -> list[str]:
    """Return the ids of the rows, with numbers for blank ones."""
    given = [None if _is_blank(one) else one for one in given]
    if all(one is None or whole(one) != one for one in given):  # all are written as pandas writes them, like 41.0
        given = [one and whole(one) for one in given]
    taken = {one for one in given if one}
    ids = [one or (None if str(i) in taken else str(i)) for i, one in enumerate(given)]
    taken.update(filter(None, ids))
    last = 0
    for i, one in enumerate(ids):
        if one is None:
            last = next(number for number in count(max(i, last) + 1) if str(number) not in taken)
            ids[i] = str(last)
    return [one or "" for one in ids]


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
                f"{table} has the columns {', '.join(columns) or 'none'}; expected {', '.join(_REQUIRED)}, "
                "with commas between them"
            )
        twice = [name for name in _READ if columns.count(name) > 1]
        if twice:
            raise ArchiveError(f"{table} has the column {twice[0]!r} twice; leave one, or give the other another name")
        for row in reader:
            if None in row:
                said = f"line {reader.line_num} of {table} has more cells than columns; quote cells that hold a comma"
                yield reader.line_num, Unusable(Problem.MALFORMED_RECORD, said)
            else:
                yield reader.line_num, {column: cell for column, cell in row.items() if cell is not None}
    except csv.Error as error:
        said = f"the rows after line {reader.line_num} of {table} are not CSV ({error}); mend their quotes"
        raise ArchiveError(said) from error


def _jsonl_rows(stream: TextIO, table: Path) -> Iterator[Row]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_once)
            if not isinstance(row, dict):
                raise ValueError(f"it is a {type(row).__name__}")
            yield number, row
        except (ValueError, RecursionError) as error:
            said = f"line {number} of {table} is no JSON object ({error})"
            yield number, Unusable(Problem.MALFORMED_RECORD, said)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; raise ValueError if it has a key twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is repeated")
    return found


def _referred(row: dict[str, Any], what: str, instances: CocoInstances) -> tuple[Path, tuple[Rle, ...]]:
    """Return the image of a row, and the masks to which the row refers."""
    name = text_of(row, "image", what)
    if not text_of(row, "expression", what):
        raise Unusable(Problem.EMPTY_EXPRESSION, f"the expression of {what} is empty")
    ids = _ids(row, what, instances)
    images = instances.ids_of_file(name)
    if len(images) != 1:
        problem = Problem.DUPLICATE_ID if images else Problem.MISSING_ANNOTATION
        raise Unusable(problem, f"{instances.file} has {len(images)} images with the file_name {name}")
    return instances.image(images[0]), instances.masks(ids, images[0])


def _ids(row: dict[str, Any], what: str, instances: CocoInstances) -> list[str]:
    """Return the ids of the annotations to which a row refers, each once.

    pandas writes 41 as 41.0 in a column with an empty cell, an empty cell as null, and a list as "[41, 42]".
    """
    needed = "a list of ids, an empty one for an expression that refers to nothing"
    if "annotations" not in row:
        raise malformed(row, "annotations", what, needed)
    cell = row["annotations"]
    cells = _listed(cell) if isinstance(cell, str) else cell if isinstance(cell, list) else [cell]
    ids = [as_id(one) for one in cells if not _is_blank(one)]
    if None in ids:
        raise malformed(row, "annotations", what, needed)
    return list(dict.fromkeys(one if instances.has_annotation(one) else whole(one) for one in ids if one))


def _is_blank(value: Any) -> bool:
    """Return whether a value is empty, as pandas and JSON write it."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value.strip().lower() in _EMPTY)


def _listed(cell: str) -> list[Any]:
    """Return the ids in a cell.

    Spaces, commas or semicolons may separate them. Brackets and quotes may surround them.
    """
    text = _NUMPY.sub(r"\1", cell.strip())
    if called := _CALLED.fullmatch(text):
        text = called[1]
    if not text.startswith(_BRACKETS):
        return re.split(_SEPARATORS, text)
    for listed in (text, text.replace("'", '"')):
        try:
            found = json.loads(listed, parse_float=str)  # `whole` reads numbers that NumPy may have rounded
            if isinstance(found, list):
                return found
        except (ValueError, RecursionError):
            continue
    return [one.strip("\"'") for one in re.split(_SEPARATORS, text.strip("[](){}")) if one.strip("\"'")]


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
