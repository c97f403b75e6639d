"""Views and fields that the project reads: their names and requirements."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.core.fields as fof
import fiftyone.core.media as fom
import fiftyone.core.stages as fos
from genseg_hub.schema import normalize_expression

from fiftyone_genseg import labels

EXPRESSION, GROUND_TRUTH = "expression", "ground_truth"
KEPT, KEPT_EXPRESSIONS = "kept", "kept_expressions"  # answers that people kept, see `asking.corrections`
DESCRIPTIONS = {
    EXPRESSION: "The expression that refers to the sample's true masks.",
    GROUND_TRUTH: "True masks of the instances that the expression means; none if it refers to nothing.",
    "example_id": "Id of the referring example, by which predictions are matched.",
    "image_id": "Id of the image: samples with the same id share their image.",
    labels.IGNORE: "Pixels that no metric counts.",
    "kind": "The kind of the expression.",
}
# Stages that choose or order samples, or hide whole fields. Any other stage can change what a sample shows.
_CHOOSING = (
    fos.Exclude,
    fos.ExcludeBy,
    fos.ExcludeFields,
    fos.ExcludeGroups,
    fos.ExcludeGroupSlices,
    fos.Exists,
    fos.GeoNear,
    fos.GeoWithin,
    fos.GroupBy,
    fos.Limit,
    fos.Match,
    fos.MatchLabels,
    fos.MatchTags,
    fos.Select,
    fos.SelectBy,
    fos.SelectFields,
    fos.SelectGroups,
    fos.SelectGroupSlices,
    fos.Shuffle,
    fos.Skip,
    fos.SortBy,
    fos.SortBySimilarity,
    fos.Take,
)
RENDERED = "genseg_rendered"  # key of a dataset's info: its images are rendered shapes, which nano knows


def is_rendered(samples: fo.DatasetView | fo.Dataset) -> bool:
    """Return whether a dataset says that it holds this project's rendered shapes."""
    return bool(samples._dataset.info.get(RENDERED))


def check_view(view: fo.DatasetView | fo.Dataset) -> None:
    """Raise ValueError, with the remedy, unless a view holds whole images.

    Views of some slices of a grouped dataset are accepted, and dynamic groups of images (`group_by`), see `flat`.
    """
    if view._is_patches:
        raise ValueError(
            "this view holds patches, not whole images: clear the view, or take the images of the patches, "
            'dataset.select(patches.distinct("sample_id"))'
        )
    if view._is_frames:
        raise ValueError(
            "this view makes its frames from videos each time: take a dataset of them, "
            'frames.clone("a name", persistent=True)'
        )
    found = flat(view).media_type
    if found == fom.VIDEO:
        raise ValueError(
            "referring segmentation needs images, and these samples are videos: take their frames as a dataset, "
            'videos.to_frames(sample_frames=True).clone("a name", persistent=True)'
        )
    if found in (fom.GROUP, fom.MIXED):
        raise ValueError(_about_slices(view))
    if found == fom.UNKNOWN:
        raise ValueError(
            "FiftyOne recognizes images by their file extensions, and it does not know the extension of "
            f"{view.first().filepath!r}: rename the files to .png or .jpg, and add them again"
        )
    if found not in (fom.IMAGE, None):
        raise ValueError(f"referring segmentation needs images, and these samples are {found!r}; choose others")


def _about_slices(view: fo.DatasetView | fo.Dataset) -> str:
    """Return which slices of a grouped dataset may be chosen, and how."""
    dataset = view._dataset
    slices = [name for name, media in dataset.group_media_types.items() if media == fom.IMAGE]
    if not slices:
        return f"referring segmentation needs images, and {dataset.name!r} has no slice of them; choose another dataset"
    return (
        f"the samples of {dataset.name!r} are groups: choose a slice of images, "
        f"dataset.select_group_slices({slices[0]!r}), or in a terminal --group-slice {slices[0]}; "
        f"slices of images: {', '.join(slices)}"
    )


