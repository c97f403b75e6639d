"""Referring examples as a `datasets.Dataset`, to save, load, push and train on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets import config
from datasets.fingerprint import generate_random_fingerprint
from PIL import Image

from genseg_hub.checkpoints.names import is_hub_id
from genseg_hub.checkpoints.network import limit_requests
from genseg_hub.errors import MaskError
from genseg_hub.images import to_png
from genseg_hub.masks import normal_rle
from genseg_hub.schema import ReferringExample, Rle

IGNORE, CATEGORY = "ignore", "category"
IMAGES = "images"  # folder inside a dataset's folder, for image files that rows name by their path
_MASKS = ("masks", IGNORE)
_BATCH = 1000
RLE = {"size": datasets.List(datasets.Value("int32"), 2), "counts": datasets.Value("string")}
_TEXT = datasets.Value("string")
# Masks are COCO RLE. Boxes are not stored, because they follow from the masks.
FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "expression": _TEXT,
        "masks": datasets.List(RLE),
        "example_id": _TEXT,
        "image_id": _TEXT,
    }
)


def to_dataset(examples: Iterable[ReferringExample], attributes: datasets.Features | None = None) -> datasets.Dataset:
    """Return a dataset of examples, with their images.

    Args:
        examples: examples with masks.
        attributes: columns for attributes of the examples; None for no such columns.

    Raises:
        ValueError: an example has no ground truth.
    """
    attributes = attributes or datasets.Features()
    return datasets.Dataset.from_list(
        list(to_rows(examples, attributes)), features=datasets.Features(FEATURES | attributes)
    )


def to_rows(examples: Iterable[ReferringExample], attributes: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the rows of `FEATURES`, with the named attributes.

    An image array is encoded once for all neighbours that share it.

    Args:
        examples: examples with masks; read lazily.
        attributes: names of further columns.

    Raises:
        ValueError: an example has no ground truth.
    """
    names = list(attributes)
    last: np.ndarray | None = None
    encoded = b""
    for example in examples:
        if example.masks is None:
            raise ValueError(
                f"the example {example.example_id!r} has no ground truth; give masks, or an empty list for no-target"
            )
        image: Any = example.image
        if isinstance(image, np.ndarray):
            if image is not last:
                last, encoded = image, to_png(Image.fromarray(image))
            image = {"bytes": encoded, "path": None}
        elif isinstance(image, bytes):
            image = {"bytes": image, "path": None}
        known = {**example.attributes, IGNORE: [example.ignore] if example.ignore else []}
        yield {
            "image": str(image) if isinstance(image, Path) else image,
            "expression": example.expression,
            "masks": [_readable(rle) for rle in example.masks],
            "example_id": example.example_id,
            "image_id": example.image_id,
            **{name: known.get(name) for name in names},
        }


def from_dataset(dataset: datasets.Dataset) -> Iterator[ReferringExample]:
    """Yield the examples of a dataset with `FEATURES`.

    Images are paths or contents of files. Further columns become attributes of the examples. `ignore` (a list of RLE)
    becomes `ReferringExample.ignore`.

    Args:
        dataset: read lazily.

    Raises:
        ValueError: a column is missing.
    """
    check_columns(dataset)
    for row in dataset.cast_column("image", datasets.Image(decode=False)):
        stored = row.pop("image")
        image = stored["path"] if stored["bytes"] is None else stored["bytes"]
        masks, ignore = tuple(map(_readable, row.pop("masks"))), row.pop(IGNORE, None)
        known = {name: row.pop(name) for name in ("expression", "example_id", "image_id")}
        ignored = _readable(ignore[0]) if ignore else None
        yield ReferringExample(image, masks=masks, attributes=row, ignore=ignored, **known)


