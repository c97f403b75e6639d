"""Samples as referring examples, and as a training set on disk."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import datasets
import fiftyone as fo
from fiftyone.core.sample import get_default_sample_fields
from genseg_hub.errors import MaskError
from genseg_hub.images import load_image
from genseg_hub.referring_dataset import FEATURES, RLE, to_dataset
from genseg_hub.schema import ReferringExample, encode_mask, normalize_expression

from fiftyone_genseg import labels
from fiftyone_genseg.datasets import columns
from fiftyone_genseg.fields import EXPRESSION, GROUND_TRUTH, check_named, check_view, flat

UNFINISHED = ".unfinished"


def export(
    view: fo.Dataset | fo.DatasetView,
    folder: Path,
    gt_field: str = GROUND_TRUTH,
    expression_field: str | None = EXPRESSION,
    pairs: Collection[tuple[str, str]] | None = None,
) -> int:
    """Save the referring examples of a view with `datasets.Dataset.save_to_disk`.

    These become columns, too: tags, the ignored pixels in `ignore`, and each sample field of strings, numbers,
    booleans, dates or lists of these. `importing` makes the same samples of such columns. Fields of evaluation runs
    are left out because they are no facts about the example.

    Args:
        view: images, or the dataset itself.
        folder: a free folder (see `is_free`). The files appear in it when all of them are written.
        gt_field: Detections with masks.
        expression_field: sample field with a string or a list of strings; None for the attribute `expression` of the
            ground truth.
        pairs: (sample id, expression) to keep; None for all.

    Returns:
        The number of examples.

    Raises:
        ValueError: the view has no expressions, or holds patches.
        OSError: an image or mask cannot be read.
    """
    check_view(view)
    check_named(view, expression_field, gt_field)
    view = flat(view)
    carried = _carried(view, expression_field)
    found = list(examples(view, gt_field, expression_field, pairs, carried))
    if not found:
        raise ValueError("there are no referring examples to export: no sample has an expression")
    schema = view.get_field_schema()
    features = datasets.Features({column: columns.to_feature(schema[field]) for field, column in carried.items()})
    if labels.is_detections(view, labels.IGNORE):
        features[labels.IGNORE] = datasets.List(RLE)
    unfinished = folder / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)  # files of an export that was killed
    to_dataset(found, features).save_to_disk(unfinished)
    for file in sorted(unfinished.iterdir()):  # state.json comes last; without it the folder is no dataset
        file.rename(folder / file.name)
    unfinished.rmdir()
    return len(found)


def is_free(folder: Path) -> bool:
    """Return whether a folder can take an export.

    It can if it is new or empty, or holds only the remains of an export that was killed.
    """
    return not folder.exists() or (folder.is_dir() and all(file.name == UNFINISHED for file in folder.iterdir()))


def examples(
    view: fo.Dataset | fo.DatasetView,
    gt_field: str,
    expression_field: str | None,
    pairs: Collection[tuple[str, str]] | None = None,
    carried: Mapping[str, str] | None = None,
) -> Iterator[ReferringExample]:
    """Yield the referring examples of a view, with true masks and ignored pixels.

    Expressions are normalized (see `normalize_expression`), and empty expressions are left out. A sample with a single
    expression gives the example its `example_id`. The sample gives its `image_id` if all samples with this `image_id`
    have the same file.

    Args:
        view: images, or the dataset itself.
        gt_field: Detections with masks.
        expression_field: see `export`.
        pairs: (sample id, expression) to keep; None for all. The expressions need not be normalized.
        carried: sample field -> name of the attribute that its value becomes.

    Raises:
        ValueError: a Detection has no mask.
        OSError: an image or mask cannot be read.
    """
    view = flat(view)
    if pairs is not None:
        pairs = {(sample_id, normalize_expression(expression)) for sample_id, expression in pairs}
        view = view.select(sorted({sample_id for sample_id, _ in pairs}))
    has_ids = isinstance(view.get_field("example_id"), fo.StringField)
    image_ids = _image_ids(view)
    ignores = labels.is_detections(view, labels.IGNORE)
    for sample in view.iter_samples():
        truth = sample[gt_field] or fo.Detections()
        asked = sample[expression_field] if expression_field else _named(truth)
        single = isinstance(asked, str)
        texts = [asked] if isinstance(asked, str) else asked or []
        expressions = dict.fromkeys(normalize_expression(text) for text in texts)
        size = load_image(sample.filepath).size
        ignored = labels.union_mask(sample[labels.IGNORE], size) if ignores and sample[labels.IGNORE] else None
        for expression in filter(None, expressions):
            if pairs is None or (sample.id, expression) in pairs:
                mine = truth if single else labels.of_expression(truth, expression)
                masks = tuple(encode_mask(mask) for mask in labels.instance_masks(mine, size) if mask.any())
                if mine.detections and not masks:
                    raise MaskError(
                        f"the true masks of {expression!r} on sample {sample.id} are empty; an expression without a "
                        "target has no mask at all, so mend them or remove the detections"
                    )
                yield ReferringExample(
                    sample.filepath,
                    expression,
                    masks,
                    (sample["example_id"] if single and has_ids else None) or f"{sample.id}/{expression}",
                    image_ids.get(sample.id, sample.filepath),
                    {name: sample[field] for field, name in (carried or {}).items()},
                    encode_mask(ignored) if ignored is not None and ignored.any() else None,
                )


def _image_ids(view: fo.Dataset | fo.DatasetView) -> dict[str, str]:
    """Return sample id -> `image_id`, without each `image_id` that several files have.

    Examples that share an `image_id` share the image.
    """
    if not isinstance(view.get_field("image_id"), fo.StringField):
        return {}
    rows = [*zip(*view.values(["id", "image_id", "filepath"]), strict=True)]
    files = Counter(image_id for image_id, _ in {row[1:] for row in rows})
    return {sample_id: image_id for sample_id, image_id, _ in rows if image_id and files[image_id] == 1}


def _carried(view: fo.Dataset | fo.DatasetView, expression_field: str | None) -> dict[str, str]:
    """Return field -> column for the facts about a sample that can be columns."""
    without = {*get_default_sample_fields(), *_fields_of_runs(view._dataset), expression_field}
    if view.distinct("tags"):
        without.remove("tags")
    taken = {*FEATURES, labels.IGNORE}
    carried: dict[str, str] = {}
    for name, field in view.get_field_schema().items():
        is_id = name in ("example_id", "image_id") and isinstance(field, fo.StringField)
        if name not in without and not is_id and columns.to_feature(field) is not None:
            carried[name] = columns.name(name, taken | {*carried.values()}) if name in taken else name
    return carried


def _fields_of_runs(dataset: fo.Dataset) -> set[str]:
    found: set[str] = set()
    for key in dataset.list_evaluations():
        try:
            found |= {*dataset.get_evaluation_info(key).config.build().get_fields(dataset, key)}
        except ValueError:  # the labels of the run were deleted
            continue
    return found


def _named(truth: fo.Detections) -> list[str]:
    found: list[str] = []
    for detection in truth.detections:
        value = labels.expression_of(detection)
        found += [value] if isinstance(value, str) else value or []
    return found
