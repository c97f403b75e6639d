"""Referring examples as a `datasets.Dataset`: the form in which they are saved, pushed, loaded and trained on."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from genseg_hub.schema import ReferringExample

# Masks are COCO RLE; boxes are not stored, they follow from the masks.
FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "expression": datasets.Value("string"),
        "masks": datasets.List({"size": datasets.List(datasets.Value("int32"), 2), "counts": datasets.Value("string")}),
        "example_id": datasets.Value("string"),
        "image_id": datasets.Value("string"),
    }
)


def to_dataset(examples: Iterable[ReferringExample]) -> datasets.Dataset:
    """A dataset of examples, images included.

    Raises:
        ValueError: for an example without ground truth.
    """
    return datasets.Dataset.from_list(list(to_rows(examples)), features=FEATURES)


def to_rows(examples: Iterable[ReferringExample]) -> Iterator[dict[str, Any]]:
    """The rows of `FEATURES`, lazily. Neighbours that share an array share its encoding.

    Raises:
        ValueError: for an example without ground truth.
    """
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
        yield {
            "image": str(image) if isinstance(image, Path) else image,
            "expression": example.expression,
            "masks": [{"size": list(rle["size"]), "counts": rle["counts"]} for rle in example.masks],
            "example_id": example.example_id,
            "image_id": example.image_id,
        }


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)  # lossless, and much faster than the default
    return buffer.getvalue()


def from_dataset(dataset: datasets.Dataset) -> Iterator[ReferringExample]:
    """The examples of a dataset with `FEATURES`, read lazily.

    Raises:
        ValueError: when a column is missing.
    """
    missing = sorted(set(FEATURES) - set(dataset.column_names))
    if missing:
        raise ValueError(f"the dataset has no column {missing[0]!r}; it needs {', '.join(FEATURES)}")
    for row in dataset:
        masks = tuple({"size": list(rle["size"]), "counts": rle["counts"]} for rle in row["masks"])
        yield ReferringExample(row["image"], row["expression"], masks, row["example_id"], row["image_id"])
