"""Normalise masks, for every part of the project.

Predictions, archives, labels, training and rewards all use this reader. At rest a mask is polygons, a COCO RLE
(compressed or not), an array or a picture file. Here each becomes bool[H, W], or the COCO RLE that pycocotools reads
without harm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from genseg_hub.errors import ImageError, MaskError
from genseg_hub.image_files import MAX_PIXELS, open_image, upright
from genseg_hub.schema import Rle, encode_mask, rle_runs

_FAR = 4  # times the image's longer side
_LONG = 16  # times the image's pixels
_LOSSY = ("JPEG", "MPO", "JPEG2000", "HEIF", "AVIF")
_WEBP_HEADER = 65_536  # bytes in which a lossless WebP names its kind


def to_rle(mask: Any, height: int, width: int) -> Rle:
    """Return polygons or an RLE as the COCO RLE of an image.

    Args:
        mask: polygons in pixels, each [x1, y1, x2, y2, ...] or [[x1, y1], [x2, y2], ...], or one polygon alone;
            polygons of fewer than three corners have no area. Or {"size": [H, W], "counts"}: the lengths of the runs as
            a list, or compressed as str or bytes; runs of length zero are allowed.
        height: height of the image in pixels.
        width: width of the image in pixels.

    Raises:
        MaskError: the mask has none of these forms, or is an RLE of another size.
    """
    try:
        if min(height, width) < 1 or height * width > MAX_PIXELS:
            raise ValueError(f"a mask is {width} x {height}, the limit is {MAX_PIXELS:,} pixels; resize it")
        if isinstance(mask, dict):
            return _from_runs(mask, height, width)
        if isinstance(mask, list | tuple | np.ndarray):
            return _from_polygons(_polygons(mask), height, width)
        raise ValueError("it is neither polygons nor an RLE")
    except Exception as error:  # pycocotools raises errors of any type
        raise MaskError(f"the segmentation cannot be read ({error})") from error


def normal_rle(rle: Any) -> Rle:
    """Return an RLE of any form as COCO RLE of its own size; see `to_rle`.

    Raises:
        MaskError: it is no RLE.
    """
    try:
        if not isinstance(rle, dict):
            raise ValueError('a mask is no COCO RLE, {"size": [h, w], "counts": "..."}')
        height, width = _size(rle)
    except Exception as error:
        raise MaskError(f"the mask cannot be read ({error})") from error
    return to_rle(rle, height, width)


def from_array(values: Any, name: str = "the mask") -> np.ndarray:
    """Return the foreground of an array as bool[h, w].

    Foreground is every value but zero. With channels, a pixel is foreground if a colour and the alpha are not zero.
    Alpha alone says it if all visible pixels are black and some pixels are not visible.

    Args:
        values: [h, w], or [h, w, channels] with grey, grey and alpha, RGB or RGBA; bool, integers or floats.
        name: name of the mask, for the error.

    Raises:
        MaskError: the array has another shape or type, no pixel, or values that are not finite.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:  # lists of several lengths
        raise MaskError(f"{name} is no array ({error}); a mask is [h, w]") from error
    if array.ndim == 3 and array.shape[0] == 1 and array.shape[2] > 4:  # channels first
        array = array[0]
    elif array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3) or channels > 4 or not array.size:
        raise MaskError(f"{name} is {array.dtype}{list(array.shape)}; a mask is [h, w] or [h, w, up to 4 channels]")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise MaskError(f"{name} has values that are not finite; write the mask again")
    if array.ndim == 2:
        return array != 0
    colours = channels - (channels in (2, 4))
    coloured: np.ndarray = np.any(array[..., :colours] != 0, axis=2)
    if colours == channels:
        return coloured
    visible = array[..., -1] > 0
    if not visible.any():
        return coloured & (not coloured.all())
    return visible & coloured if visible.all() or coloured[visible].any() else visible


def read_file(file: str | Path) -> np.ndarray:
    """Return the foreground of a picture file of any mode as bool[h, w].

    The rules are `from_array`'s. A palette's colours say which pixels are foreground. If all colours are equal, its
    numbers say it. A JPEG is never exactly black, so its foreground is every pixel brighter than half of its brightest
    pixel.

    Args:
        file: a picture, upright as `images.load_image` makes it.

    Raises:
        MaskError: the file is missing, no picture, damaged or too large.
    """
    try:
        opened, name = open_image(file)
        with opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise MaskError(f"{name} has more than {MAX_PIXELS:,} pixels; resize it")
            lossy = _is_lossy(opened)
            return _foreground(upright(opened), lossy, name)
    except MaskError:
        raise
    except ImageError as error:
        raise MaskError(str(error)) from error
    except Exception as error:  # decoders raise errors of any type for damaged files
        raise MaskError(f"{file} cannot be decoded ({error}); the file is damaged, save it again") from error


