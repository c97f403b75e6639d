"""Rows of training, made once for each source and kept in the cache of `datasets`.

A row is an example with everything that a run needs to know before it opens a picture. It comes from the masks and the
headers of the image files, and no pixel is decoded.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
from genseg_hub.archives.caching import cached
from genseg_hub.dialects import genseg
from genseg_hub.errors import ImageError, MaskError
from genseg_hub.image_files import MAX_PIXELS, swapped
from genseg_hub.images import MAX_ASPECT_RATIO, image_size
from genseg_hub.masks import normal_rle
from genseg_hub.referring_dataset import FEATURES, IGNORE, check_columns
from genseg_hub.schema import Rle
from pycocotools import mask as coco_mask

from genseg_training import sources

IMAGE_KEY, SOURCE = "image_key", "source"
# Part of the key of cached rows; change it whenever other rows are made.
_VERSION = 1
_BATCH = 500
_HEAD = 65_536  # bytes; an image file is known by its length and its first bytes
_OF_COCO = re.compile(r"(?:.*_)?0{6}(\d{6})")  # COCO's file names, with or without the name of the set
_COLUMNS = datasets.Features(
    {
        **{name: feature for name, feature in FEATURES.items() if name != "image"},
        IGNORE: FEATURES["masks"],
        "image_size": datasets.List(datasets.Value("int32"), 2),
        "boxes": datasets.List(datasets.List(datasets.Value("float32"), 4)),
        IMAGE_KEY: datasets.Value("string"),
        SOURCE: datasets.Value("string"),
    }
)


def prepared(source: sources.Source, seed: int) -> tuple[datasets.Dataset, list[str]]:
    """Return the rows of a source, and the reasons for examples left out.

    There is a line for each reason. The rows have `referring_dataset.FEATURES`, `ignore`, `image_size` (width, height),
    `boxes` (xyxy pixels of the true instances) and `source`. Their `image_key` is equal for the same image in any
    source.

    Args:
        source: all of it; its count is not regarded.
        seed: seed of rendered training scenes.

    Raises:
        ValueError: the source cannot be read, or an example cannot be trained on; the message names the example.
    """
    found = sources.find(source, seed)
    settings: dict[str, Any] = {"name": source.name, "root": str(source.root or ""), "key": found.key}
    settings["seed"] = seed if source.is_scenes else 0
    try:
        columns = cached(_cached, settings | {"version": _VERSION}, _COLUMNS)
    except datasets.exceptions.DatasetGenerationError as error:
        if isinstance(error.__cause__, ValueError):
            raise ValueError(str(error.__cause__)) from error
        raise
    return _joined(found.examples, columns), found.left_out


def of_examples(examples: datasets.Dataset, name: str = "") -> datasets.Dataset:
    """Return the rows of examples, as `prepared` does; nothing is cached.

    Args:
        examples: examples with `referring_dataset.FEATURES`.
        name: name for the column `source`.

    Raises:
        ValueError: an example cannot be trained on; the message names the example.
    """
    check_columns(examples)
    made = list(_made(sources.Found(examples, ""), name))
    return _joined(examples, datasets.Dataset.from_list(made, features=_COLUMNS))


def _joined(examples: datasets.Dataset, columns: datasets.Dataset) -> datasets.Dataset:
    """Return columns beside the images of their examples, which are not copied."""
    images = examples.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
    return datasets.concatenate_datasets([images, columns], axis=1)


def _cached(name: str, root: str, seed: int, key: str, version: int) -> Iterator[dict[str, Any]]:
    """Yield the columns of a source; `datasets` caches them under these arguments."""
    source = sources.Source(name, root=Path(root) if root else None)
    yield from _made(sources.find(source, seed), name)


def _made(found: sources.Found, name: str) -> Iterator[dict[str, Any]]:
    names = [*FEATURES, *([IGNORE] if IGNORE in found.examples.column_names else [])]
    examples = found.examples.select_columns(names).cast_column("image", datasets.Image(decode=False))
    known: dict[str, tuple[tuple[int, int], str]] = {}  # path -> size and key of the image
    number = 0
    for batch in examples.iter(_BATCH):
        for values in zip(*(batch[name] for name in names), strict=True):
            row = dict(zip(names, values, strict=True))
            try:
                yield _row(row, number, found, known) | {SOURCE: name}
            except (ImageError, MaskError) as error:
                raise ValueError(f"example {row['example_id']!r}: {error}") from error
            number += 1


def _row(row: dict[str, Any], number: int, found: sources.Found, known: dict[str, Any]) -> dict[str, Any]:
    missing = next((name for name in FEATURES if row[name] is None), None)
    if missing:
        raise ValueError(f"row {number} has no {missing!r}")
    where, ignored = f"example {row['example_id']!r}", row.get(IGNORE) or []
    masks: list[Rle] = row["masks"]
    if found.checked and found.collection and masks:
        height, width = masks[0]["size"]
        size, key = (int(width), int(height)), f"{found.collection} {row['image_id']}"
    else:
        size, key = _image(row["image"], known)
        key = f"{found.collection} {row['image_id']}" if found.collection else key
    if not found.checked:
        masks, ignored = ([normal_rle(rle) for rle in rles] for rles in (masks, ignored))
        for rle in (*masks, *ignored):
            its = rle["size"][1], rle["size"][0]
            if its != size:
                raise ValueError(f"{where}: a mask is {its[0]} x {its[1]}, its image {size}{swapped(size, its)}")
    if masks and not coco_mask.area(masks).all():
        raise ValueError(f"{where}: a mask is empty; leave it out, because a no-target example has no masks")
    genseg.messages(size, row["expression"])  # raises ValueError for an empty expression
    boxes = coco_mask.toBbox(masks).tolist() if masks else []
    return {
        **{name: row[name] for name in ("expression", "example_id", "image_id")},
        "masks": masks,
        IGNORE: ignored,
        "image_size": list(size),
        "boxes": [[x, y, x + w, y + h] for x, y, w, h in boxes],
        IMAGE_KEY: key,
    }


def _image(stored: dict[str, Any], known: dict[str, tuple[tuple[int, int], str]]) -> tuple[tuple[int, int], str]:
    """Return size and key of an image, from its header."""
    path = stored["path"] or ""
    if stored["bytes"] is not None:
        return _size(stored["bytes"]), _key(path, stored["bytes"][:_HEAD], len(stored["bytes"]))
    if path not in known:
        size = _size(path)
        with open(path, "rb") as stream:
            known[path] = size, _key(path, stream.read(_HEAD), os.fstat(stream.fileno()).st_size)
    return known[path]


def _size(content: bytes | str) -> tuple[int, int]:
    width, height = image_size(content)
    if width * height > MAX_PIXELS:
        raise ImageError(f"the image has {width} x {height} pixels, the limit is {MAX_PIXELS:,}; resize it first")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ImageError(
            f"the image is {width} x {height}; the longer side may be at most {MAX_ASPECT_RATIO} times the other"
        )
    return width, height


def _key(path: str, head: bytes, length: int) -> str:
    """Return a key that tells images apart: COCO's id, or a digest of the contents.

    The id comes from COCO's file names.
    """
    of_coco = _OF_COCO.fullmatch(Path(path).stem)
    if of_coco:
        return f"COCO {int(of_coco[1])}"
    return hashlib.blake2b(head + str(length).encode(), digest_size=16).hexdigest()
