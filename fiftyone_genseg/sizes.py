"""Sizes of samples' images, upright."""

from __future__ import annotations

from genseg_hub.errors import ImageError
from genseg_hub.images import image_size


def size_of(file: str, width: int | None, height: int | None) -> tuple[int, int] | None:
    """Return (width, height) of a sample's image as `load_image` reads it.

    The header of the file decides. FiftyOne's metadata has width and height swapped for MPO files and others with an
    orientation, and is stale for a replaced file. It counts only if the file is gone or unreadable. Return None if
    nothing tells the size.

    Args:
        file: file of the sample.
        width: width in the sample's metadata, None if unknown.
        height: height in the sample's metadata, None if unknown.
    """
    try:
        return image_size(file)
    except ImageError:
        return (width, height) if width and height else None
