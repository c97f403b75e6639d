"""Read a split of an official archive, and report its contents."""

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
from datasets.fingerprint import Hasher

from genseg_hub.archives import readers
from genseg_hub.archives.base import Benchmark
from genseg_hub.archives.caching import cached
from genseg_hub.errors import ArchiveError
from genseg_hub.referring_dataset import FEATURES

# Part of the key of cached archives; change it whenever a reader gives other rows.
_VERSION = 4
_LEAST = 0.5  # share of the expressions that must be usable
_PROBLEM = datasets.Features({"problem": datasets.Value("string"), "detail": datasets.Value("string")})
_COUNTED = {"refs": "ref_id", "images": "image_id"}


@dataclass(frozen=True)
class Report:
    """Contents of an archive.

    Attributes:
        counts: numbers of "refs", "images" and "expressions", with the unusable ones.
        published: the published numbers; {} for unknown numbers.
        source: the publisher of the numbers.
        problems: problem -> number of unusable expressions.
        details: problem -> details of its first expression.
        key: digest of the read files; it changes with any of them.
    """

    counts: dict[str, int]
    published: dict[str, int]
    source: str
    problems: dict[str, int]
    details: dict[str, str]
    key: str

    @property
    def as_published(self) -> bool:
        """Return whether the counts are the published numbers."""
        return all(self.counts[what] == number for what, number in self.published.items())

    @property
    def left_out(self) -> list[str]:
        """Return a line per problem: its number of expressions, and its first details."""
        return [f"{number:,} left out, {why}: {self.details[why]}" for why, number in self.problems.items()]

    def __str__(self) -> str:
        lines = [_listed(self.counts)]
        if not self.as_published:
            lines.append(f"published are {_listed(self.published)} ({self.source})")
        return "\n".join(lines + self.left_out)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in counts.items())


def by_name() -> dict[str, Benchmark]:
    """Return all benchmarks by name."""
    modules = (
        importlib.import_module(f"{readers.__name__}.{module.name}")
        for module in pkgutil.iter_modules(readers.__path__)
    )
    return {benchmark.name: benchmark for module in modules for benchmark in module.BENCHMARKS}


def load_archive(name: str, root: Path, split: str, strict: bool = False) -> tuple[datasets.Dataset, Report]:
    """Read a split of an official archive.

    The second time the split comes from the cache of `datasets`.

    Args:
        name: name of a benchmark, for example "refcocog".
        root: folder of the archive; `Benchmark.archive` names the paths under it.
        split: split of the benchmark.
        strict: raise if an example is unusable, or if the counts are not the published ones.

    Returns:
        The usable examples, grouped by image, with `referring_dataset.FEATURES` and the benchmark's own columns; and a
        report of the archive's contents.

    Raises:
        ArchiveError: the name or the split is unknown, files are missing or of another kind, more than half of the
            examples are unusable, or `strict` does not allow the contents.
    """
    benchmark, files = check(name, root, split)
    root = root.expanduser().resolve()
    try:
        settings = {"name": name, "root": str(root), "split": split, "version": _VERSION, "stamps": _stamps(files)}
        features = datasets.Features(FEATURES | benchmark.attributes | _PROBLEM)
        table = cached(_rows, settings, features, split)
    except datasets.exceptions.DatasetGenerationError as error:
        raise ArchiveError(str(error.__cause__) or repr(error.__cause__)) from error
    except OSError as error:
        raise ArchiveError(f"{name} {split} under {root} cannot be read or cached: {error}") from error
    report = _report(table, benchmark, split, Hasher.hash(settings))
    if strict and (report.problems or not report.as_published):
        raise ArchiveError(
            f"{name} {split} differs from the published archive; fetch it again, or leave --strict out: {report}"
        )
    usable = np.flatnonzero(pc.is_null(table.data.column("problem")).to_numpy())
    if not len(usable):
        raise ArchiveError(f"{name} {split} under {root} has no usable example: {report}")
    if len(usable) < _LEAST * len(table):
        raise ArchiveError(
            f"{name} {split} under {root}: {len(table) - len(usable):,} of {len(table):,} expressions are unusable, "
            f"and the others alone would mislead; mend them, or take them out of the table: {report}"
        )
    if len(usable) < len(table):
        table = table.select(usable)
    return table.remove_columns(list(_PROBLEM)), report


def check(name: str, root: Path, split: str) -> tuple[Benchmark, list[Path]]:
    """Return a benchmark and the files that `load_archive` would read; read none.

    Args:
        name: as `load_archive` takes it.
        root: as `load_archive` takes it.
        split: as `load_archive` takes it.

    Raises:
        ArchiveError: the name or the split is unknown, or a file is missing.
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
        raise ArchiveError(f"there is no {missing[0]}; expected under {root}: {benchmark.archive}")
    return benchmark, files


def first_expressions(examples: datasets.Dataset) -> datasets.Dataset:
    """Return the first expression of each reference.

    The evaluations of Seg-Zero and VisionReasoner take these expressions.

    Raises:
        ArchiveError: the benchmark has no references.
    """
    if "ref_id" not in examples.column_names:
        raise ArchiveError(
            "this benchmark has no references, because each expression stands alone; leave --first-expression out"
        )
    first: dict[str, int] = {}
    for i, ref_id in enumerate(examples["ref_id"]):
        first.setdefault(ref_id, i)
    return examples.select(list(first.values()))


def _rows(name: str, root: str, split: str, version: int, stamps: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of the cache; the arguments are its key."""
    entry = None
    for entry in by_name()[name].entries(Path(root), split):
        yield {
            "image": {"bytes": None, "path": str(entry.image)} if entry.image else None,
            "expression": entry.expression,
            "masks": list(entry.masks),
            "example_id": entry.example_id,
            "image_id": entry.image_id,
            **entry.attributes,
            "problem": entry.unusable.problem.value if entry.unusable else None,
            "detail": str(entry.unusable or ""),
        }
    if entry is None:
        raise ArchiveError(f"{name} under {root} has no expression of the split {split!r}; choose another split")


def _stamps(files: list[Path]) -> str:
    """Return a digest of the sizes and times of files, and of all files in folders."""
    digest, seen = hashlib.sha256(), set[tuple[int, int]]()
    for line in sorted(line for file in files for line in _stamped(file, seen)):
        digest.update(os.fsencode(line))
    return digest.hexdigest()


def _stamped(file: Path | os.DirEntry[str], seen: set[tuple[int, int]]) -> Iterator[str]:
    try:
        found = file.stat()
    except OSError:
        found = file.stat(follow_symlinks=False)  # a broken link
    if not stat.S_ISDIR(found.st_mode):
        yield f"{os.fspath(file)} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
    elif (found.st_dev, found.st_ino) not in seen:
        seen.add((found.st_dev, found.st_ino))  # links can form circles
        with os.scandir(file) as entries:
            for entry in entries:
                yield from _stamped(entry, seen)


def _report(table: datasets.Dataset, benchmark: Benchmark, split: str, key: str) -> Report:
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
    return Report(counts | {"expressions": len(table)}, published, benchmark.counts_source, problems, details, key)
