"""Benchmarks, their entries, and the reasons why an entry is unusable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import datasets

from genseg_hub.schema import Rle


class Problem(StrEnum):
    """Reasons why an example of an archive is unusable."""

    MISSING_IMAGE = "missing image"
    UNREADABLE_IMAGE = "unreadable image"
    WRONG_IMAGE_SIZE = "wrong image size"
    MISSING_ANNOTATION = "missing annotation"
    UNREADABLE_MASK = "unreadable mask"
    EMPTY_MASK = "empty mask"
    EMPTY_EXPRESSION = "empty expression"
    DUPLICATE_ID = "duplicate id"
    MALFORMED_RECORD = "malformed record"


class Unusable(Exception):
    """Reason why an example is unusable; readers raise it, or keep it in the entry."""

    def __init__(self, problem: Problem, detail: str):
        super().__init__(detail)
        self.problem = problem


@dataclass(frozen=True)
class Entry:
    """One expression of an archive.

    Attributes:
        expression, example_id: "" in an unusable entry without a usable value.
        image_id: None in an unusable entry without a usable value.
        image: file; None in an unusable entry without a usable file.
        masks: COCO RLE of every referred instance; () for no-target.
        attributes: values of the benchmark's own columns.
        unusable: the reason why the entry is unusable; None for a usable entry.
    """

    expression: str
    example_id: str
    image_id: str | None
    image: Path | None = None
    masks: tuple[Rle, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    unusable: Unusable | None = None


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, and the functions that read its official archive.

    Attributes:
        name: as the user types it.
        archive: source of the archive for users, and its paths under the root folder.
        policy: name in `metrics.POLICIES` of the published evaluator.
        splits: split -> published counts ("refs", "images", "expressions"); {} for unknown counts.
        counts_source: the publisher of the counts.
        attributes: the benchmark's own columns beside `referring_dataset.FEATURES`.
        files: (root, split) -> all files and folders that `entries` reads, annotations first.
        entries: (root, split) -> the expressions, grouped by image.
        collection: the collection whose ids the image ids are, such as "COCO"; "" for ids of this benchmark alone.
    """

    name: str
    archive: str
    policy: str
    splits: Mapping[str, Mapping[str, int]]
    counts_source: str
    attributes: datasets.Features
    files: Callable[[Path, str], list[Path]]
    entries: Callable[[Path, str], Iterator[Entry]]
    collection: str = ""
