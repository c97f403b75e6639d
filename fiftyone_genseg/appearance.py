"""Declare fields, and decide how the App describes, groups and colours them.

Attributes that a run wrote become read-only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import fiftyone as fo

_BY_EXPRESSION = "expression"


def declare(dataset: fo.Dataset, wanted: Mapping[str, fo.Field]) -> None:
    """Add fields to a dataset's schema. Fields that are there stay as they are.

    `Dataset.add_sample_field` reloads the whole dataset for each field. Here it is reloaded once for whole fields, and
    once for attributes.

    Args:
        dataset: dataset that gets the fields.
        wanted: path of a field, or of an attribute of labels or responses -> the field, see
            `fiftyone.core.odm.create_field`.

    Raises:
        ValueError: a field is there with another type.
    """
    whole = {path: field for path, field in wanted.items() if "." not in path}
    for some in (whole, {path: field for path, field in wanted.items() if path not in whole}):
        if some:
            dataset._merge_sample_field_schema(some)


def describe(dataset: fo.Dataset, descriptions: Mapping[str, str]) -> None:
    """Give fields their descriptions, which the sidebar shows.

    A description that a person wrote stays.

    Args:
        dataset: dataset that has the fields, or some of them.
        descriptions: path of a field -> its description.
    """
    for path, words in descriptions.items():
        field = dataset.get_field(path)
        if field is not None and not field.description:
            field.description = words
            field.save()


def protect(dataset: fo.Dataset, paths: Sequence[str]) -> None:
    """Make attributes of labels and responses read-only.

    Their descriptions are set before, because they cannot change afterwards.

    Args:
        dataset: dataset that has them.
        paths: paths of attributes, such as `genseg.detections.expression`; never of whole fields.
    """
    for path in paths:
        field = dataset.get_field(path)
        if not field.read_only:
            field.read_only = True
            field.save()


def group(dataset: fo.Dataset, name: str, fields: Sequence[str]) -> None:
    """Put fields into a new group of the sidebar.

    A group of that name that a person made stays as it is.
    """
    if not dataset._has_sidebar_group(name):
        dataset._add_paths_to_sidebar_group(list(fields), name, after_group="labels")


def colour_by_expression(dataset: fo.Dataset, fields: Sequence[str]) -> None:
    """Let the App colour labels by their expression.

    A color scheme that a person chose stays as it is.

    Args:
        dataset: dataset that has the fields.
        fields: hold labels with the attribute `expression`.
    """
    scheme = dataset.app_config.color_scheme
    if scheme is None:
        scheme = fo.ColorScheme(color_by="value", fields=[])
    elif scheme.color_by != "value" or not all(_is_ours(entry) for entry in scheme.fields or ()):
        return
    known = {entry["path"] for entry in scheme.fields}
    scheme.fields += [{"path": name, "colorByAttribute": _BY_EXPRESSION} for name in fields if name not in known]
    dataset.app_config.color_scheme = scheme
    dataset.save()


def _is_ours(entry: Mapping[str, object]) -> bool:
    """Return whether `colour_by_expression` made a field's part of a color scheme."""
    return entry.keys() == {"path", "colorByAttribute"} and entry["colorByAttribute"] == _BY_EXPRESSION
