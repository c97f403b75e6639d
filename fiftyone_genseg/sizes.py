"""Sizes of samples' images, upright."""

from __future__ import annotations

from pathlib import Path

from genseg_hub.errors import ImageError
from genseg_hub.images import image_size

_TRUSTED = (".jpg", ".jpeg")


def size_of(file: str, width: int | None, height: int | None) -> tuple[int, int] | None:
    """Return (width, height) of a sample's image as `load_image` reads it.

    Return None if nothing tells the size. FiftyOne's metadata knows the orientation of JPEG alone. For other files the
    header decides, and the metadata only if the file is gone.

    Args:
        file: file of the sample.
        width: width in the sample's metadata, None if unknown.
        height: height in the sample's metadata, None if unknown.
    """
    known = (width, height) if width and height else None
    if known and Path(file).suffix.lower() in _TRUSTED:
        return known
    try:
        return image_size(file)
    except ImageError:
        return known