def load_examples(source: str, check_rows: bool = True) -> datasets.Dataset:
    """Load a dataset with `FEATURES` and perhaps further columns.

    Numbers in ids and in `category` become text, and class labels become their names.

    Args:
        source: a folder that `Dataset.save_to_disk` wrote, or a dataset on the Hub: `owner/name` or `owner/name:SPLIT`,
            by default the split `train`.
        check_rows: False for a caller that itself checks every row.

    Raises:
        ValueError: the source is neither, has no rows, or holds other data than referring examples.
    """
    found = _find(source)
    if isinstance(found, datasets.DatasetDict):
        splits = list(found)
        raise ValueError(f"{source} holds the splits {', '.join(splits)}; name the folder of one, {source}/{splits[0]}")
    try:
        found = _conformed(found)
        if check_rows:
            names = [name for name in (*FEATURES, IGNORE) if name in found.features and name != "image"]
            for name in _check_rows(found.select_columns(names)):  # the images are not copied
                column = _in_normal_form(found.select_columns([name]), name)
                found = datasets.concatenate_datasets([found.remove_columns([name]), column], axis=1)
        return found
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def save(dataset: datasets.Dataset, folder: Path) -> None:
    """Save a dataset as `Dataset.save_to_disk` does, but keep the paths of images.

    `save_to_disk` would copy an image's file into each row with this image. Here the files stay in their places.

    Args:
        dataset: dataset to save.
        folder: an empty folder; `load_examples` and `datasets.load_from_disk` read it.
    """
    schema, file = dataset.features.arrow_schema, folder / "data-00000-of-00001.arrow"
    with pa.OSFile(str(file), "wb") as stream, pa.ipc.new_stream(stream, schema) as writer:
        for rows in dataset.with_format("arrow").iter(_BATCH):
            writer.write_table(rows.cast(schema))
    info = datasets.DatasetInfo(features=dataset.features)
    (folder / config.DATASET_INFO_FILENAME).write_text(json.dumps(asdict(info)), encoding="utf-8")
    state = {
        "_data_files": [{"filename": file.name}],
        "_fingerprint": generate_random_fingerprint(),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (folder / config.DATASET_STATE_JSON_FILENAME).write_text(json.dumps(state), encoding="utf-8")


def check_source(source: str, or_else: str) -> None:
    """Raise ValueError unless `load_examples` may find a source.

    Nothing is loaded, and the network is not asked.

    Args:
        source: as `load_examples` takes it.
        or_else: other sources that the caller understands, for the message, such as "a benchmark".
    """
    try:
        folder = Path(source).expanduser()
        is_folder = folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # the home of nobody, or a path that the file system refuses
        raise ValueError(f"{source!r} cannot be used as a path: {getattr(error, 'strerror', None) or error}") from error
    if is_folder:
        if (folder / config.DATASETDICT_JSON_FILENAME).is_file():
            raise ValueError(f"{source} holds several splits: name the folder of one of them")
        if not (folder / config.DATASET_STATE_JSON_FILENAME).is_file():
            raise ValueError(f"{source} is not a folder that `save_to_disk` wrote")
    elif not is_hub_id(source.partition(":")[0]):
        raise ValueError(f"{source!r} is neither {or_else}, nor a folder, nor a Hub dataset (owner/name)")


def _find(source: str) -> datasets.Dataset | datasets.DatasetDict:
    folder = Path(source).expanduser()
    if folder.is_dir():
        try:
            return _with_moved_images(datasets.load_from_disk(folder), folder)
        except IndexError as error:  # `datasets` reads the first file of rows
            raise ValueError(f"{source} has no rows: save a dataset that has some") from error
        except Exception as error:  # the folder can hold anything
            raise ValueError(f"{source} is not a folder that `save_to_disk` wrote ({error})") from error
    name, _, split = source.partition(":")
    if name.count("/") != 1:
        raise ValueError(f"{source!r} is neither a folder nor a Hub dataset (owner/name)")
    try:
        limit_requests()
        return datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # no such dataset or split, other files, no connection
        reason = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else error
        raise ValueError(f"{source} cannot be loaded from the Hub: {reason}; check its name and split") from error


def _with_moved_images(
    dataset: datasets.Dataset | datasets.DatasetDict, folder: Path
) -> datasets.Dataset | datasets.DatasetDict:
    """Return a dataset whose images are in its own folder `IMAGES`.

    The folder may have been elsewhere when the rows were written.
    """
    images = (folder / IMAGES).absolute()
    stored = not isinstance(dataset, datasets.DatasetDict) and isinstance(dataset.features.get("image"), datasets.Image)
    if not stored or not images.is_dir():
        return dataset
    column = dataset.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))["image"]
    if not all(row and row["bytes"] is None and Path(row["path"]).parent.name == IMAGES for row in column):
        return dataset
    if Path(column[0]["path"]).parent == images:
        return dataset
    moved = [{"bytes": None, "path": str(images / Path(row["path"]).name)} for row in column]
    new = datasets.Dataset.from_dict({"image": moved}, datasets.Features({"image": datasets.Image()}))
    return datasets.concatenate_datasets([new, dataset.remove_columns(["image"])], axis=1)


def check_columns(dataset: datasets.Dataset) -> None:
    """Raise ValueError unless a dataset has the columns of `FEATURES`."""
    missing = sorted(set(FEATURES) - set(dataset.column_names))
    if missing:
        raise ValueError(f"the dataset has no column {missing[0]!r}; it needs {', '.join(FEATURES)}")


