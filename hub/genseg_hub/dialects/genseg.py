"""The dialect of GenSeg-R1 checkpoints.

Answer: `<think>…</think><answer>[{"bbox_2d":[x1,y1,x2,y2],"points":[[x,y],[x,y]]}, …]</answer>`, coordinates 0-1000 of
the image's own frame, `[]` for no-target. The paper (arXiv 2602.09701) publishes neither prompt nor schema: both are
this project's own choice. The instructions come first and the expression last, because a server or a trainer can
then cache everything before the expression as one shared prefix.
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
TUNED = True
MODEL_TYPES: tuple[str, ...] = ()
FRAME = "0-1000 of the image"
PIXELS = False
TOKEN_SIDE = 32
MAX_NEW_TOKENS = 1024
IMAGE_SIZE: tuple[int, int] | None = None
MULTIMASK = False
_FORM = _parsing.Form(scale=(1000, 1000))


def messages(image_size: tuple[int, int], expression: str) -> list[dict]:
    """See `Dialect.messages`."""
    return chat(INSTRUCTIONS, f"Expression: {as_data(expression)}")


def parse(
    text: str,
    image_size: tuple[int, int],
    truncated: bool = False,
    shown_size: tuple[int, int] | None = None,
) -> Response:
    """See `Dialect.parse`."""
    return _parsing.parse_tagged(text, image_size, _FORM, truncated)


def render(reasoning: str, instances: Iterable[InstancePrompt], image_size: tuple[int, int]) -> str:
    """Write an answer that `parse` reads back, up to rounding to 1/1000.

    Raises:
        ValueError: an instance has no box, which the form demands.
    """
    width, height = image_size

    def scaled(*xy: float) -> list[int]:
        return [round(1000 * value / (height if i % 2 else width)) for i, value in enumerate(xy)]

    answer = []
    for instance in instances:
        if instance.box is None:
            raise ValueError(f"an answer of the dialect genseg needs boxes; this instance has none: {instance}")
        points = [scaled(*point) for point in instance.points]
        answer.append({"bbox_2d": scaled(*instance.box), "points": points})
    return f"<think>{reasoning}</think><answer>{json.dumps(answer, separators=(',', ':'))}</answer>"
