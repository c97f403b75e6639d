"""The dialect of untuned Qwen3-VL Instruct checkpoints: the paper's baseline.

Qwen3-VL gives boxes and points in 0-1000 of the image's own frame. An untuned model often fences its JSON, adds prose,
gives one object in place of a list, or omits the points. `parse` reads all of these.
"""

from __future__ import annotations

from genseg_hub.dialects import _parsing
from genseg_hub.dialects._prompting import as_data, chat
from genseg_hub.schema import Response

INSTRUCTIONS = (
    "Locate every instance that the expression refers to in the image. Answer with a JSON list: one "
    '{"bbox_2d": [x1, y1, x2, y2], "points": [[x, y], [x, y]]} per instance, both points inside the instance, '
    "coordinates from 0 to 1000. If the expression refers to nothing in the image, answer []."
)
MAX_NEW_TOKENS = 1024
IMAGE_SIZE: tuple[int, int] | None = None
MULTIMASK = False
_FORM = _parsing.Form(scale=(1000, 1000), tagged=False, wanted=None)


def messages(image_size: tuple[int, int], expression: str) -> list[dict]:
    """See `Dialect.messages`."""
    return chat(INSTRUCTIONS, f"Expression: {as_data(expression)}")


def parse(text: str | bytes, image_size: tuple[int, int], truncated: bool = False) -> Response:
    """See `Dialect.parse`."""
    return _parsing.parse_tagged(text, image_size, _FORM, truncated)
