"""Columns of a `datasets.Dataset` as fields of samples, and back.

Strings, numbers, booleans, dates and lists of them travel both ways. Nothing else does.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import datasets
import fiftyone as fo
import fiftyone.core.fields as fof
import fiftyone.core.odm as foo
from genseg_hub.referring_dataset import FEATURES

from fiftyone_genseg import labels
from fiftyone_genseg.fields import GROUND_TRUTH

PREFIX = "column_"
_TAGS = "tags"
# (dtypes of `datasets.Value`, the field that holds such values, the dtype that holds every value of the field)
_KINDS = (
    (r"(large_)?string", fo.StringField, "string"),
    (r"bool", fo.BooleanField, "bool"),
    (r"u?int(8|16|32)|int64", fo.IntField, "int64"),
    (r"float(16|32|64)", fo.FloatField, "float64"),
    (r"timestamp.*", fo.DateTimeField, "timestamp[ms]"),
    (r"date(32|64)", fo.DateField, "date32"),
)


def name(wanted: str, taken: Collection[str] = ()) -> str:
    """Return the wanted name, or the nearest name that a field can have.

    FiftyOne allows neither `.` nor `$` in a name, nor `_` at its start. A name that FiftyOne uses itself or that is
    taken gets PREFIX. If the prefixed name is taken as well, it gets a number.

    Args:
        wanted: name of a column.
        taken: names that other fields have.
    """
    near = re.sub(r"[.$\0]", "_", wanted).lstrip("_")
    own = near in ("", "self") or hasattr(fo.Sample, near) or hasattr(foo.DatasetSampleDocument, near)
    if own or near in taken:
        near = f"{PREFIX}{near}".rstrip("_")
    numbered = (near if number == 1 else f"{near}_{number}" for number in range(1, len(taken) + 2))
    return next(found for found in numbered if found not in taken)


def to_field(feature: Any) -> fof.Field | None:
    """Return a field that holds the values of a column (see `to_value`), or None."""
    if isinstance(feature, datasets.ClassLabel):
        return fo.StringField()
    if isinstance(feature, datasets.Value):
        return next((field() for dtype, field, _ in _KINDS if re.fullmatch(dtype, feature.dtype)), None)
    if isinstance(feature, datasets.List | datasets.LargeList):
        inner = to_field(feature.feature)
        return None if inner is None or isinstance(inner, fo.ListField) else fo.ListField(inner)
    return None


def to_value(feature: Any, value: Any) -> Any:
    """Return a column's value as its field holds it.

    Class labels become names, and lists lose their nulls. A class number that has no name becomes None.

    Args:
        feature: type of the column.
        value: a value of the column.
    """
    if value is None:
        return None
    if isinstance(feature, datasets.ClassLabel):
        return feature.names[value] if 0 <= value < feature.num_classes else None
    if isinstance(feature, datasets.List | datasets.LargeList):
        return [item for item in (to_value(feature.feature, item) for item in value) if item is not None]
    return value


def to_feature(field: fof.Field) -> Any:
    """Return a column type that holds the values of a field, or None."""
    if isinstance(field, fo.ListField) and field.field is not None:
        inner = to_feature(field.field)
        return None if inner is None or isinstance(inner, datasets.List) else datasets.List(inner)
    return next((datasets.Value(dtype) for _, kind, dtype in _KINDS if type(field) is kind), None)


def to_fields(features: datasets.Features) -> tuple[dict[str, str], list[str]]:
    """Return column -> field, and the columns whose values no field can hold.

    The columns of FEATURES are not among them.
    """
    fields: dict[str, str] = {}
    left_out = []
    taken = {*FEATURES, GROUND_TRUTH, labels.IGNORE}
    others = [column for column in features if column not in FEATURES]
    for column in sorted(others, key=lambda column: name(column, taken) != column):  # kept names first
        if _has_meaning(column, features[column]):
            fields[column] = column
        elif to_field(features[column]) is None:
            left_out.append(column)
        else:
            fields[column] = name(column, taken | {*fields.values()})
    return fields, left_out


def _has_meaning(column: str, feature: Any) -> bool:
    """Return whether the name of a column has a meaning for FiftyOne or this package."""
    if column == _TAGS:
        return feature == datasets.List(datasets.Value("string"))
    return column == labels.IGNORE and isinstance(getattr(feature, "feature", None), dict)
