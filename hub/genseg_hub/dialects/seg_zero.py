"""Dialect of Seg-Zero (arXiv 2503.06520).

Source: github.com/dvlab-research/Seg-Zero, inference_scripts/infer.py. The prompt is the training prompt of its
checkpoint. The reasoner sees the image at 840 x 840 pixels and answers in these pixels with one object, `{"bbox": [x1,
y1, x2, y2], "points_1": [x, y], "points_2": [x, y]}`. The dialect has no no-target answer.
"""

from __future__ import annotations

from typing import Any

from genseg_hub.dialects import _parsing
from genseg_hub.dialects._prompting import as_data, question
from genseg_hub.schema import Response

PROMPT = (
    "Please find '{expression}' with bbox and points."
    "Compare the difference between objects and find the most closely matched one."
    "Output the thinking process in <think> </think> and final answer in <answer> </answer> tags."
    "Output the one bbox and points of two largest inscribed circles inside the interested object in JSON format."
    "i.e., <think> thinking process here </think>"
    "<answer>{{'bbox': [10,100,200,210], 'points_1': [30,110], 'points_2': [35,180]}}</answer>"
)
TUNED = True
MODEL_TYPES: tuple[str, ...] = ()
FRAME = "pixels of the image at 840 x 840"
PIXELS = False
TOKEN_SIDE = 28
MAX_NEW_TOKENS = 1024
IMAGE_SIZE: tuple[int, int] | None = (840, 840)
MULTIMASK = True


def _points(item: dict[str, Any]) -> list[Any] | None:
    named = [value for key, value in item.items() if "points" in key.lower()]
    return named[:2] or None


_FORM = _parsing.Form(scale=(840, 840), tagged=False, box="bbox", points=_points)


def messages(image_size: tuple[int, int], expression: str) -> list[dict]:
    """See `Dialect.messages`."""
    asked = as_data(expression).lower()
    return question(PROMPT.format(expression=asked.strip(".") or asked))


def parse(
    text: str,
    image_size: tuple[int, int],
    truncated: bool = False,
    shown_size: tuple[int, int] | None = None,
) -> Response:
    """See `Dialect.parse`."""
    return _parsing.parse_tagged(text, image_size, _FORM, truncated)
