"""Draw pictures for the agent's reasoner: numbered masks, or one mask enlarged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from genseg_hub.overlay import COLORS, draw_masks

_GAP = 8  # pixels between two parts of a picture
_MARGIN = 0.5  # around an enlarged mask, as a share of its longer side


def numbered(image: Image.Image, masks: Sequence[np.ndarray]) -> Image.Image:
    """Return an image beside itself with numbered masks.

    Args:
        image: RGB.
        masks: bool[h, w] of the image's size; the first is number 1.
    """
    drawn = draw_masks(image, masks)
    pen = ImageDraw.Draw(drawn)
    size = max(12, round(max(image.size) / 30))
    for number, mask in enumerate(masks, 1):
        x, y = _middle(mask)
        color = COLORS[(number - 1) % len(COLORS)]
        left, top, right, bottom = pen.textbbox((x, y), str(number), font=ImageFont.load_default(size), anchor="mm")
        pen.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill="black", outline=color)
        pen.text((x, y), str(number), fill="white", font=ImageFont.load_default(size), anchor="mm")
    return _beside(image, drawn)


def enlarged(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """Return an image with a mask marked, and the mask's place enlarged.

    The place stands beside the image, without and with the mask.

    Args:
        image: RGB.
        mask: bool[h, w] of the image's size.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    window = (0, 0, image.width, image.height)
    if len(rows):
        x1, x2, y1, y2 = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
        margin = round(_MARGIN * max(x2 - x1, y2 - y1)) + 1
        left, top = max(0, int(x1) - margin), max(0, int(y1) - margin)
        window = (left, top, min(image.width, int(x2) + margin), min(image.height, int(y2) + margin))
    marked = draw_masks(image, [mask])
    parts = [image.crop(window), marked.crop(window)]
    scale = min(image.height / parts[0].height, image.width / parts[0].width)
    size = max(1, round(parts[0].width * scale)), max(1, round(parts[0].height * scale))
    return _beside(marked, *(part.resize(size, Image.Resampling.BILINEAR) for part in parts))


def _beside(*parts: Image.Image) -> Image.Image:
    width = sum(part.width for part in parts) + _GAP * (len(parts) - 1)
    whole, x = Image.new("RGB", (width, max(part.height for part in parts)), "white"), 0
    for part in parts:
        whole.paste(part, (x, 0))
        x += part.width + _GAP
    return whole


def _middle(mask: np.ndarray) -> tuple[int, int]:
    """Return the pixel (x, y) of a mask that is nearest to its centre of mass."""
    ys, xs = np.nonzero(mask)
    if not len(xs):
        return mask.shape[1] // 2, mask.shape[0] // 2
    nearest = np.argmin((xs - xs.mean()) ** 2 + (ys - ys.mean()) ** 2)
    return int(xs[nearest]), int(ys[nearest])
