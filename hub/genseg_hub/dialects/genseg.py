"""The dialect of GenSeg-R1 checkpoints.

Answer: `<think>…</think><answer>[{"bbox_2d":[x1,y1,x2,y2],"points":[[x,y],[x,y]]}, …]</answer>`,
coordinates 0-1000 of the image's own frame, `[]` for no-target. The paper (arXiv 2602.09701) does
not publish its prompt or its schema: both are this project's own choice. The instructions come
first and the expression last, so that everything before it is one shared prefix for a server's or
a trainer's cache.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from genseg_hub.dialects import _parsing
from genseg_hub.dialects._prompting import as_data, chat
from genseg_hub.schema import InstancePrompt, Response

INSTRUCTIONS = (
    "Segment what the expression refers to in the image. Think in <think></think>, then answer in <answer></answer>: "
    'a JSON list with one {"bbox_2d":[x1,y1,x2,y2],"points":[[x,y],[x,y]]} per referred instance, '
    "both points inside it, coordinates 0 to 1000; [] if nothing is meant."
)
MAX_NEW_TOKENS = 1024
IMAGE_SIZE: tuple[int, int] | None = None
MULTIMASK = False
_FORM = _parsing.Form(scale=(1000, 1000))


def messages(image_size: tuple[int, int], expression: str) -> list[dict]:
    """The chat for one expression; the image takes the place of {"type": "image"}."""
    return chat(INSTRUCTIONS, f"Expression: {as_data(expression)}")


def parse(text: str | bytes, image_size: tuple[int, int], truncated: bool = False) -> Response:
    """Read an answer. Never raises; see `Response.error`."""
    return _parsing.parse_tagged(text, image_size, _FORM, truncated)


def render(reasoning: str, instances: Iterable[InstancePrompt], image_size: tuple[int, int]) -> str:
    """Write an answer as `parse` reads it: the inverse of `parse` up to rounding to 1/1000."""
    width, height = image_size

    def scaled(*xy: float) -> list[int]:
        return [round(1000 * value / (height if i % 2 else width)) for i, value in enumerate(xy)]

    answer = [
        {"bbox_2d": scaled(*instance.box), "points": [scaled(*point) for point in instance.points]}
        for instance in instances
    ]
    return f"<think>{reasoning}</think><answer>{json.dumps(answer, separators=(',', ':'))}</answer>"
