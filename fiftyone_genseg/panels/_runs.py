"""Evaluation runs as panels read them.

Values that follow from a run's table are computed once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import fiftyone as fo
import numpy as np
import pandas as pd

from fiftyone_genseg.evaluation.results import ReferringResults
from fiftyone_genseg.evaluation.slicing import attributes, slices
from fiftyone_genseg.fields import every_image

# Sample fields as attributes: (name, one value per row of the run's table) for each.
FieldValues = tuple[tuple[str, tuple[Any, ...]], ...]


def keys(dataset: fo.Dataset | None) -> list[str]:
    """Return the runs with results, newest first."""
    if dataset is None:
        return []
    documents = dataset._doc.evaluations
    found = [key for key in dataset.list_evaluations(method="referring") if documents[key].results]
    return sorted(found, key=lambda key: documents[key].timestamp, reverse=True)


def comparable(a: ReferringResults, b: ReferringResults) -> str | None:
    """Return why two runs cannot be compared, None when they can."""
    rules = [(r.config.policy, r.config.min_pixels) for r in (a, b)]
    if rules[0] == rules[1]:
        return None
    return "they were evaluated under different (policy, min_pixels): {} and {}".format(*rules)


def load_results(dataset: fo.Dataset, key: str) -> ReferringResults:
    """Return a run's results, read from the database once."""
    return _results(_identity(dataset, key), dataset.name, key)


def field_values(dataset: fo.Dataset, key: str, fields: tuple[str, ...]) -> FieldValues:
    """Return sample fields as further attributes of a run's expressions.

    Lists become one text.
    """
    if not fields:
        return ()
    ids, *columns = every_image(dataset).values(["id", *fields])
    samples = load_results(dataset, key).table["sample_id"]
    found = [dict(zip(ids, map(_plain, column), strict=True)) for column in columns]
    return tuple((name, tuple(samples.map(values).tolist())) for name, values in zip(fields, found, strict=True))


def run_attributes(dataset: fo.Dataset, key: str, values: FieldValues) -> pd.DataFrame:
    """Return the attributes of a run's expressions, with `field_values`."""
    return _attributes(_identity(dataset, key), dataset.name, key, values)


def run_slices(dataset: fo.Dataset, key: str, values: FieldValues, rows: np.ndarray) -> pd.DataFrame:
    """Return the slices among some rows of a run, bool[N].

    The attributes are `run_attributes`.
    """
    return _slices(_identity(dataset, key), dataset.name, key, values, rows.tobytes())


def _identity(dataset: fo.Dataset, key: str) -> str:
    """Return the id of a run's document, which changes when the run is overwritten.

    The run's key does not change then.
    """
    return str(dataset._doc.evaluations[key].id)


def _plain(value):
    return ", ".join(map(str, value)) if isinstance(value, list) else value


@lru_cache(maxsize=8)
def _results(identity: str, dataset: str, key: str) -> ReferringResults:
    return fo.load_dataset(dataset).load_evaluation_results(key, cache=False)


@lru_cache(maxsize=8)
def _attributes(identity: str, dataset: str, key: str, values: FieldValues) -> pd.DataFrame:
    table = _results(identity, dataset, key).table
    if not values:
        return attributes.attributes(table)
    further = attributes.attributes(table, dict(values))
    names = [name for name, _ in values if name in further]
    return _attributes(identity, dataset, key, ()).join(further[names], rsuffix=" (field)")


@lru_cache(maxsize=8)
def _slices(identity: str, dataset: str, key: str, values: FieldValues, rows: bytes) -> pd.DataFrame:
    chosen = np.frombuffer(rows, dtype=bool)
    return slices.find_slices(
        _results(identity, dataset, key).table[chosen], _attributes(identity, dataset, key, values)[chosen]
    )
