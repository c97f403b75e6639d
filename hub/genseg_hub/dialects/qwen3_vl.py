"""The dialect of untuned Qwen3-VL Instruct checkpoints: the paper's baseline.

Qwen3-VL gives boxes and points in 0-1000 of the image's own frame. An untuned model often fences its JSON, adds prose,
gives one object in place of a list, or omits the points. `_untuned` reads all these forms.
"""

from __future__ import annotations

from genseg_hub.dialects import _untuned
from genseg_hub.dialects._prompting import as_data, chat

INSTRUCTIONS = (
    "Locate every instance that the expression refers to in the image. Answer with a JSON list: one "
    '{"bbox_2d": [x1, y1, x2, y2], "points": [[x, y], [x, y]]} per instance, both points inside the instance, '
    "coordinates from 0 to 1000. If the expression refers to nothing in the image, answer []."
)
TUNED = False
MODEL_TYPES: tuple[str, ...] = ("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
FRAME = "0-1000 of the image"
PIXELS = False
TOKEN_SIDE = 32
MAX_NEW_TOKENS = 1024
IMAGE_SIZE: tuple[int, int] | None = None
MULTIMASK = False
parse = _untuned.parse_thousandths


def messages(image_size: tuple[int, int], expression: str) -> list[dict]:
    """See `Dialect.messages`."""
    return chat(INSTRUCTIONS, f"Expression: {as_data(expression)}")
