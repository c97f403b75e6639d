"""Your own data: a COCO annotation file, and a table of expressions.

The folder holds `instances.json`, `images/` and `expressions.csv` or `expressions.jsonl` with the columns

| column | what it holds |
|---|---|
| `image` | file name in `images/`, as the annotation file has it |
| `expression` | what is looked for |
| `annotations` | ids of the referred annotations, separated by spaces (JSONL: a list); empty for no-target |
| `id` | optional; the number of the row, from 0, where it is missing |
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from genseg_hub.benchmarks._benchmark import ArchiveError, Benchmark, Entry, Problem, Unusable
from genseg_hub.benchmarks._coco import CocoInstances
from genseg_hub.schema import Rle

_REQUIRED = ("image", "expression", "annotations")


def _tables(root: Path) -> list[Path]:
    return [file for file in (root / "expressions.csv", root / "expressions.jsonl") if file.is_file()]


def _files(root: Path, split: str) -> list[Path]:
    tables = _tables(root)
    if len(tables) > 1:
        raise ArchiveError(f"{root} has both {tables[0].name} and {tables[1].name}; leave one")
    return [*(tables or [root / "expressions.csv"]), root / "instances.json", root / "images"]


def _rows(table: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table, `annotations` as a list of ids.

    Raises:
        ValueError: naming the line that cannot be read.
    """
    with table.open(encoding="utf-8-sig", newline="") as stream:
        lines: Iterator[Any] = csv.DictReader(stream) if table.suffix == ".csv" else stream
        for number, line in enumerate(lines):
            try:
                row = line if isinstance(line, dict) else json.loads(line)
                missing = [name for name in _REQUIRED if row.get(name) is None]
                if missing:
                    raise ValueError(f"it has no {missing[0]!r}; needed are {', '.join(_REQUIRED)}")
                ids = row["annotations"]
                yield row | {"annotations": [int(i) for i in (ids.split() if isinstance(ids, str) else ids)]}
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"row {number} of {table} cannot be read: {error}") from error


def _entries(root: Path, split: str) -> Iterator[Entry]:
    table, annotations, images = _files(root, split)
    instances = CocoInstances(annotations, images)
    rows = [{"id": number} | row for number, row in enumerate(_rows(table))]
    times = Counter(str(row["id"]) for row in rows)
    for row in sorted(rows, key=lambda row: str(row["image"])):
        expression = str(row["expression"]).strip()
        image: Path | None = None
        masks: tuple[Rle, ...] = ()
        problem, detail = None, ""
        try:
            if times[str(row["id"])] > 1:
                raise Unusable(Problem.DUPLICATE_ID, f"{table} has {times[str(row['id'])]} times id {row['id']}")
            if not expression:
                raise Unusable(Problem.EMPTY_EXPRESSION, f"the expression {row['id']} is empty")
            image_id = instances.ids_by_file_name.get(str(row["image"]))
            if image_id is None:
                raise Unusable(Problem.MISSING_ANNOTATION, f"{annotations} has no image {row['image']!r}")
            image, masks = instances.image(image_id), instances.masks(row["annotations"], image_id)
        except Unusable as error:
            problem, detail = error.problem, str(error)
        yield Entry(expression, str(row["id"]), str(row["image"]), image, masks, {}, problem, detail)


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
