"""Draw predictions on images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from genseg_hub.schema import Prediction

# Okabe-Ito: distinguishable with any colour vision.
COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_OPACITY = 0.3
_DIMMED = 0.4


def draw_masks(image: Image.Image, masks: Sequence[np.ndarray]) -> Image.Image:
    """Tint and outline each mask in its own colour, and dim the rest of the image.

    Args:
        image: image of any mode.
        masks: bool[H, W] each, of the image's size.
    """
    pixels = np.asarray(image.convert("RGB")).astype(np.float32)
    if len(masks):
        pixels[~np.any(masks, axis=0)] *= _DIMMED
    for i, mask in enumerate(masks):
        color = np.array(COLORS[i % len(COLORS)], dtype=np.float32)
        pixels[mask] = (1 - _OPACITY) * pixels[mask] + _OPACITY * color
        core = mask.copy()
        for axis in (0, 1):
            for step in (1, -1):
                core &= np.roll(mask, step, axis)
        pixels[mask & ~core] = color
    return Image.fromarray(pixels.astype(np.uint8))


def draw_prediction(image: Image.Image, prediction: Prediction) -> Image.Image:
    """Draw the masks, boxes and points of a prediction on its image."""
    drawn = draw_masks(image, prediction.masks)
    pen = ImageDraw.Draw(drawn)
    width = max(1, round(max(drawn.size) / 400))
    for i, instance in enumerate(prediction.response.instances):
        color = COLORS[i % len(COLORS)]
        if instance.box:
            pen.rectangle(instance.box, outline=color, width=width)
        for x, y in instance.points:
            pen.ellipse([x - 2 * width, y - 2 * width, x + 2 * width, y + 2 * width], fill="white", outline="black")
    return drawn


def contact_sheet(panels: Sequence[tuple[Image.Image, str]], columns: int = 4, width: int = 300) -> Image.Image:
    """Arrange pictures in rows, with a caption under each.

    Args:
        panels: (picture, caption) pairs; captions may have several lines.
        columns: pictures in a row.
        width: width of a cell in pixels; pictures keep their aspect ratio.
    """
    font = ImageFont.load_default(14)
    picture_height, caption_height, gap = round(width * 0.8), 46, 10
    rows = -(-len(panels) // columns)
    size = (columns * (width + gap) + gap, rows * (picture_height + caption_height + gap) + gap)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for i, (picture, caption) in enumerate(panels):
        x = gap + i % columns * (width + gap)
        y = gap + i // columns * (picture_height + caption_height + gap)
        scale = min(width / picture.width, picture_height / picture.height)
        fitted = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
        sheet.paste(fitted, (x + (width - fitted.width) // 2, y))
        pen.text((x, y + picture_height + 4), caption, fill="black", font=font)
    return sheet
