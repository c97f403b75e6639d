"""Dialect of VisionReasoner (arXiv 2505.12081).

Source: github.com/dvlab-research/VisionReasoner. The prompt is the training prompt of its checkpoint
(vision_reasoner/models/vision_reasoner_model.py). The reasoner sees the image at 840 x 840 pixels and answers in these
pixels with a list: one `{"bbox_2d": [x1, y1, x2, y2], "point_2d": [x, y]}` per object.
"""

from __future__ import annotations

from typing import Any

from genseg_hub.dialects import _parsing
from genseg_hub.dialects._prompting import as_data, question
from genseg_hub.schema import Response

PROMPT = (
    'Please find "{expression}" with bboxs and points.'
    "Compare the difference between object(s) and find the most closely matched object(s)."
    "Output the thinking process in <think> </think> and final answer in <answer> </answer> tags."
    "Output the bbox(es) and point(s) inside the interested object(s) in JSON format."
    "i.e., <think> thinking process here </think>"
    '<answer>[{{"bbox_2d": [10,100,200,210], "point_2d": [30,110]}}, '
    '{{"bbox_2d": [225,296,706,786], "point_2d": [302,410]}}]</answer>'
)
TUNED = True
MODEL_TYPES: tuple[str, ...] = ()
FRAME = "pixels of the image at 840 x 840"
PIXELS = False
TOKEN_SIDE = 28
MAX_NEW_TOKENS = 2048
IMAGE_SIZE: tuple[int, int] | None = (840, 840)
MULTIMASK = True


def _point(item: dict[str, Any]) -> list[Any] | None:
    return [item["point_2d"]] if "point_2d" in item else None


_FORM = _parsing.Form(scale=(840, 840), points=_point, wanted=1)


def messages(image_size: tuple[int, int], expression: str) -> list[dict]:
    """See `Dialect.messages`."""
    asked = as_data(expression).lower()
    return question(PROMPT.format(expression=asked.strip('."?!') or asked))


def parse(
    text: str,
    image_size: tuple[int, int],
    truncated: bool = False,
    shown_size: tuple[int, int] | None = None,
) -> Response:
    """See `Dialect.parse`."""
    return _parsing.parse_tagged(text, image_size, _FORM, truncated)