def flat(view: fo.DatasetView | fo.Dataset) -> fo.DatasetView | fo.Dataset:
    """Return a view in which each sample stands for itself.

    Dynamic groups show all their samples, not the first of each.
    """
    if not view._is_dynamic_groups:
        return view
    samples = view.flatten()
    if samples.media_type != fom.GROUP or view.group_field is not None:
        return samples
    # The groups are of chosen slices, and FiftyOne forgets which: it calls their samples groups.
    return every_image(view._dataset).select(samples.values("id"), ordered=True)


def every_image(dataset: fo.Dataset) -> fo.DatasetView | fo.Dataset:
    """Return all images of a dataset; grouped ones give all slices."""
    return dataset.select_group_slices(media_type=fom.IMAGE) if dataset.media_type == fom.GROUP else dataset


def only_chooses(view: fo.DatasetView | fo.Dataset) -> bool:
    """Return whether a view shows each of its samples as it is stored.

    Other views hide or change labels, such as one of a filter in the sidebar.
    """
    return isinstance(view, fo.Dataset) or all(map(_only_chooses, view._all_stages))


def _only_chooses(stage: fos.ViewStage) -> bool:
    if isinstance(stage, fos.Concat):
        return only_chooses(stage._view)
    return isinstance(stage, _CHOOSING) or (isinstance(stage, fos.Flatten) and not stage.stages)


def sample_ids(view: fo.DatasetView | fo.Dataset) -> list[str]:
    """Return the ids of the samples that a view of any kind is about.

    Patches give the ids of their samples, and groups give the ids of all their samples.
    """
    if view._is_patches:
        return view.values("sample_id")
    view = flat(view)
    return (view.select_group_slices(_allow_mixed=True) if view.media_type == fom.GROUP else view).values("id")


def check_expression_field(view: fo.DatasetView | fo.Dataset, name: str) -> None:
    """Raise ValueError unless a field holds an expression per sample, or a list."""
    if not _holds_strings(view.get_field(name)):
        raise ValueError(
            f"the expression field {name!r} must be a field of strings, or of lists of strings; "
            f"there are: {', '.join(expression_fields(view)) or 'none'}"
        )


def _holds_strings(field: fof.Field | None) -> bool:
    return isinstance(field.field if isinstance(field, fof.ListField) else field, fof.StringField)


def string_fields(view: fo.DatasetView | fo.Dataset | None) -> list[str]:
    """Return the names of the fields that can hold an expression per sample."""
    if view is None:
        return []
    return [name for name in view.get_field_schema(ftype=fof.StringField) if name != "filepath"]


def expression_fields(view: fo.DatasetView | fo.Dataset | None) -> list[str]:
    """Return the names of the fields that can hold expressions.

    First come fields with one expression per sample, then fields with a list.
    """
    lists = {} if view is None else view.get_field_schema(ftype=fof.ListField)
    return string_fields(view) + [name for name, field in lists.items() if _holds_strings(field) and name != "tags"]


def default_expressions(view: fo.DatasetView | fo.Dataset | None) -> str | None:
    """Return the field `expression` if it holds expressions, else None."""
    return EXPRESSION if EXPRESSION in expression_fields(view) else None


def expressions_of(value: Any, several: bool) -> list[str]:
    """Return the expressions of a sample, normalized and each once.

    A sample without its one expression has the empty expression, so that a run records that. Lists may be empty.

    Args:
        value: value of the field of expressions: a string or a list of strings, None for none.
        several: whether the field holds lists, see `holds_several`.
    """
    given = (value or ()) if several else (value or "",)
    normalized = dict.fromkeys(normalize_expression(text or "") for text in given)
    return [expression for expression in normalized if expression or not several]


