"""Read a split of an official archive, and report what it held."""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc

from genseg_hub.archives import readers
from genseg_hub.archives.base import Benchmark
from genseg_hub.errors import ArchiveError
from genseg_hub.referring_dataset import FEATURES

# Part of the key under which read archives are kept; another number whenever a reader gives something else.
_VERSION = 2
_PROBLEM = datasets.Features({"problem": datasets.Value("string"), "detail": datasets.Value("string")})
_COUNTED = {"refs": "ref_id", "images": "image_id"}


@dataclass(frozen=True)
class Report:
    """What an archive held.

    Attributes:
        counts: "refs", "images" and "expressions", those that cannot be used included.
        published: the same, as published; {} where nobody said.
        source: who published them.
        problems: why expressions cannot be used -> how many.
        details: why -> what is wrong with the first of them.
    """

    counts: dict[str, int]
    published: dict[str, int]
    source: str
    problems: dict[str, int]
    details: dict[str, str]

    @property
    def as_published(self) -> bool:
        """Whether there are as many as somebody published."""
        return all(self.counts[what] == number for what, number in self.published.items())

    def __str__(self) -> str:
        lines = [_listed(self.counts)]
        if not self.as_published:
            lines.append(f"published are {_listed(self.published)} ({self.source})")
        lines += [f"{number:,} left out, {why}: {self.details[why]}" for why, number in self.problems.items()]
        return "\n".join(lines)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in counts.items())


def by_name() -> dict[str, Benchmark]:
    """The benchmarks there are."""
    modules = (
        importlib.import_module(f"{readers.__name__}.{module.name}")
        for module in pkgutil.iter_modules(readers.__path__)
    )
    return {benchmark.name: benchmark for module in modules for benchmark in module.BENCHMARKS}


def load_archive(name: str, root: Path, split: str, strict: bool = False) -> tuple[datasets.Dataset, Report]:
    """Read a split of an official archive; a second time it comes from the cache of `datasets`.

    Args:
        name: of a benchmark, for example "refcocog".
        root: folder under which the archive lies, as `Benchmark.archive` says.
        split: one of the benchmark's.
        strict: raise where an example cannot be used, or where there are not as many as published.

    Returns:
        The usable examples, with `referring_dataset.FEATURES` and the benchmark's own columns, those of one image
        together; and what there was.

    Raises:
        ArchiveError: unknown name or split, files that are missing or something else, nothing usable, or what `strict`
            does not allow.
    """
    benchmark, files = check(name, root, split)
    root = root.expanduser().resolve()
    try:
        settings = {"name": name, "root": str(root), "split": split, "version": _VERSION, "stamps": _stamps(files)}
        features = datasets.Features(FEATURES | benchmark.attributes | _PROBLEM)
        table = datasets.Dataset.from_generator(
            _rows, gen_kwargs=settings, features=features, split=datasets.NamedSplit(split)
        )
    except datasets.exceptions.DatasetGenerationError as error:
        raise ArchiveError(str(error.__cause__) or repr(error.__cause__)) from error
    except OSError as error:
        raise ArchiveError(f"{name} {split} under {root} cannot be read, or not be kept: {error}") from error
    report = _report(table, benchmark, split)
    if strict and (report.problems or not report.as_published):
        raise ArchiveError(f"{name} {split} is not as it should be: {report}")
    usable = np.flatnonzero(pc.is_null(table.data.column("problem")).to_numpy())
    if not len(usable):
        raise ArchiveError(f"{name} {split} under {root} has no usable example: {report}")
    if len(usable) < len(table):
        table = table.select(usable)
    return table.remove_columns(list(_PROBLEM)), report


def check(name: str, root: Path, split: str) -> tuple[Benchmark, list[Path]]:
    """A benchmark and the files that `load` would read, of which all are there; reads none of them.

    Raises:
        ArchiveError: unknown name or split, or files that are missing.
    """
    benchmarks = by_name()
    if name not in benchmarks:
        raise ArchiveError(f"there is no benchmark {name!r}; choose one of {', '.join(benchmarks)}")
    benchmark = benchmarks[name]
    if split not in benchmark.splits:
        raise ArchiveError(f"{name} has no split {split!r}; choose one of {', '.join(benchmark.splits)}")
    root = root.expanduser().resolve()
    files = benchmark.files(root, split)
    missing = [file for file in files if not (file.is_file() or file.is_dir())]
    if missing:
        raise ArchiveError(f"there is no {missing[0]}; needed is, under {root}: {benchmark.archive}")
    return benchmark, files


def first_expressions(examples: datasets.Dataset) -> datasets.Dataset:
    """The first expression of each reference alone, as the evaluations of Seg-Zero and VisionReasoner have one each.

    Raises:
        ArchiveError: for a benchmark without references.
    """
    if "ref_id" not in examples.column_names:
        raise ArchiveError("this benchmark has no references, each of its expressions stands alone")
    first: dict[str, int] = {}
    for i, ref_id in enumerate(examples["ref_id"]):
        first.setdefault(ref_id, i)
    return examples.select(list(first.values()))


def _rows(name: str, root: str, split: str, version: int, stamps: str) -> Iterator[dict[str, Any]]:
    """The rows of the cache. `datasets` finds them there by these arguments (and would take a list for shards)."""
    entry = None
    for entry in by_name()[name].entries(Path(root), split):
        yield {
            "image": str(entry.image) if entry.image else None,
            "expression": entry.expression,
            "masks": list(entry.masks),
            "example_id": entry.example_id,
            "image_id": entry.image_id,
            **entry.attributes,
            "problem": entry.unusable.problem.value if entry.unusable else None,
            "detail": str(entry.unusable or ""),
        }
    if entry is None:
        raise ValueError(f"{name} under {root} has no expression of the split {split!r}")


def _stamps(files: list[Path]) -> str:
    """What changes when a file does, or one in a folder, by its size and its times."""
    digest, seen = hashlib.sha256(), set[tuple[int, int]]()
    for line in sorted(line for file in files for line in _stamped(file, seen)):
        digest.update(os.fsencode(line))
    return digest.hexdigest()


def _stamped(file: Path | os.DirEntry[str], seen: set[tuple[int, int]]) -> Iterator[str]:
    try:
        found = file.stat()
    except OSError:
        found = file.stat(follow_symlinks=False)  # a link to nothing
    if not stat.S_ISDIR(found.st_mode):
        yield f"{os.fspath(file)} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
    elif (found.st_dev, found.st_ino) not in seen:
        seen.add((found.st_dev, found.st_ino))  # links can lead in circles
        with os.scandir(file) as entries:
            for entry in entries:
                yield from _stamped(entry, seen)


def _report(table: datasets.Dataset, benchmark: Benchmark, split: str) -> Report:
    columns = table.data
    counts = {
        what: pc.count_distinct(columns.column(column)).as_py()
        for what, column in _COUNTED.items()
        if column in table.column_names
    }
    found = columns.column("problem").drop_null().value_counts().to_pylist()
    problems = {counted["values"]: counted["counts"] for counted in found}
    first = {why: pc.index(columns.column("problem"), why).as_py() for why in problems}
    details = {why: columns.column("detail")[row].as_py() for why, row in first.items()}
    published = dict(benchmark.splits[split])
    return Report(counts | {"expressions": len(table)}, published, benchmark.counts_source, problems, details)
