"""Views and fields that the project reads: their default names, and what a view must be."""

from __future__ import annotations

from collections.abc import Sequence

import fiftyone as fo
import fiftyone.core.fields as fof
import fiftyone.core.media as fom

from fiftyone_genseg import labels

EXPRESSION = "expression"


def check_view(view: fo.DatasetView | fo.Dataset) -> None:
    """Raise ValueError unless the view holds whole images of an ungrouped dataset."""
    if view.media_type not in (fom.IMAGE, None) or view._dataset.media_type == fom.GROUP:
        raise ValueError(
            f"referring segmentation needs a dataset of images, this one holds {view._dataset.media_type}; "
            "clone one slice of a grouped dataset, or the frames of a video, into a dataset of images"
        )
    if view._is_generated:
        raise ValueError("segment the images, not their patches or frames: clear the view first")


def check_expressions(
    view: fo.DatasetView | fo.Dataset, expressions: Sequence[str], expression_field: str | None
) -> None:
    """Raise ValueError unless there is exactly one, usable, source of expressions."""
    expressions = [expression for expression in expressions if expression.strip()]
    if bool(expressions) == bool(expression_field):
        raise ValueError("give expressions or the name of a sample field that holds one, not both and not neither")
    if expression_field:
        kind = view.get_field(expression_field)
        if not isinstance(kind, fo.StringField):
            raise ValueError(
                f"the expression field {expression_field!r} must be a string field of the samples; "
                f"there are: {', '.join(string_fields(view)) or 'none'}"
            )


def string_fields(view: fo.DatasetView | fo.Dataset | None) -> list[str]:
    """Names of the fields that can hold expressions."""
    if view is None:
        return []
    return [name for name in view.get_field_schema(ftype=fo.StringField) if name != "filepath"]


def holds_several(samples: fo.Dataset | fo.DatasetView, expression_field: str | None) -> bool:
    """Whether a sample has several expressions, not one."""
    return expression_field is None or isinstance(samples.get_field(expression_field), fof.ListField)


def default_ignore_field(samples: fo.Dataset | fo.DatasetView) -> str:
    """The field `ignore` where samples have such Detections, as those of benchmarks do; else "", for none."""
    return labels.IGNORE if labels.is_detections(samples, labels.IGNORE) else ""


def default_expression_field(samples: fo.Dataset | fo.DatasetView, gt_field: str) -> str | None:
    """Where the expressions are: the sample field `expression`, else None for the attribute
    `expression` of the ground truth.

    Raises:
        ValueError: when there is neither.
    """
    if samples.get_field(EXPRESSION) is not None:
        return EXPRESSION
    if samples.get_field(f"{gt_field}.detections.{EXPRESSION}") is not None:
        return None
    raise ValueError(
        f"there are no expressions: neither a sample field {EXPRESSION!r} nor an attribute {EXPRESSION!r} of the "
        f"detections in {gt_field!r}. Name the field with expression_field, or declare the attribute with "
        "dataset.add_dynamic_sample_fields()"
    )
