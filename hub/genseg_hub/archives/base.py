"""What every reader of an archive gives: examples, and what is wrong with those that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import datasets

from genseg_hub.schema import Rle


class Problem(str, Enum):
    """Why an example of an archive cannot be used."""

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
    """Why one example cannot be used, and the details."""

    def __init__(self, problem: Problem, detail: str):
        super().__init__(detail)
        self.problem = problem


@dataclass(frozen=True)
class Entry:
    """One expression of an archive.

    Attributes:
        expression, example_id: "" when there is none that can be used, of an example that cannot be used itself.
        image_id: None when there is none, likewise.
        image: file; None when there is none that can be used.
        masks: COCO RLE of every referred instance; () for no-target.
        attributes: values of the benchmark's own columns.
        unusable: why it cannot be used, when it cannot.
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
    """A benchmark and how its official archive is read.

    Attributes:
        name: as the user types it.
        archive: where it is to be had, and how it must lie under the root folder.
        policy: of `metrics`, the published evaluator's.
        splits: split -> published counts ("refs", "images", "expressions"); {} where none is known.
        counts_source: who published them.
        attributes: columns of its own beside `referring_dataset.FEATURES`.
        files: (root, split) -> everything that decides what `entries` gives, annotations first; of a folder, all in it.
        entries: (root, split) -> the expressions, those of one image together.
    """

    name: str
    archive: str
    policy: str
    splits: Mapping[str, Mapping[str, int]]
    counts_source: str
    attributes: datasets.Features
    files: Callable[[Path, str], list[Path]]
    entries: Callable[[Path, str], Iterator[Entry]]
