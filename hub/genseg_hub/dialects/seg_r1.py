"""The dialect of Seg-R1 (arXiv 2506.22624; github.com/geshang777/Seg-R1).

The instructions and the request come from its evaluation (eval/eval_referring_segmentation.py). As in that evaluation,
the reasoner sees the image at 1024 x 1024 pixels (training: 768 x 768) and answers in them, in tags:
`<bbox>[x1,y1,x2,y2]</bbox>`, once or several times, `<points>[[x,y],...]</points>` and `<labels>[1,0,...]</labels>`.
The label 1 marks a point of the object and 0 a point of the background. A point belongs to every box that contains it.
The dialect has no no-target answer. Unlike in that evaluation, SAM 2 sees the image undistorted and in its right
colours, and decoding is greedy.
"""

from __future__ import annotations

import json
import re
from typing import Any

from genseg_hub.dialects import _parsing
from genseg_hub.dialects._loose_json import has_words
from genseg_hub.dialects._prompting import as_data, chat
from genseg_hub.dialects._thought import split_thought
from genseg_hub.schema import InstancePrompt, Response, ResponseError

INSTRUCTIONS = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process should enclosed within <think> </think> tags, and the bounding box, points and points labels should be "
    "enclosed within <bbox></bbox>, <points></points>, and <labels></labels>, respectively. i.e., <think> reasoning "
    "process here </think> <bbox>[x1,y1,x2,y2]</bbox>, <points>[[x3,y3],[x4,y4],...]</points>, "
    "<labels>[1,0,...]</labels>Where 1 indicates a foreground (object) point, and 0 indicates a background point."
)
TUNED = True
MODEL_TYPES: tuple[str, ...] = ()
FRAME = "pixels of the image at 1024 x 1024"
PIXELS = False
TOKEN_SIDE = 28
MAX_NEW_TOKENS = 1024
IMAGE_SIZE: tuple[int, int] | None = (1024, 1024)
_SCALE = (1024, 1024)
MULTIMASK = False
_TAG = re.compile(r"</?(?:bbox|points|labels)>")


def messages(image_size: tuple[int, int], expression: str) -> list[dict]:
    """See `Dialect.messages`."""
    return chat(INSTRUCTIONS, f"Identify and segment {as_data(expression)}")


def parse(
    text: str,
    image_size: tuple[int, int],
    truncated: bool = False,
    shown_size: tuple[int, int] | None = None,
) -> Response:
    """See `Dialect.parse`."""
    reasoning, rest, unfinished = split_thought(text)
    if unfinished:
        return Response(text, reasoning, error=ResponseError.TRUNCATED_THOUGHT)
    *_, last = ("", 0), *((tag[0], tag.end()) for tag in _TAG.finditer(rest))
    if truncated and last[0].startswith("</") and has_words(rest[last[1] :]):
        return Response(text, reasoning, error=ResponseError.TRUNCATED)  # words follow the tags: they were a guess
    boxes = _tagged(rest, "bbox")
    if not boxes:
        return Response(text, reasoning, error=ResponseError.TRUNCATED if truncated else ResponseError.NO_ANSWER_TAG)
    error = ResponseError.TRUNCATED if truncated and last[0] != "</labels>" else None
    raw_points, labels = (_joined(_tagged(rest, name)) for name in ("points", "labels"))
    points, clean = _parsing.pixel_points(raw_points, image_size, _SCALE)
    if not clean or len(labels) != len(points) or any(label not in (0, 1) for label in labels):
        error, points = error or ResponseError.WRONG_SCHEMA, []
    instances = []
    if any(_parsing.has_wrong_scale(_parsing.finite(raw, 4) or (), _parsing.limits(_SCALE)) for raw in boxes):
        error, boxes = error or ResponseError.WRONG_SCALE, []
    for raw in boxes:
        box, problem = _parsing.pixel_box(raw, image_size, _SCALE)
        error = error or problem
        if box:
            mine = [(point, label) for point, label in zip(points, labels) if _parsing.inside(point, box)]  # noqa: B905
            positive, negative = (tuple(point for point, label in mine if label == kind) for kind in (1, 0))
            instances.append(InstancePrompt(box, positive, negative_points=negative))
    return Response(text, reasoning, tuple(instances), error)


def _tagged(text: str, name: str) -> list[Any]:
    """Return the value of each `<name>…</name>`, None for invalid JSON."""
    values = []
    for content in re.findall(rf"<{name}>([^<]*)</{name}>", text):
        try:
            values.append(json.loads(content))
        except (ValueError, RecursionError):
            values.append(None)
    return values


def _joined(lists: list[Any]) -> list[Any]:
    """Concatenate lists; another value stays an item, which later checks reject."""
    return [item for value in lists for item in (value if isinstance(value, list) else [value])]
