"""Columns of a `datasets.Dataset` as fields of samples, and back: what they are called and what they hold.

Strings, numbers, booleans, dates and lists of these travel both ways. Nothing else does.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import datasets
import fiftyone as fo
import fiftyone.core.fields as fof
import fiftyone.core.odm as foo

PREFIX = "column_"
# dtypes of `datasets.Value`, the field of such values, and the dtype that gives all of them back
_KINDS = (
    (r"(large_)?string", fo.StringField, "string"),
    (r"bool", fo.BooleanField, "bool"),
    (r"u?int(8|16|32)|int64", fo.IntField, "int64"),
    (r"float(16|32|64)", fo.FloatField, "float64"),
    (r"timestamp.*", fo.DateTimeField, "timestamp[ms]"),
    (r"date(32|64)", fo.DateField, "date32"),
)


def name(wanted: str, taken: Collection[str] = ()) -> str:
    """That name, or the nearest one that a field can have.

    FiftyOne takes no `.`, no `$` and no `_` at the start. What it calls something of its own, and what is taken, gets
    PREFIX, and a number where that is taken, too.
    """
    near = re.sub(r"[.$\0]", "_", wanted).lstrip("_")
    own = near in ("", "self") or hasattr(fo.Sample, near) or hasattr(foo.DatasetSampleDocument, near)
    if own or near in taken:
        near = f"{PREFIX}{near}".rstrip("_")
    numbered = (near if number == 1 else f"{near}_{number}" for number in range(1, len(taken) + 2))
    return next(found for found in numbered if found not in taken)


def to_field(feature: Any) -> fof.Field | None:
    """A field for the values of a column, see `to_value`; None when there is none."""
    if isinstance(feature, datasets.ClassLabel):
        return fo.StringField()
    if isinstance(feature, datasets.Value):
        return next((field() for dtype, field, _ in _KINDS if re.fullmatch(dtype, feature.dtype)), None)
    if isinstance(feature, datasets.List | datasets.LargeList):
        inner = to_field(feature.feature)
        return None if inner is None or isinstance(inner, fo.ListField) else fo.ListField(inner)
    return None


def to_value(feature: Any, value: Any) -> Any:
    """A column's value as its field holds it: the name of a class, and no empty places in lists."""
    if value is None:
        return None
    if isinstance(feature, datasets.ClassLabel):
        return feature.names[value] if 0 <= value < feature.num_classes else None
    if isinstance(feature, datasets.List | datasets.LargeList):
        return [item for item in (to_value(feature.feature, item) for item in value) if item is not None]
    return value


def to_feature(field: fof.Field) -> Any:
    """A column for the values of a field; None when there is none."""
    if isinstance(field, fo.ListField) and field.field is not None:
        inner = to_feature(field.field)
        return None if inner is None or isinstance(inner, datasets.List) else datasets.List(inner)
    return next((datasets.Value(dtype) for _, kind, dtype in _KINDS if type(field) is kind), None)