def _conformed(dataset: datasets.Dataset) -> datasets.Dataset:
    """Return the dataset with the columns of `FEATURES` converted to their types.

    Raises:
        ValueError: a column is missing or cannot be converted.
    """
    check_columns(dataset)
    dataset = dataset.with_format(None)
    given = dataset.features
    if not isinstance(given["image"], datasets.Image) or dataset.data.column("image").null_count:
        raise ValueError("the column 'image' does not hold an image in each row; see `datasets.Image`")
    wanted = {name: feature for name, feature in FEATURES.items() if name != "image"}
    wanted |= {IGNORE: FEATURES["masks"]} if IGNORE in given else {}
    wanted |= {name: _TEXT for name in given if isinstance(given[name], datasets.ClassLabel)}
    wanted |= {CATEGORY: _TEXT} if "int" in _dtype(given.get(CATEGORY)) else {}
    others = {name: feature for name, feature in wanted.items() if given[name] != feature}
    if others:  # the images are not copied
        converted = [_converted(dataset.select_columns([name]), name, feature) for name, feature in others.items()]
        dataset = datasets.concatenate_datasets([dataset.remove_columns(list(others)), *converted], axis=1)
    return dataset.cast_column("image", datasets.Image())


def _dtype(feature: Any) -> str:
    return getattr(feature, "dtype", None) or ""


def _converted(column: datasets.Dataset, name: str, feature: Any) -> datasets.Dataset:
    given = column.features[name]
    if isinstance(given, datasets.ClassLabel):
        texts = [given.names[i] if i is not None and i >= 0 else None for i in column[name]]
        return datasets.Dataset.from_dict({name: texts}, datasets.Features({name: feature}))
    if name != "expression" and feature == _TEXT and "float" in _dtype(given):  # ids of a table with empty cells
        values = column[name]
        if all(value is None or value.is_integer() for value in values):
            texts = [None if value is None else str(int(value)) for value in values]
            return datasets.Dataset.from_dict({name: texts}, datasets.Features({name: feature}))
    if name in _MASKS and _has_other_counts(given):
        return _in_normal_form(column, name)
    numbers = name != "expression" and "int" in _dtype(given)
    if feature == _TEXT and not (numbers or "string" in _dtype(given)):
        raise ValueError(f"the column {name!r} holds {given}; expected text")
    try:
        return column.cast(datasets.Features({name: feature}), keep_in_memory=True)
    except Exception as error:  # the column can hold anything
        raise ValueError(f"the column {name!r} holds {given}; expected {feature}") from error


def _has_other_counts(given: Any) -> bool:
    """Return whether a column holds RLE whose counts are lengths of runs or bytes."""
    rle = getattr(given, "feature", None)
    return isinstance(rle, dict) and {"size", "counts"} <= set(rle) and "string" not in _dtype(rle["counts"])


def _in_normal_form(column: datasets.Dataset, name: str) -> datasets.Dataset:
    rows = [
        None if masks is None else [_normal(rle, f"row {number}") for rle in masks]
        for number, masks in enumerate(column[name])
    ]
    return datasets.Dataset.from_dict({name: rows}, datasets.Features({name: FEATURES["masks"]}))


def _check_rows(dataset: datasets.Dataset) -> set[str]:
    """Return the columns with masks that are not all in their normal form.

    Raises:
        ValueError: a value is missing, or a mask cannot be read.
    """
    begin, others = 0, set()
    for batch in dataset.iter(_BATCH):
        for name, values in batch.items():
            for number, value in enumerate(values, begin):
                if value is None and name in FEATURES:
                    raise ValueError(f"row {number} has no {name!r}")
                for rle in (value or ()) if name in _MASKS else ():
                    if _normal(rle, f"row {number}") != _plain(rle):
                        others.add(name)
        begin += len(values)
    return others


def _normal(rle: Any, where: str) -> Rle:
    try:
        return normal_rle(rle)
    except MaskError as error:
        raise ValueError(f"{where} has a mask that cannot be read: {error.__cause__ or error}") from error


def _plain(rle: Rle) -> Rle:
    return {"size": list(rle["size"]), "counts": rle["counts"]}


def _readable(rle: Rle) -> Rle:
    """Return the normal form of an RLE.

    An RLE that cannot be read stays as it is, because its reader names it.
    """
    try:
        return normal_rle(rle)
    except MaskError:
        return _plain(rle)
