"""Samples as referring examples, and as a training set on disk."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import fiftyone as fo
import numpy as np
from fiftyone.core.sample import get_default_sample_fields
from genseg_hub.errors import MaskError
from genseg_hub.images import image_size, load_image
from genseg_hub.referring_dataset import FEATURES, IMAGES, RLE, save, to_dataset
from genseg_hub.schema import ReferringExample, Rle, encode_mask, normalize_expression
from genseg_hub.whole import disk_full_in_words

from fiftyone_genseg import labels
from fiftyone_genseg.datasets import columns
from fiftyone_genseg.datasets.unusable import HIDDEN, IMAGE, MASK, Unusable
from fiftyone_genseg.fields import (
    EXPRESSION,
    GROUND_TRUTH,
    KEPT_EXPRESSIONS,
    check_named,
    check_view,
    every_image,
    flat,
    only_chooses,
)
from fiftyone_genseg.stored_labels import StoredLabels, documents, from_document, read_meanings, value_at

UNFINISHED = ".unfinished"
_CHUNK = 1000  # examples that become rows at once
_SMALL = (1, 1)  # the size at which an image is decoded to see that it is whole
_log = logging.getLogger(__name__)


def export(
    view: fo.Dataset | fo.DatasetView,
    folder: Path,
    gt_field: str = GROUND_TRUTH,
    expression_field: str | None = EXPRESSION,
    pairs: Collection[tuple[str, str]] | None = None,
    unusable: Unusable | None = None,
) -> int:
    """Save the referring examples of a view as a folder for `datasets.load_from_disk`.

    The image file of each sample is copied once into the folder `images`, and rows name it by its path. If the folder
    is moved, `genseg_hub.referring_dataset.load_examples` and every training still find the images. `load_from_disk`
    alone looks for them at the first place.

    These become columns, too: tags, the ignored pixels in `ignore`, and each sample field of strings, numbers,
    booleans, dates or lists of them. `importing` makes the same samples of such columns. Fields of evaluation runs are
    left out because they are no facts about the example.

    Args:
        view: images, or the dataset itself.
        folder: a free folder (see `is_free`). The files appear in it when all of them are written.
        gt_field: Detections with masks.
        expression_field: sample field with a string or a list of strings; None for the attribute `expression` of the
            ground truth.
        pairs: (sample id, expression) to keep; None for all.
        unusable: receives the examples left out, see `examples`.

    Returns:
        The number of examples.

    Raises:
        ValueError: the view has no expressions, or holds patches, or more than half of the examples cannot be used.
        DiskFullError: the disk is full; the folder is as it was.
    """
    check_view(view)
    check_named(view, expression_field, gt_field)
    view = flat(view)
    carried = _carried(view, expression_field)
    schema = view.get_field_schema()
    features = datasets.Features({column: columns.to_feature(schema[field]) for field, column in carried.items()})
    if labels.is_detections(view, labels.IGNORE):
        features[labels.IGNORE] = datasets.List(RLE)
    unusable = Unusable() if unusable is None else unusable
    unfinished, is_new = folder / UNFINISHED, not folder.exists()
    shutil.rmtree(unfinished, ignore_errors=True)  # files of an export that was killed
    with disk_full_in_words(f"nothing was exported to {folder}"):
        try:
            (unfinished / IMAGES).mkdir(parents=True)
            found = examples(view, gt_field, expression_field, pairs, carried, unusable)
            found = _with_copies(found, unfinished / IMAGES, folder / IMAGES)
            tables = []
            while chunk := list(itertools.islice(found, _CHUNK)):
                tables.append(to_dataset(chunk, features))
            if not tables:
                why = unusable.report(unusable.total()).rstrip(".") or "no sample has an expression"
                raise ValueError(f"there are no referring examples to export: {why}; choose another view")
            made = datasets.concatenate_datasets(tables)
            save(made, unfinished)
        except BaseException:
            shutil.rmtree(folder if is_new else unfinished, ignore_errors=True)
            raise
        for file in sorted(unfinished.iterdir()):  # state.json comes last; without it the folder is no dataset
            file.rename(folder / file.name)
        unfinished.rmdir()
    return len(made)


def _with_copies(found: Iterable[ReferringExample], images: Path, later: Path) -> Iterator[ReferringExample]:
    """Copy each image file once, and yield the examples with the paths of the copies.

    Args:
        found: examples whose images are paths.
        images: folder for the copies.
        later: place of this folder when the export is whole.
    """
    names: dict[str, str] = {}  # file -> name of its copy
    for example in found:
        file = str(example.image)
        if file not in names:
            names[file] = f"{len(names):07}{Path(file).suffix}"
            shutil.copyfile(file, images / names[file])
        yield dataclasses.replace(example, image=str(later.absolute() / names[file]))


def is_free(folder: Path) -> bool:
    """Return whether a folder can take an export.

    The folder must be new or empty, or hold only the remains of a killed export.
    """
    return not folder.exists() or (folder.is_dir() and all(file.name == UNFINISHED for file in folder.iterdir()))


def examples(
    view: fo.Dataset | fo.DatasetView,
    gt_field: str,
    expression_field: str | None,
    pairs: Collection[tuple[str, str]] | None = None,
    carried: Mapping[str, str] | None = None,
    unusable: Unusable | None = None,
) -> Iterator[ReferringExample]:
    """Yield the referring examples of a view, with true masks and ignored pixels.

    Expressions are normalized (see `normalize_expression`), and empty expressions are left out. A sample with a single
    expression gives the example its `example_id`. The sample gives its `image_id` if all samples with this `image_id`
    have the same file. Examples with an image or a mask that cannot be used are left out, counted and logged. So are
    expressions whose true masks the view hides, because they would look like expressions that refer to nothing.

    Args:
        view: images, or the dataset itself.
        gt_field: Detections with masks.
        expression_field: see `export`.
        pairs: (sample id, expression) to keep; None for all. The expressions need not be normalized.
        carried: sample field -> name of the attribute that its value becomes.
        unusable: receives the examples left out.

    Raises:
        ValueError: the ground truth holds no Detections; or, after the last example, more than half of them cannot be
            used.
    """
    if not labels.is_detections(view, gt_field):
        raise ValueError(f"The ground truth field {gt_field!r} holds no Detections: choose another.")
    view = flat(view)
    unusable = Unusable() if unusable is None else unusable
    if pairs is not None:
        pairs = {(sample_id, normalize_expression(expression)) for sample_id, expression in pairs}
        view = view.select(sorted({sample_id for sample_id, _ in pairs}))
    has_ids = isinstance(view.get_field("example_id"), fo.StringField)
    image_ids = _image_ids(view)
    stored = {} if only_chooses(view) else _stored_truth(view, gt_field)
    ignores = labels.is_detections(view, labels.IGNORE)
    used = 0
    sizes: dict[str, tuple[int, int] | Exception] = {}  # file -> its size, or its fault
    read = {gt_field, *(carried or ()), *filter(None, (expression_field,))}
    read |= {labels.IGNORE} if ignores else set()
    read |= {"example_id"} if has_ids else set()
    schema = view.get_field_schema()
    for sample in documents(view.select_fields(sorted(read))):  # other labels, with their masks, stay unread
        sample_id, file, truth = str(sample["_id"]), sample["filepath"], from_document(value_at(sample, gt_field))
        asked = value_at(sample, expression_field) if expression_field else _named(truth)
        single = isinstance(asked, str)
        texts = [asked] if isinstance(asked, str) else asked or []
        expressions = [text for text in dict.fromkeys(map(normalize_expression, texts)) if text]
        if pairs is not None:
            expressions = [expression for expression in expressions if (sample_id, expression) in pairs]
        if not expressions:
            continue
        why = IMAGE
        try:
            if file not in sizes:
                sizes[file] = _size(file)
            size = sizes[file]
            if isinstance(size, Exception):
                raise size
            why = MASK
            ignored = _ignored(from_document(sample.get(labels.IGNORE)), size) if ignores else None
        except Exception as error:  # noqa: BLE001 - one bad sample is no reason to stop
            unusable.note(why, f"{expressions[0]!r} on sample {sample_id}, {error}", len(expressions))
            continue
        for expression in expressions:
            if truth.hides(stored.get(sample_id), expression, several=not single):
                unusable.note(HIDDEN, f"{expression!r} on sample {sample_id}")
                continue
            try:
                masks = _masks(truth, truth.meant(expression, several=not single), size)
            except Exception as error:  # noqa: BLE001 - as above
                unusable.note(MASK, f"{expression!r} on sample {sample_id}, {error}")
                continue
            used += 1
            yield ReferringExample(
                file,
                expression,
                masks,
                (sample.get("example_id") if single and has_ids else None) or f"{sample_id}/{expression}",
                image_ids.get(sample_id, file),
                {name: _value(schema[field], sample.get(field)) for field, name in (carried or {}).items()},
                ignored,
            )
    found = used + unusable.total()
    unusable.check(found)
    if unusable:
        _log.warning(unusable.report(found))


def _stored_truth(view: fo.DatasetView, gt_field: str) -> dict[str, StoredLabels]:
    """Return sample id -> the true labels as they are stored, without their masks."""
    ids = list(dict.fromkeys(view.values("id")))
    return dict(zip(ids, read_meanings(every_image(view._dataset).select(ids, ordered=True), gt_field), strict=True))


def _size(file: str) -> tuple[int, int] | Exception:
    """Return the (width, height) of an image that can be decoded, or the fault."""
    try:
        load_image(file, at_least=_SMALL)
        return image_size(file)
    except Exception as error:  # noqa: BLE001 - noted on the examples
        return error.with_traceback(None)


def _masks(truth: StoredLabels, ids: list[str], size: tuple[int, int]) -> tuple[Rle, ...]:
    """Return the true masks of an expression; none for no-target.

    Raises:
        MaskError: a mask cannot be read, or all of them are empty.
    """
    found, _ = truth.cutouts(ids, size)
    if ids and not found:
        raise MaskError(
            "its true masks are empty; an expression without a target has no mask at all, so mend them or remove the "
            "detections"
        )
    return tuple(encode_mask(part.whole(size)) for part in found.values())


def _ignored(stored: StoredLabels, size: tuple[int, int]) -> Rle | None:
    """Return the union of the ignored pixels; None without any."""
    found, _ = stored.cutouts(stored.ids, size)
    union = np.zeros((size[1], size[0]), dtype=bool)
    for part in found.values():
        x1, y1, x2, y2 = part.window
        union[y1:y2, x1:x2] |= part.mask
    return encode_mask(union) if found else None


def _value(field: fo.Field, stored: Any) -> Any:
    """Return a field's value as FiftyOne gives it."""
    return None if stored is None else field.to_python(stored)


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
    without.add(KEPT_EXPRESSIONS)  # without its masks, each expression would be one that refers to nothing
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


def _named(truth: StoredLabels) -> list[str]:
    found: list[str] = []
    for value in truth.expression.values():
        found += [value] if isinstance(value, str) else value or []
    return found
