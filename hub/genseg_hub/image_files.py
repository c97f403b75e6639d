"""Open picture files, and decode no more of them than needed.

This module knows formats, orientation and bits. A file's content, not its suffix, decides its format, and only the
formats in `FORMATS` are tried.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from genseg_hub.errors import ImageError

MAX_PIXELS = 100_000_000
# Pillow knows more formats. EPS starts Ghostscript, others are rare and little tested. HEIF needs pillow-heif.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
_ORIENTATION = 0x0112  # of EXIF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_MAXIMUM, _TIFF_SAMPLES = 256, 257, 258, 262, 281, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2  # values of the photometric interpretation and of the sample format
_PNG_TEXT = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
_REMOTE = re.compile(r"(?:^|/)(?:https?|ftp|s3|gs|gcs|abfss?|az|azure|minio|oss|hdfs):/", re.IGNORECASE)
_NO_PICTURES = (
    (b"version https://git-lfs", "it is a git-lfs pointer, run `git lfs pull`"),
    (b"%!PS", "it is PostScript, save it as PNG"),
    (b"%PDF", "it is a PDF, save its page as PNG"),
)
_HEIF_BRANDS = (b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1")


def open_image(image: str | Path | bytes) -> tuple[Image.Image, str]:
    """Open an image file without decoding it, and return its name for messages.

    Args:
        image: path, or content of an image file.

    Raises:
        ImageError: the file is missing, on another machine, or of no format in `FORMATS`.
    """
    if isinstance(image, bytes):
        return _opened(io.BytesIO(image), "the image"), "the image"
    name = str(image)
    if not os.path.isfile(image):
        if _REMOTE.search(name):
            raise ImageError(
                f"{name} is not a file on this machine. FiftyOne's open-source edition reads local files only, "
                "FiftyOne Enterprise reads cloud media: download the file and use the path of the copy"
            )
        raise ImageError(f"there is no file {name}")
    return _opened(Path(image), name), name


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the (width, height) that `upright` gives an open file, from its header."""
    if image.format == "TIFF":  # Pillow says the size after the orientation that a tag, but no XMP gives
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        size = int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT])
    else:
        size = image.size
    try:
        # Pillow's PNG decodes the pixels to find metadata after them, where hardly any file has some.
        late = image.format != "PNG" or _has_late_metadata(image)
        exif = image.getexif() if late else Image.Image.getexif(image)
        sideways = exif.get(_ORIENTATION) in _SIDEWAYS
    except Exception:  # noqa: BLE001 - as in `upright`
        sideways = False
    return (size[1], size[0]) if sideways else size


def swapped(found: tuple[int, int], wanted: tuple[int, int]) -> str:
    """Return a remark on sizes with width and height swapped; "" for others."""
    if found != wanted and found == wanted[::-1]:
        return (
            ": width and height are swapped, as an EXIF orientation does it. Images are read upright: make the masks "
            "for the upright image, or save the image without an orientation"
        )
    return ""


def upright(image: Image.Image) -> Image.Image:
    """Decode an image and turn it upright, as its orientation says.

    The orientation is EXIF, also in PNG, TIFF and WebP, or XMP. Damaged metadata means no orientation, as in every
    viewer of pictures.
    """
    if image.format == "TIFF":
        # Pillow maps a plain TIFF of a path into memory, and mixes up the rows of one that lies on its side.
        image.filename = ""  # type: ignore[attr-defined]
    image.load()
    try:
        method = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))  # TIFF is upright already, and says so
    except Exception:  # noqa: BLE001 - EXIF of any file
        method = None
    return image if method is None else image.transpose(method)


def _opened(file: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        return Image.open(file, formats=_formats())
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} has too many pixels, the limit is {MAX_PIXELS:,}; resize it first") from error
    except Exception as error:
        why = _no_picture(file) or error
        raise ImageError(f"{name} is not an image that Pillow can read ({why})") from error


@cache
def _formats() -> tuple[str, ...]:
    """Return the FORMATS that this installation reads."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _no_picture(file: Path | io.BytesIO) -> str | None:
    """Return the kind of a file that Pillow cannot open, and what to do; else None."""
    try:
        head = file.getvalue()[:32] if isinstance(file, io.BytesIO) else _head(file)
    except OSError:
        return None
    if head[4:12].startswith(_HEIF_BRANDS) and "HEIF" not in Image.OPEN:
        return "it is HEIC, install pillow-heif"
    return next((said for start, said in _NO_PICTURES if head.startswith(start)), None)


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(32)


def _chunks(image: Image.Image) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the first byte of each chunk of an open PNG."""
    file: Any = image.fp  # type: ignore[attr-defined]
    before = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(9)) >= 8:
            length, kind = struct.unpack(">I4s", head[:8])
            yield kind, head[8:] if length else b""
            file.seek(length + 12 - len(head), os.SEEK_CUR)
    finally:
        file.seek(before)


def _has_late_metadata(image: Image.Image) -> bool:
    """Return whether an open PNG has metadata after its pixels.

    Pillow finds such metadata only after decoding them.
    """
    seen_pixels = False
    for kind, _ in _chunks(image):
        if seen_pixels and kind in _PNG_TEXT:
            return True
        seen_pixels |= kind == b"IDAT"
        if kind == b"IEND":
            break
    return False


@dataclass(frozen=True)
class Grey:
    """Meaning of the grey values of an open file.

    Attributes:
        bits: bits of a value that the file declares; None if it declares nothing below its 16 bits.
        signed: whether values may be negative.
        white_is_zero: whether 0 is white and Pillow does not invert the values.
    """

    bits: int | None = None
    signed: bool = False
    white_is_zero: bool = False


def declared_grey(image: Image.Image) -> Grey:
    """Return the meaning of the grey values that a file declares."""
    is_deep = image.mode.startswith("I")
    if image.format in ("PPM", "JPEG2000"):
        return Grey(bits=16)  # Pillow has scaled the values to 16 bits
    with suppress(Exception):  # a file that is closed already, or damaged metadata
        if image.format == "TIFF":
            wanted = (_TIFF_BITS, _TIFF_MAXIMUM, _TIFF_SAMPLES, _TIFF_PHOTOMETRIC)
            tags: Any = image.tag_v2  # type: ignore[attr-defined]
            bits, largest, samples, photometric = (_first(tags.get(tag)) for tag in wanted)
            if not bits or bits >= 16:
                bits = largest.bit_length() if largest and 255 <= largest < 65535 else None
            return Grey(bits, samples == _SIGNED, is_deep and photometric == _WHITE_IS_ZERO)
        if image.format == "PNG" and is_deep:
            firsts = (first[0] for kind, first in _chunks(image) if kind == b"sBIT" and first)
            return Grey(next((bits for bits in firsts if 8 <= bits <= 16), None))
    return Grey(signed=image.mode == "I")


def _first(value: Any) -> int | None:
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None
