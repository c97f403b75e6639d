"""Referring examples of boxes on plain images."""

import numpy as np
from genseg_hub.schema import ReferringExample, encode_mask
from PIL import Image


def example(expression="it", boxes=((1, 2, 5, 6),), size=(20, 10), name="a", color="black"):
    """Return an example whose masks are boxes (x1, y1, x2, y2)."""
    masks = []
    for x1, y1, x2, y2 in boxes:
        mask = np.zeros(size[::-1], bool)
        mask[y1:y2, x1:x2] = True
        masks.append(encode_mask(mask))
    return ReferringExample(Image.new("RGB", size, color), expression, tuple(masks), name, name)
