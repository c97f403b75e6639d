"""Load referring examples from archives, rendered scenes, folders and the Hub.

A source is a text such as `refcocog:train` or `refcocog:val:400`. This module reads the text, and finds and loads the
source's examples. It knows neither rewards nor trainers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
from datasets.fingerprint import Hasher
from genseg_hub import archives, referring_dataset
from genseg_hub.referring_dataset import FEATURES, IGNORE

from genseg_training.nano.expressions import EXPRESSION_KINDS
from genseg_training.nano.refscenes import MIXED_KINDS, VERSION, refscenes, training_examples

REFSCENES = "refscenes"
NEW = f"{REFSCENES}-new"  # rendered scenes, 60 % of the expressions of new kinds
ROOT_VARIABLE = "GENSEG_BENCHMARKS"
SLICE_SEED = 0  # of every COUNT, so that all runs hold out the same examples
_NUMBER = re.compile(r"[1-9]\d*")


@dataclass(frozen=True)
class Source:
    """A source as the user names it, without its examples.

    Attributes:
        name: the source without its count, such as "refcocog:train".
        count: number of examples to draw; None for all.
        root: folder of the official archive; None for a source of another kind.
    """

    name: str
    count: int | None = None
    root: Path | None = None

    @property
    def is_scenes(self) -> bool:
        """Return whether the examples are rendered scenes."""
        return self.name.partition(":")[0] in (REFSCENES, NEW)

    @property
    def hub_split(self) -> tuple[str, str] | None:
        """Return Hub id and split of a Hub dataset; None for another source."""
        if self.is_scenes or self.root is not None or os.path.isdir(Path(self.name).expanduser()):
            return None
        hub_id, _, split = self.name.partition(":")
        return hub_id, split or "train"

    def __str__(self) -> str:
        return self.name if self.count is None else f"{self.name}:{self.count}"


@dataclass(frozen=True)
class Found:
    """Examples of a source, without its count.

    Attributes:
        examples: examples with `referring_dataset.FEATURES` and perhaps `ignore` and further columns.
        key: digest of the contents; another one after a change of a file.
        checked: whether the reader has compared masks with the images, and left bad examples out.
        collection: as in `archives.Benchmark`.
        left_out: a line for each reason why the reader has left examples out.
    """

    examples: datasets.Dataset
    key: str
    checked: bool = False
    collection: str = ""
    left_out: list[str] = field(default_factory=list)


def parse(text: str, root: str | Path | None = None) -> Source:
    """Return the source that a text names; read no examples and ask no network.

    Args:
        text: `NAME:SPLIT` or `NAME:SPLIT:COUNT` of an official archive, such as `refcocog:val:400`; `refscenes:COUNT`
            for rendered training scenes, `refscenes:val` or `refscenes:val:COUNT` for the fixed split; `refscenes-new`
            in place of `refscenes` for `MIXED_KINDS` of expressions about the same scenes; a folder that
            `save_to_disk`, the App's export or `genseg-train data` wrote, or `FOLDER:COUNT`; a dataset on the Hub,
            `owner/name`, `owner/name:SPLIT` or `owner/name:SPLIT:COUNT`, the split `train` by default.
        root: folder of the official archives; None for the folder that GENSEG_BENCHMARKS names.

    Raises:
        ValueError: the text names no source, or a file of the archive is missing.
    """
    head, _, rest = text.partition(":")
    if head in (REFSCENES, NEW):
        _asked_of_refscenes(text)
        return Source(text)
    if head in archives.by_name() and not os.path.isdir(text):
        return _archive(text, head, rest, root or os.environ.get(ROOT_VARIABLE))
    where, _, tail = text.rpartition(":")
    count = int(tail) if _NUMBER.fullmatch(tail) and (":" in where or os.path.isdir(where)) else None
    name = text if count is None else where
    try:
        referring_dataset.check_source(name, f"rendered scenes ({REFSCENES}:COUNT)")
    except ValueError as error:
        if os.path.isdir(name):
            raise
        raise ValueError(f"{error}; an archive is NAME:SPLIT, of {', '.join(archives.by_name())}") from None
    return Source(name, count)


def check_source(source: str, root: str | Path | None = None) -> None:
    """Raise ValueError unless `load_source` may find a source.

    Nothing is loaded, and no network is asked.

    Args:
        source: as `parse` takes it.
        root: as `parse` takes it.
    """
    parse(source, root)


def load_source(source: str, seed: int = 0, root: str | Path | None = None) -> datasets.Dataset:
    """Load examples with `referring_dataset.FEATURES`, and `ignore` if there is one.

    Args:
        source: as `parse` takes it.
        seed: seed of rendered training scenes. A COUNT of another source is drawn with SLICE_SEED.
        root: as `parse` takes it.

    Raises:
        ValueError: for any other source, or missing columns.
    """
    asked = parse(source, root)
    if asked.root is None and not asked.is_scenes:
        examples = referring_dataset.load_examples(asked.name)
    else:
        examples = find(asked, seed).examples
    kept = [*FEATURES, *([IGNORE] if IGNORE in examples.column_names else [])]
    return draw(examples.select_columns(kept), asked)


def draw(examples: datasets.Dataset, source: Source) -> datasets.Dataset:
    """Return the drawn examples of a source with a count, in their order.

    Without a count all examples are returned.

    Raises:
        ValueError: the source has fewer examples.
    """
    if source.count is None:
        return examples
    if source.count > len(examples):
        raise ValueError(f"{source.name} has {len(examples):,} examples, not {source.count:,}: ask for fewer, or all")
    drawn = np.random.default_rng(SLICE_SEED).permutation(len(examples))[: source.count]
    return examples.select(np.sort(drawn))


def find(source: Source, seed: int) -> Found:
    """Load all examples of a source, from the cache of `datasets` if possible.

    Args:
        source: its count is not regarded.
        seed: seed of rendered training scenes.

    Raises:
        ValueError: the source cannot be found or read.
    """
    if source.is_scenes:
        settings = _scenes(source.name, seed)
        examples = datasets.Dataset.from_generator(_rendered, gen_kwargs=settings, features=FEATURES)
        return Found(examples, Hasher.hash(settings), checked=True)
    if source.root is not None:
        name, _, split = source.name.partition(":")
        examples, report = archives.load_archive(name, source.root, split)
        collection = archives.by_name()[name].collection
        return Found(examples, report.key, True, collection, report.left_out)
    examples = referring_dataset.load_examples(source.name, check_rows=False)
    images = examples.data.column("image")
    paths = images.filter(pc.is_null(pc.struct_field(images, "bytes")))
    files = [file["filename"] for file in examples.cache_files]
    files += map(str, Path(source.name).expanduser().glob("*.arrow"))
    files += pc.unique(pc.struct_field(paths, "path")).to_pylist()
    return Found(examples, Hasher.hash([source.name, *_stamps(files)]))


def _archive(text: str, name: str, rest: str, root: str | Path | None) -> Source:
    split, _, count = rest.partition(":")
    splits = ", ".join(archives.by_name()[name].splits)
    if not split:
        raise ValueError(f"{text!r} names no split: write {name}:SPLIT or {name}:SPLIT:COUNT, the splits are {splits}")
    if (count or rest.endswith(":")) and not _NUMBER.fullmatch(count):
        raise ValueError(f"the count {count!r} of {text!r} is no number from 1: write {name}:{split}:400, for example")
    if split not in archives.by_name()[name].splits:
        raise ValueError(f"{name} has no split {split!r}; choose one of {splits}")
    if not root:
        raise ValueError(
            f"{text!r} is read from an official archive: name the folder of the archives with --root or {ROOT_VARIABLE}"
        )
    folder = Path(root).expanduser().resolve()
    archives.check(name, folder, split)
    return Source(f"{name}:{split}", int(count) if count else None, folder)


def _asked_of_refscenes(source: str) -> re.Match[str]:
    """Return the groups `count` (for training) and `limit` (of the split val).

    Raise ValueError for any other source.
    """
    asked = re.fullmatch(rf"{REFSCENES}(?P<new>-new)?:(?:(?P<count>[1-9]\d*)|val(?::(?P<limit>[1-9]\d*))?)", source)
    if not asked:
        raise ValueError(
            f"{source!r} is none of {REFSCENES}:10000 (that many expressions for training), {REFSCENES}:val and "
            f"{REFSCENES}:val:400; the test split is for final figures alone"
        )
    return asked


def _scenes(name: str, seed: int) -> dict[str, Any]:
    """Return the arguments of `_rendered`; a seed changes nothing in the fixed split."""
    asked = _asked_of_refscenes(name)
    count, limit = asked["count"], asked["limit"]
    settings = {"count": int(count or limit) if count or limit else None, "seed": seed if count else None}
    return settings | {"version": VERSION} | ({"kinds": dict(MIXED_KINDS)} if asked["new"] else {})


def _rendered(
    count: int | None, seed: int | None, version: str, kinds: Mapping[str, int] = EXPRESSION_KINDS
) -> Iterator[dict]:
    """Yield rows of rendered scenes, of the split val without a seed.

    `datasets` caches them under these arguments.
    """
    drawn = refscenes("val", count, kinds) if seed is None else training_examples(count or 0, seed, kinds)
    yield from referring_dataset.to_rows(drawn)


def _stamps(files: Iterable[str | None]) -> Iterator[str]:
    """Yield the names, sizes and times of files."""
    for file in sorted({file for file in files if file}):
        try:
            found = os.stat(file)
        except OSError:
            yield f"{file} is missing"
        else:
            yield f"{file} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
