"""The dialect of untuned Qwen2.5-VL checkpoints.

The request is from Qwen's cookbook (QwenLM/Qwen2.5-VL, cookbooks/spatial_understanding.ipynb): "Outline the position of
each small cake and output all the coordinates in JSON format." The sentence on no-target is this project's own. The
answer is `[{"bbox_2d": [x1, y1, x2, y2], "label": "…"}]`.

Coordinates are pixels of the image after the processor's resize (QwenLM/Qwen3-VL, issues 721 and 782), so `parse` needs
its size. If the size is unknown, `parse` computes it by Qwen's rule, `smart_resize`, with the limits of the published
checkpoints (preprocessor_config.json): multiples of 28, and between 56 x 56 and 12,845,056 pixels in all.
"""

from __future__ import annotations

from genseg_hub import images
from genseg_hub.dialects import _parsing, _untuned
from genseg_hub.dialects._prompting import OR_NOTHING, as_data, question
from genseg_hub.errors import ImageError
from genseg_hub.schema import Response

PROMPT = f"Outline the position of {{expression}} and output all the coordinates in JSON format. {OR_NOTHING}"
TUNED = False
MODEL_TYPES: tuple[str, ...] = ("qwen2_5_vl",)
FRAME = "pixels of the resized image"
PIXELS = True
TOKEN_SIDE = 28
MAX_NEW_TOKENS = 1024
IMAGE_SIZE: tuple[int, int] | None = None
MULTIMASK = False
_MIN_PIXELS, _MAX_PIXELS = 56 * 56, 12_845_056


def messages(image_size: tuple[int, int], expression: str) -> list[dict]:
    """See `Dialect.messages`."""
    return question(PROMPT.format(expression=as_data(expression)))


def parse(
    text: str,
    image_size: tuple[int, int],
    truncated: bool = False,
    shown_size: tuple[int, int] | None = None,
) -> Response:
    """See `Dialect.parse`."""
    size = shown_size or _shown_size(image_size)
    return _untuned.parse(text, image_size, truncated, _untuned.Frame(size, _parsing.limits(size)))


def _shown_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) to which Qwen's processor resizes an image."""
    try:
        return images.shown_size(image_size, TOKEN_SIDE, _MIN_PIXELS, _MAX_PIXELS)
    except ImageError:  # no processor shows such an image, so there is no answer about it
        return image_size
