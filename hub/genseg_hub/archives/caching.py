"""Tables that a generator makes once, in the cache of `datasets`.

`Dataset.from_generator` does the same, but converts every value of every row in Python, which takes most of the time
for rows of masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import datasets
import pyarrow as pa

_BATCH = 500


@dataclass
class _Config(datasets.BuilderConfig):
    """Configuration whose digest is the key of a cached table."""

    make: Callable[..., Iterator[dict[str, Any]]] | None = None
    settings: dict[str, Any] | None = None
    features: datasets.Features | None = None
    split: str = "train"


class _Tables(datasets.ArrowBasedBuilder):
    """Builder of one table."""

    BUILDER_CONFIG_CLASS = _Config

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=self.config.features)

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(name=self.config.split)]

    def _generate_tables(self) -> Iterator[tuple[int, pa.Table]]:
        rows, schema = self.config.make(**self.config.settings), self.config.features.arrow_schema
        number = 0
        while batch := list(islice(rows, _BATCH)):
            yield number, pa.Table.from_pylist(batch, schema=schema)
            number += 1


def cached(
    make: Callable[..., Iterator[dict[str, Any]]],
    settings: dict[str, Any],
    features: datasets.Features,
    split: str = "train",
) -> datasets.Dataset:
    """Return the rows of a generator; the second time they come from the cache.

    Args:
        make: function of a module that yields rows; an image is {"bytes": ..., "path": ...}.
        settings: arguments of `make`. They, the name of `make` and the features are the key of the cache.
        features: features of the rows.
        split: name of the split.

    Raises:
        DatasetGenerationError: with the error of `make` as its cause.
        OSError: the cache cannot be written.
    """
    builder = _Tables(make=make, settings=settings, features=features, split=split)
    builder.download_and_prepare()
    return builder.as_dataset(split=split)
