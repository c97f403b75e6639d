"""Separate the thought of an answer from the answer itself."""

from __future__ import annotations

import re
from typing import NamedTuple

_TAG = re.compile(r"<(/?)think(?:ing)?>")


class Thought(NamedTuple):
    """Parts of a generated text.

    Attributes:
        reasoning: the thought, "" if there is none.
        answer: the text after the thought; "" if the text ends inside the thought.
        unfinished: whether the text ends inside the thought, so that no guess in it is an answer.
    """

    reasoning: str
    answer: str
    unfinished: bool


def split_thought(text: str) -> Thought:
    """Split a text at `<think>` and `</think>`, or at `<thinking>` and `</thinking>`.

    Everything before the last closing tag belongs to the thought, because some prompts open the thought themselves. An
    opening tag without a closing tag makes the thought unfinished.
    """
    tags = list(_TAG.finditer(text))
    closing = next((tag for tag in reversed(tags) if tag[1]), None)
    start = closing.end() if closing else 0
    thoughts = []
    if closing:
        opening = next((tag for tag in tags if not tag[1] and tag.start() < closing.start()), None)
        thoughts.append(text[opening.end() if opening else 0 : closing.start()].strip())
    opened = next((tag for tag in tags if tag.start() >= start), None)
    if opened:
        thoughts.append(text[opened.end() :].strip())
    return Thought("\n".join(filter(None, thoughts)), "" if opened else text[start:], bool(opened))
