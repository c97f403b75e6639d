"""Views and fields that the project reads: their default names, and what a view must be."""

from __future__ import annotations

import fiftyone as fo
import fiftyone.core.fields as fof
import fiftyone.core.media as fom

from fiftyone_genseg import labels

EXPRESSION, GROUND_TRUTH = "expression", "ground_truth"
RENDERED = "genseg_rendered"  # key of a dataset's info: its images are rendered shapes, which nano knows


def is_rendered(samples: fo.DatasetView | fo.Dataset) -> bool:
    """Return whether the images are rendered shapes of this project, as far as their dataset says."""
    return bool(samples._dataset.info.get(RENDERED))


def check_view(view: fo.DatasetView | fo.Dataset) -> None:
    """Raise ValueError unless the view holds whole images of an ungrouped dataset."""
    if view.media_type not in (fom.IMAGE, None) or view._dataset.media_type == fom.GROUP:
        raise ValueError(
            f"referring segmentation needs a dataset of images, this one holds {view._dataset.media_type}; "
            "clone one slice of a grouped dataset, or the frames of a video, into a dataset of images"
        )
    if view._is_generated:
        raise ValueError("segment the images, not their patches or frames: clear the view first")


def check_expression_field(view: fo.DatasetView | fo.Dataset, name: str) -> None:
    """Raise ValueError unless a field holds one expression per sample."""
    if not isinstance(view.get_field(name), fo.StringField):
        raise ValueError(
            f"the expression field {name!r} must be a string field of the samples; "
            f"there are: {', '.join(string_fields(view)) or 'none'}"
        )


def string_fields(view: fo.DatasetView | fo.Dataset | None) -> list[str]:
    """Return the names of the fields that can hold an expression per sample."""
    if view is None:
        return []
    return [name for name in view.get_field_schema(ftype=fo.StringField) if name != "filepath"]


def default_expressions(view: fo.DatasetView | fo.Dataset | None) -> str | None:
    """Return the field `expression` where it holds one expression per sample, else None."""
    return EXPRESSION if EXPRESSION in string_fields(view) else None


def holds_several(samples: fo.Dataset | fo.DatasetView, expression_field: str | None) -> bool:
    """Return whether a sample has several expressions, not one."""
    return expression_field is None or isinstance(samples.get_field(expression_field), fof.ListField)


def default_ignore_field(samples: fo.Dataset | fo.DatasetView) -> str:
    """Return "ignore" where samples have Detections of that name, as benchmarks do; else "", for no such field."""
    return labels.IGNORE if labels.is_detections(samples, labels.IGNORE) else ""


def default_expression_field(samples: fo.Dataset | fo.DatasetView, gt_field: str) -> str | None:
    """Return the sample field `expression`, or None for the ground truth's attribute of that name.

    Raises:
        ValueError: there is neither.
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