def check_named(samples: fo.Dataset | fo.DatasetView, expression_field: str | None, gt_field: str) -> None:
    """Raise ValueError if fields of expressions and true masks do not fit together."""
    if has_kept(samples) and gt_field == KEPT and expression_field not in (None, KEPT_EXPRESSIONS):
        raise ValueError(
            f"the expressions of {KEPT!r} are in {KEPT_EXPRESSIONS!r}: choose that field instead of "
            f"{expression_field!r}, because an expression that nobody judged would count as one without a target"
        )
    listed = expression_field is not None and holds_several(samples, expression_field)
    if listed and samples.get_field(f"{gt_field}.detections.{EXPRESSION}") is None:
        raise ValueError(
            f"with several expressions per sample each detection in {gt_field!r} needs an attribute {EXPRESSION!r}; "
            "if all have one, all strings or all lists, declare it with dataset.add_dynamic_sample_fields()"
        )


def holds_several(samples: fo.Dataset | fo.DatasetView, expression_field: str | None) -> bool:
    """Return whether a sample has several expressions, not one."""
    return expression_field is None or isinstance(samples.get_field(expression_field), fof.ListField)


def mask_fields(samples: fo.Dataset | fo.DatasetView | None) -> list[str]:
    """Return the fields of Detections, without the boxes of answers."""
    if samples is None:
        return []
    found = samples.get_field_schema(embedded_doc_type=fo.Detections)
    boxes = {labels.boxes_field(name) for name in found if samples.get_field(labels.responses_field(name)) is not None}
    return [name for name in found if name not in boxes]


def truth_fields(samples: fo.Dataset | fo.DatasetView | None) -> list[str]:
    """Return the fields of masks that can be true; `ground_truth` first.

    Answers, kept answers and ignored pixels are not among them.
    """
    others = (KEPT, labels.IGNORE)
    masks = [name for name in mask_fields(samples) if name not in others]
    found = [name for name in masks if samples and samples.get_field(labels.responses_field(name)) is None]
    return sorted(found, key=lambda name: name != GROUND_TRUTH)


def has_kept(samples: fo.Dataset | fo.DatasetView | None) -> bool:
    """Return whether samples have the two fields of answers that people kept."""
    if samples is None or not labels.is_detections(samples, KEPT):
        return False
    listed = samples.get_field(KEPT_EXPRESSIONS)
    return isinstance(listed, fof.ListField) and _holds_strings(listed)


def count_kept(samples: fo.Dataset | fo.DatasetView | None) -> tuple[int, int]:
    """Return how many expressions were kept, and on how many samples."""
    if samples is None or not has_kept(samples):
        return 0, 0
    listed = flat(samples).exists(KEPT_EXPRESSIONS).values(KEPT_EXPRESSIONS)
    counts = [len(expressions_of(value, several=True)) for value in listed]
    return sum(counts), sum(map(bool, counts))


def default_ignore_field(samples: fo.Dataset | fo.DatasetView) -> str:
    """Return "ignore" if samples have Detections of that name, else "" for no field.

    Samples of ReasonSeg have such Detections.
    """
    return labels.IGNORE if labels.is_detections(samples, labels.IGNORE) else ""


def default_expression_field(samples: fo.Dataset | fo.DatasetView, gt_field: str) -> str | None:
    """Return the sample field `expression` if it exists, else None.

    None stands for the ground truth's attribute of that name. The expressions of kept answers are in a field of their
    own.

    Raises:
        ValueError: there is neither.
    """
    if gt_field == KEPT and has_kept(samples):
        return KEPT_EXPRESSIONS
    if samples.get_field(EXPRESSION) is not None:
        return EXPRESSION
    if samples.get_field(f"{gt_field}.detections.{EXPRESSION}") is not None:
        return None
    raise ValueError(
        f"there are no expressions: neither a sample field {EXPRESSION!r} nor an attribute {EXPRESSION!r} of the "
        f"detections in {gt_field!r}. Name the field with expression_field, or declare the attribute with "
        "dataset.add_dynamic_sample_fields()"
    )
