"""Referring examples as a `datasets.Dataset`: the form in which they are saved, pushed, loaded and trained on."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from genseg_hub.schema import ReferringExample, Rle

IGNORE = "ignore"
RLE = {"size": datasets.List(datasets.Value("int32"), 2), "counts": datasets.Value("string")}
# Masks are COCO RLE; boxes are not stored, they follow from the masks.
FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "expression": datasets.Value("string"),
        "masks": datasets.List(RLE),
        "example_id": datasets.Value("string"),
        "image_id": datasets.Value("string"),
    }
)


def to_dataset(examples: Iterable[ReferringExample], attributes: datasets.Features | None = None) -> datasets.Dataset:
    """A dataset of examples, images included.

    Args:
        attributes: columns for attributes of the examples; None leaves them out.

    Raises:
        ValueError: for an example without ground truth.
    """
    attributes = attributes or datasets.Features()
    return datasets.Dataset.from_list(
        list(to_rows(examples, attributes)), features=datasets.Features(FEATURES | attributes)
    )


def to_rows(examples: Iterable[ReferringExample], attributes: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
    """The rows of `FEATURES`, lazily, with these attributes. Neighbours that share an array share its encoding.

    Raises:
        ValueError: for an example without ground truth.
    """
    names = list(attributes)
    last: np.ndarray | None = None
    encoded = b""
    for example in examples:
        if example.masks is None:
            raise ValueError(f"the example {example.example_id!r} has no ground truth")
        image: Any = example.image
        if isinstance(image, np.ndarray):
            if image is not last:
                last, encoded = image, _png(image)
            image = {"bytes": encoded, "path": None}
        known = {**example.attributes, IGNORE: [example.ignore] if example.ignore else []}
        yield {
            "image": str(image) if isinstance(image, Path) else image,
            "expression": example.expression,
            "masks": [_plain(rle) for rle in example.masks],
            "example_id": example.example_id,
            "image_id": example.image_id,
            **{name: known.get(name) for name in names},
        }


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)  # lossless, and much faster than the default
    return buffer.getvalue()


def from_dataset(dataset: datasets.Dataset) -> Iterator[ReferringExample]:
    """The examples of a dataset with `FEATURES`, read lazily; images that are files are given by their paths.

    Columns of its own become attributes of the examples; `ignore` (a list of RLE) becomes `ReferringExample.ignore`.

    Raises:
        ValueError: when a column is missing.
    """
    check_columns(dataset)
    last: tuple[str, Any] = ("", None)
    for row in dataset.cast_column("image", datasets.Image(decode=False)):
        stored, image_id = row.pop("image"), row["image_id"]
        if image_id and image_id == last[0]:
            image = last[1]
        else:
            image = stored["path"] if stored["bytes"] is None else Image.open(io.BytesIO(stored["bytes"]))
            last = (image_id, image)
        masks, ignore = tuple(map(_plain, row.pop("masks"))), row.pop(IGNORE, None)
        known = {name: row.pop(name) for name in ("expression", "example_id", "image_id")}
        ignored = _plain(ignore[0]) if ignore else None
        yield ReferringExample(image, masks=masks, attributes=row, ignore=ignored, **known)


def load(source: str) -> datasets.Dataset:
    """A dataset with `FEATURES` and perhaps more columns.

    Args:
        source: a folder that `Dataset.save_to_disk` wrote, or a dataset on the Hub, `owner/name` or
            `owner/name:SPLIT`, the split `train` by default.

    Raises:
        ValueError: for a source that is neither, or whose columns are others.
    """
    name, _, split = source.partition(":")
    if Path(source).expanduser().is_dir():
        found = datasets.load_from_disk(Path(source).expanduser())
    elif name.count("/") == 1:
        found = datasets.load_dataset(name, split=split or "train")
    else:
        raise ValueError(f"{source!r} is neither a folder nor a Hub dataset (owner/name)")
    try:
        check_columns(found)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return found


def check_columns(dataset: datasets.Dataset) -> None:
    """Raise ValueError unless a dataset has the columns of `FEATURES`."""
    missing = sorted(set(FEATURES) - set(dataset.column_names))
    if missing:
        raise ValueError(f"the dataset has no column {missing[0]!r}; it needs {', '.join(FEATURES)}")


def _plain(rle: Rle) -> Rle:
    return {"size": list(rle["size"]), "counts": rle["counts"]}
