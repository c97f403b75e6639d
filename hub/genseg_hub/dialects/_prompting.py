"""Chats, and expressions without control tokens, for the prompts of all dialects."""

from __future__ import annotations

import re

from genseg_hub.schema import normalize_expression

MAX_EXPRESSION_CHARACTERS = 2000
# No maker documents a prompt that allows for "nothing", so this sentence is the project's own.
OR_NOTHING = "If nothing in the image fits, answer []."

# Every control token of the Qwen tokenizers is written <…>: <|im_end|>, <think>, </tool_call>.
_TAG_OPENING = re.compile(r"<(?=[^\s\d=<])")


def as_data(expression: str) -> str:
    """Return an expression in which no control token of the tokenizer can appear.

    The expression is normalized. A space follows every `<` that could open a token: "<think>" becomes "< think>", and
    "a < b" stays as it is.

    Raises:
        TypeError: the expression is not a string.
        ValueError: the expression is empty, or longer than MAX_EXPRESSION_CHARACTERS.
    """
    if not isinstance(expression, str):
        raise TypeError(f"an expression must be a string, got {type(expression).__name__}: {expression!r:.80}")
    text = normalize_expression(expression)
    if not text:
        raise ValueError("the expression is empty; type what to look for, for example: the dog on the left")
    if len(text) > MAX_EXPRESSION_CHARACTERS:
        raise ValueError(
            f"the expression has {len(text)} characters, the limit is {MAX_EXPRESSION_CHARACTERS}; shorten it"
        )
    return _TAG_OPENING.sub("< ", text)


def question(request: str) -> list[dict]:
    """Return a chat of the image and the request, without system instructions."""
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": request}]}]


def chat(instructions: str, request: str) -> list[dict]:
    """Return a chat of system instructions, the image and the request."""
    return [{"role": "system", "content": [{"type": "text", "text": instructions}]}, *question(request)]
