"""FiftyOne's instance masks as pixels of an image.

FiftyOne stores a mask with a relative box [x, y, w, h], and not which pixels the mask was cut from. The box of an
importer has fractions of pixels, so the tool that cut the mask has rounded. Here each rounding that tools are known to
use is tried. The first one that gives the stored mask its size says where the mask belongs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.core.fields as fof
import numpy as np
from genseg_hub import masks
from genseg_hub.errors import MaskError
from genseg_hub.schema import Box

_EXACT = 6  # decimals of a pixel that survive the way through a relative box


@dataclass(frozen=True, eq=False)
class Cutout:
    """A mask bool[h, w] whose first pixel is (left, top) of the image."""

    left: int
    top: int
    mask: np.ndarray

    @property
    def window(self) -> tuple[int, int, int, int]:
        """Return the xyxy window of the cut-out, which may be wider than the mask in it."""
        return self.left, self.top, self.left + self.mask.shape[1], self.top + self.mask.shape[0]

    @property
    def box(self) -> Box:
        """Return the tight xyxy box of a non-empty mask."""
        columns, rows = np.flatnonzero(self.mask.any(0)), np.flatnonzero(self.mask.any(1))
        left, top = self.left, self.top
        return (
            float(left + columns[0]),
            float(top + rows[0]),
            float(left + columns[-1] + 1),
            float(top + rows[-1] + 1),
        )

    def whole(self, size: tuple[int, int]) -> np.ndarray:
        """Return the mask as bool[H, W], in an image of the size (width, height)."""
        full = np.zeros((size[1], size[0]), dtype=bool)
        x1, y1, x2, y2 = self.window
        full[y1:y2, x1:x2] = self.mask
        return full

    def within(self, window: tuple[int, int, int, int]) -> np.ndarray:
        """Return the part of the mask in an xyxy window that lies inside the cut-out."""
        x1, y1, x2, y2 = window
        return self.mask[y1 - self.top : y2 - self.top, x1 - self.left : x2 - self.left]


def read_mask(stored: Any) -> np.ndarray:
    """Return the mask of a label as bool[h, w].

    Args:
        stored: path of a file, array, or array as MongoDB has it; None for a box alone.

    Raises:
        MaskError: the mask cannot be read.
    """
    if stored is None:
        raise MaskError("there is none, only a box; segment or remove the detection")
    if isinstance(stored, str):
        return masks.read_file(stored)
    try:
        array = fof.ArrayField().to_python(stored)
    except Exception as error:  # zlib and numpy raise errors of many types
        raise MaskError(f"its bytes in the database are no array ({error})") from error
    return masks.from_array(array)


def stored_mask(detection: fo.Detection) -> np.ndarray | None:
    """Return the mask of a Detection as bool[h, w]; None for a box alone.

    The mask is in the database or in a file.

    Raises:
        MaskError: the mask cannot be read; the message says why.
    """
    stored = (detection.mask_path or None) if detection.mask is None else detection.mask
    return None if stored is None else read_mask(stored)


def cutout(bounding_box: Sequence[float], mask: np.ndarray, size: tuple[int, int]) -> tuple[Cutout | None, bool]:
    """Return a stored mask as pixels of an image.

    This is the inverse of `labels.detection_from_mask`, of FiftyOne's importers and of its models, to the pixel. A mask
    of the whole image beside a smaller box stays where it is. Any other mask is resized into its box (nearest
    neighbour).

    Args:
        bounding_box: relative xywh.
        mask: bool or uint8 [h, w].
        size: (width, height) of the image.

    Returns:
        The cut-out, None for an empty mask, and whether it was resized.

    Raises:
        MaskError: the box is not four finite numbers, or the mask has no pixels.
    """
    if not bounding_box or len(bounding_box) != 4 or not all(map(math.isfinite, bounding_box)):
        raise MaskError(f"the box of a label is {bounding_box}, not four finite numbers x, y, w, h; mend the label")
    if not mask.size:
        raise MaskError(f"a mask is {list(mask.shape)}, which has no pixels; remove the label")
    x, y, w, h = bounding_box
    mask = mask > 0
    across = _span(x * size[0], w * size[0], mask.shape[1], size[0])
    down = _span(y * size[1], h * size[1], mask.shape[0], size[1])
    resized = across is None or down is None
    if resized and mask.shape == size[::-1] and _lies_in(mask, bounding_box):
        return (Cutout(0, 0, mask) if mask.any() else None), False
    if across is None or down is None:
        left, mask = _resampled(mask, x * size[0], w * size[0], size[0], axis=1)
        top, mask = _resampled(mask, y * size[1], h * size[1], size[1], axis=0)
    else:
        left, top = across[0], down[0]
        mask = mask[max(0, -top) : max(0, size[1] - top), max(0, -left) : max(0, size[0] - left)]
        left, top = max(0, left), max(0, top)
    return (Cutout(left, top, mask) if mask.any() else None), resized


def _span(start: float, length: float, stored: int, limit: int) -> tuple[int, int] | None:
    """Return the pixels [begin, end) from which a stored mask was cut.

    Return None if no rounding gives the stored length.

    Args:
        start: start of the box, in pixels.
        length: length of the box, in pixels.
        stored: length of the stored mask, in pixels.
        limit: length of the image, in pixels.
    """
    for begin, end in _roundings(start, length):
        if end - begin == stored:
            return begin, end
        if min(end, limit) - max(begin, 0) == stored:  # cut at the border of the image
            return max(begin, 0), min(end, limit)
    return None


def _roundings(start: float, length: float) -> Iterator[tuple[int, int]]:
    """Yield the spans of pixels that tools cut out for a box, the commonest first."""
    end = start + length
    # FiftyOne's importers (`fiftyone.utils.coco`) and models round both edges. A half may have become a little less.
    for begin in _rounded(start):
        for last in _rounded(end):
            yield begin, last
    begin = _rounded(start)[0]
    yield begin, begin + _rounded(length)[0]  # `Polyline.to_detection` rounds the size
    low, high = round(start, _EXACT), round(end, _EXACT)
    yield math.floor(low), math.ceil(high)  # RF-DETR
    yield math.floor(low), math.floor(high)  # ETA's rendering
    yield begin, begin + max(1, _rounded(length)[0])  # a box of less than a pixel


def _rounded(value: float) -> list[int]:
    """Return the integers that a value may have been rounded to, likeliest first.

    The value became relative after the rounding.
    """
    exact = round(value, _EXACT)
    likely = round(exact)
    return [likely] if exact % 1 != 0.5 else [likely, *({math.floor(exact), math.ceil(exact)} - {likely})]


def _lies_in(mask: np.ndarray, bounding_box: Sequence[float]) -> bool:
    """Return whether a whole image's mask lies in a box, to a pixel."""
    x, y, w, h = bounding_box
    for across, begin, length in ((0, x, w), (1, y, h)):
        pixels = mask.shape[1 - across]
        found = np.flatnonzero(mask.any(axis=across))
        if len(found) and not (begin * pixels - 1 <= found[0] and found[-1] + 1 <= (begin + length) * pixels + 1):
            return False
    return True


def _resampled(mask: np.ndarray, start: float, length: float, limit: int, axis: int) -> tuple[int, np.ndarray]:
    """Return the first pixel inside the image, and the mask resized along an axis.

    The part outside the image is left out.
    """
    begin = _rounded(start)[0]
    end = max(begin + 1, _rounded(start + length)[0])
    first, last = min(max(0, begin), limit), min(max(0, end), limit)
    at = (np.arange(first, last) - begin + 0.5) * (mask.shape[axis] / (end - begin))
    return first, mask.take(at.astype(np.int64).clip(0, mask.shape[axis] - 1), axis=axis)
