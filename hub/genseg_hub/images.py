"""Read images of any kind that people store: EXIF orientation, grey, palette, alpha, 16 bit, CMYK."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from genseg_hub.errors import ImageError
from genseg_hub.schema import ImageLike

MAX_PIXELS = 100_000_000
# Qwen-VL image processors refuse longer images.
MAX_ASPECT_RATIO = 200
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)  # of EXIF


def load_image(image: ImageLike) -> Image.Image:
    """Return an upright RGB image.

    Args:
        image: path, content of an image file, PIL image, or uint8[H, W, 3] in RGB order.

    Raises:
        ImageError: the file is missing, unreadable or truncated; the type, shape or dtype is wrong; the image has more
            than MAX_PIXELS pixels or an aspect ratio above MAX_ASPECT_RATIO.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ImageError(f"an image array must be uint8[H, W, 3], got {image.dtype}{list(image.shape)}")
        opened, name = Image.fromarray(image), "the image array"
    elif isinstance(image, Image.Image):
        opened, name = image, "the PIL image"
    elif isinstance(image, str | Path):
        opened, name = _open(Path(image)), str(image)
    elif isinstance(image, bytes):
        opened, name = _decoded(io.BytesIO(image), "the image"), "the image"
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
        return _rgb(ImageOps.exif_transpose(opened), name)
    except ImageError:
        raise
    except Exception as error:  # decoders raise errors of any type for damaged files
        raise ImageError(f"{name} cannot be decoded ({error}); the file is damaged, save it again") from error


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) in pixels of the image that `load_image` would return; read the header alone.

    Args:
        path: of an image file.

    Raises:
        ImageError: the file is missing or unreadable.
    """
    with _open(path) as image:
        try:
            sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
        except Exception as error:  # as above
            raise ImageError(f"{path} is not an image that Pillow can read ({error})") from error
        return (image.height, image.width) if sideways else image.size


def shown_size(size: tuple[int, int], side: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the (width, height) to which Qwen-VL's image processors resize an image.

    Both are multiples of `side`, and the aspect ratio changes as little as that allows.

    Args:
        size: (width, height) in pixels.
        side: of the square that is one image token, in pixels.
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
    """Return a PNG with the pixels of an image, without its metadata and colour profile."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, icc_profile=None)  # lossless, and much faster than the default
    return buffer.getvalue()


def to_jpeg(image: Image.Image) -> bytes:
    """Return a JPEG of quality 95 of an image, without its metadata and colour profile."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0, icc_profile=None, exif=b"", comment=b"")
    return buffer.getvalue()


def _open(path: Path) -> Image.Image:
    if not os.path.isfile(path):
        raise ImageError(f"there is no file {path}")
    return _decoded(path, str(path))


def _decoded(file: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        return Image.open(file)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} has too many pixels, the limit is {MAX_PIXELS:,}; resize it first") from error
    except Exception as error:
        raise ImageError(f"{name} is not an image that Pillow can read ({error})") from error


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow would clip instead of scale
        values = np.asarray(image).astype(np.float64)
        return Image.fromarray((values / (257 if values.max() > 255 else 1)).clip(0, 255).astype(np.uint8)).convert(
            "RGB"
        )
    if image.mode == "F":
        raise ImageError(f"{name} holds floating-point pixels; save it with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
