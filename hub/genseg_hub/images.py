"""Read pictures, for every part of the project.

Inference, training, rewards, archives and galleries all use this reader. Every picture arrives upright, as RGB with 8
bits, whatever its file holds: an orientation, grey, a palette, alpha, 16 bits, CMYK.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from genseg_hub.errors import ImageError
from genseg_hub.image_files import MAX_PIXELS, Grey, declared_grey, open_image, upright, upright_size
from genseg_hub.schema import ImageLike

# Qwen-VL image processors refuse longer images.
MAX_ASPECT_RATIO = 200
_DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # bits of a grey value that cameras and scanners deliver


def load_image(image: ImageLike, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Return an upright RGB image.

    A grey value of more than 8 bits is scaled by the bits that the file declares. TIFF declares them by BitsPerSample
    below 16 or MaxSampleValue, PNG by sBIT, PGM by its largest value. Files of 10, 12 or 14 bits in 16 often declare
    nothing. Then the smallest of 8, 10, 12, 14 and 16 bits that holds the largest value decides. A TIFF whose zero is
    white is inverted.

    Args:
        image: path, content of an image file, PIL image, or uint8[H, W, 3] in RGB order.
        at_least: (width, height) in pixels that are enough. A JPEG file is then decoded at a half, a quarter or an
            eighth of its size if that is not smaller. None for the whole size.

    Raises:
        ImageError: the file is missing, on another machine, unreadable or truncated; the type, shape or dtype is wrong;
            pixels are negative or floating-point; the image has more than MAX_PIXELS pixels or an aspect ratio above
            MAX_ASPECT_RATIO.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ImageError(f"an image array must be uint8[H, W, 3], got {image.dtype}{list(image.shape)}")
        opened, name = Image.fromarray(image), "the image array"
    elif isinstance(image, Image.Image):
        opened, name = image, "the PIL image"
    elif isinstance(image, str | Path | bytes):
        opened, name = open_image(image)
    else:
        raise ImageError(f"an image must be a path, bytes, a PIL image or uint8[H, W, 3], got {type(image).__name__}")
    width, height = opened.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name} has {width} x {height} pixels, the limit is {MAX_PIXELS:,}; resize it first")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ImageError(
            f"{name} is {width} x {height}; the longer side may be at most {MAX_ASPECT_RATIO} times the other"
        )
    try:
        if at_least and isinstance(opened, JpegImageFile) and opened is not image:
            opened.draft(None, at_least if upright_size(opened) == opened.size else at_least[::-1])  # type: ignore[arg-type]
        grey = declared_grey(opened)
        return _rgb(upright(opened), grey, name)
    except ImageError:
        raise
    except Exception as error:  # decoders raise errors of any type for damaged files
        raise ImageError(f"{name} cannot be decoded ({error}); the file is damaged, save it again") from error


def image_size(image: str | Path | bytes) -> tuple[int, int]:
    """Return (width, height) in pixels of the image that `load_image` returns.

    Only the header is read.

    Args:
        image: path, or content of an image file.

    Raises:
        ImageError: the file is missing or unreadable.
    """
    opened, _ = open_image(image)
    with opened:
        return upright_size(opened)


def content_key(image: Image.Image) -> bytes:
    """Return a digest that only images of the same size and pixels share.

    Names and times of files do not count, because another picture can have the same ones.

    Args:
        image: RGB.
    """
    digest = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def bytes_of(image: Image.Image) -> int:
    """Return the bytes of memory that an RGB image takes.

    Pillow keeps four bytes for each pixel.
    """
    return 4 * image.width * image.height


def shown_size(size: tuple[int, int], side: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the (width, height) to which Qwen-VL's image processors resize an image.

    Both are multiples of `side`, and the aspect ratio changes as little as that allows.

    Args:
        size: (width, height) in pixels.
        side: side of the square that is one image token, in pixels.
        min_pixels: least width times height.
        max_pixels: largest width times height.

    Raises:
        ImageError: the aspect ratio is above MAX_ASPECT_RATIO.
    """
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    try:
        height, width = smart_resize(size[1], size[0], side, min_pixels, max_pixels)
    except ValueError as error:
        raise ImageError(f"an image of {size[0]} x {size[1]} pixels cannot be shown: {error}") from error
    return width, height


def to_png(image: Image.Image) -> bytes:
    """Return a PNG of an image's pixels, without metadata and colour profile."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, icc_profile=None)  # lossless, and much faster than the default
    return buffer.getvalue()


def to_jpeg(image: Image.Image) -> bytes:
    """Return a JPEG of quality 95, without metadata and colour profile."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0, icc_profile=None, exif=b"", comment=b"")
    return buffer.getvalue()


def _rgb(image: Image.Image, grey: Grey, name: str) -> Image.Image:
    if image.mode.startswith("I") or grey.signed:
        values = np.asarray(image)
        if values.dtype == np.int32 and not grey.signed:
            values = values.view(np.uint32)  # Pillow reads 32 bits as signed numbers
        if values.dtype == np.uint8 and grey.signed:
            values = values.view(np.int8)  # and signed numbers of 8 bits as unsigned ones
        if values.min() < 0:
            raise ImageError(f"{name} holds negative pixels; save it with values from 0, in 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow would clip more than 8 bits instead of scaling them
        bits, largest = grey.bits, int(values.max())
        if bits is None or largest >= 1 << bits:
            # PNG's specification wants 12 bits in the upper part of 16, so values of 12 bits may well be larger.
            bits = next((depth for depth in _DEPTHS if largest < 1 << depth), 32) if bits is None else 16
        scaled = (values * (255 / ((1 << bits) - 1))).round().clip(0, 255).astype(np.uint8)
        return Image.fromarray(255 - scaled if grey.white_is_zero else scaled).convert("RGB")
    if image.mode == "F":
        raise ImageError(f"{name} holds floating-point pixels; save it with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
