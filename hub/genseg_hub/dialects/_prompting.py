"""What every dialect's prompt shares: the chat form, and an expression that stays data."""

from __future__ import annotations

import re
import unicodedata

MAX_EXPRESSION_CHARACTERS = 2000

# Every control token of the Qwen tokenizers is written <…>: <|im_end|>, <think>, </tool_call>.
_TAG_OPENING = re.compile(r"<(?=[^\s\d=<])")


def as_data(expression: str) -> str:
    """An expression on one line in which no control token of the tokenizer can appear.

    A `<` that could open a token is followed by a space: "<think>" becomes "< think>", "a < b"
    stays as it is.

    Raises:
        TypeError: when the expression is not a string.
        ValueError: when it is empty, or longer than MAX_EXPRESSION_CHARACTERS.
    """
    if not isinstance(expression, str):
        raise TypeError(f"an expression must be a string, got {type(expression).__name__}: {expression!r:.80}")
    printable = "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in expression)
    text = " ".join(printable.split())
    if not text:
        raise ValueError("the expression is empty; type what to look for, for example: the dog on the left")
    if len(text) > MAX_EXPRESSION_CHARACTERS:
        raise ValueError(
            f"the expression has {len(text)} characters, the limit is {MAX_EXPRESSION_CHARACTERS}; shorten it"
        )
    return _TAG_OPENING.sub("< ", text)


def question(request: str) -> list[dict]:
    """The image and the request, without system instructions."""
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": request}]}]


def chat(instructions: str, request: str) -> list[dict]:
    """System instructions, then the image and the request."""
    return [{"role": "system", "content": [{"type": "text", "text": instructions}]}, *question(request)]