def _is_lossy(image: Image.Image) -> bool:
    """Return whether a picture's format changes its numbers, as JPEG does.

    The header of a WebP tells whether that file is lossy.
    """
    if image.format != "WEBP":
        return image.format in _LOSSY
    stream: Any = getattr(image, "fp", None)
    if stream is None:
        return True
    place = stream.tell()
    stream.seek(0)
    start = stream.read(_WEBP_HEADER)
    stream.seek(place)
    return b"VP8L" not in start


def _foreground(image: Image.Image, lossy: bool, name: str) -> np.ndarray:
    if lossy:
        grey = np.asarray(image.convert("L"))
        return grey > grey.max() / 2
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    if image.mode not in ("P", "PA"):
        return from_array(np.asarray(image), name)
    found, numbers = from_array(np.asarray(image.convert("RGBA")), name), np.asarray(image)
    told_apart = found.any() and not found.all()
    return found if told_apart or image.mode == "PA" else numbers > 0


def _size(rle: dict[str, Any]) -> tuple[int, int]:
    height, width = rle["size"]
    if int(height) != height or int(width) != width:
        raise ValueError(f"its size is {list(rle['size'])}")
    return int(height), int(width)


def _from_runs(rle: dict[str, Any], height: int, width: int) -> Rle:
    size, counts = _size(rle), rle["counts"]
    if size != (height, width):
        swapped = ", which is height and width swapped" if size == (width, height) else ""
        raise ValueError(f"its RLE is {list(size)} (height, width), its image [{height}, {width}]{swapped}")
    compressed = isinstance(counts, str | bytes)
    runs = rle_runs(counts) if compressed else np.array(counts)
    if runs.dtype.kind == "f" and np.isfinite(runs).all() and not (runs % 1).any():  # as pandas writes integers
        runs = runs.astype(np.int64)
    pixels = height * width
    if runs.dtype.kind not in "iu" or runs.ndim != 1 or not 0 <= runs.min() <= runs.max() <= pixels:
        raise ValueError("the counts of its RLE are no lengths of runs")
    if runs.sum() != pixels:
        raise ValueError(f"the counts of its RLE do not cover a mask of {height} x {width} (height, width)")
    if compressed and runs[1:].min(initial=1) > 0:
        return {"size": [height, width], "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}
    # Not with pycocotools, because runs of length zero make it write past its buffer.
    return encode_mask(np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T)


def _polygons(mask: Any) -> list[list[float]]:
    """Return polygons as flat lists of coordinates."""
    parts = mask.tolist() if isinstance(mask, np.ndarray) else list(mask)
    parts = [part.tolist() if isinstance(part, np.ndarray) else part for part in parts]
    if not parts:
        return []
    if not isinstance(parts[0], list | tuple):
        parts = [parts]  # one polygon as a flat list
    elif all(_is_point(part) for part in parts):
        parts = [parts]  # one polygon as a list of points
    polygons = []
    for part in parts:
        if not isinstance(part, list | tuple):
            raise ValueError("a polygon is not a list of numbers")
        flat = [value for point in part for value in point] if part and all(map(_is_point, part)) else list(part)
        if len(flat) % 2:
            raise ValueError("a polygon has an odd number of coordinates")
        polygons.append(flat)
    return polygons


def _is_point(value: Any) -> bool:
    return (
        isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(number, int | float) for number in value)
    )


def _from_polygons(polygons: list[list[float]], height: int, width: int) -> Rle:
    polygons = [polygon for polygon in polygons if len(polygon) >= 6]
    if not polygons:
        return encode_mask(np.zeros((height, width), bool))
    _check_outline(polygons, height, width)
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return {"size": [height, width], "counts": merged["counts"].decode("ascii")}


def _check_outline(polygons: list[list[float]], height: int, width: int) -> None:
    """Raise ValueError if polygons are too far outside or too long.

    They are refused, because pycocotools allocates memory for every pixel of an outline.
    """
    outline = 0.0
    for polygon in polygons:
        places = np.asarray(polygon, dtype=np.float64)
        if places.ndim != 1:
            raise ValueError("a polygon is not a flat list of numbers")
        if not np.abs(places).max() <= _FAR * max(height, width):  # False for NaN, too
            raise ValueError("it has a corner far outside the image")
        outline += np.abs(places[2:] - places[:-2]).sum()
    if outline > _LONG * (height + 1) * (width + 1):
        raise ValueError("its outline is too long for the image")
