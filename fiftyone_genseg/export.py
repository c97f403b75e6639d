"""Samples as referring examples, and as a training set on disk."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import fiftyone as fo
from genseg_hub.images import load_image
from genseg_hub.referring_dataset import to_dataset
from genseg_hub.schema import ReferringExample, encode_mask

from fiftyone_genseg import labels
from fiftyone_genseg.segmentation import check_view


def export(
    view: fo.Dataset | fo.DatasetView,
    folder: Path,
    gt_field: str = "ground_truth",
    expression_field: str | None = "expression",
    pairs: Collection[tuple[str, str]] | None = None,
) -> int:
    """Save the referring examples of a view with `datasets.Dataset.save_to_disk` and return how many.

    Args:
        folder: new or empty.
        expression_field: sample field with a string or a list of strings; None for the attribute
            `expression` of the ground truth.
        pairs: (sample id, expression) to keep; None for all.

    Raises:
        ValueError: for a view without expressions, or one of patches.
        OSError: for an image or mask that cannot be read.
    """
    check_view(view)
    found = list(examples(view, gt_field, expression_field, pairs))
    if not found:
        raise ValueError("there are no referring examples to export: no sample has an expression")
    to_dataset(found).save_to_disk(folder)
    return len(found)


def examples(
    view: fo.Dataset | fo.DatasetView,
    gt_field: str,
    expression_field: str | None,
    pairs: Collection[tuple[str, str]] | None = None,
) -> Iterator[ReferringExample]:
    """The referring examples of a view, with the true masks of each expression."""
    if pairs is not None:
        view = view.select(sorted({sample_id for sample_id, _ in pairs}))
    for sample in view.iter_samples():
        truth = sample[gt_field] or fo.Detections()
        asked = sample[expression_field] if expression_field else _named(truth)
        single = isinstance(asked, str)
        expressions: list[str] = [asked] if isinstance(asked, str) else list(dict.fromkeys(asked or []))
        size = load_image(sample.filepath).size
        for expression in filter(None, expressions):
            if pairs is None or (sample.id, expression) in pairs:
                mine = truth if single else labels.of_expression(truth, expression)
                masks = tuple(encode_mask(mask) for mask in labels.instance_masks(mine, size) if mask.any())
                yield ReferringExample(sample.filepath, expression, masks, f"{sample.id}/{expression}", sample.filepath)


def _named(truth: fo.Detections) -> list[str]:
    found: list[str] = []
    for detection in truth.detections:
        value = labels.expression_of(detection)
        found += [value] if isinstance(value, str) else value or []
    return found
