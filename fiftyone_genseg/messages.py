"""Messages that people read in forms, notifications and terminals."""

from __future__ import annotations

import re

from genseg_hub.schema import ResponseError

_ERRORS = {
    ResponseError.NO_ANSWER_TAG: "the answer has no <answer> part",
    ResponseError.TRUNCATED: "the answer was cut off (the token limit was reached)",
    ResponseError.TRUNCATED_THOUGHT: "the answer ends inside its thought (the token limit was reached)",
    ResponseError.INVALID_JSON: "the answer has no readable JSON",
    ResponseError.WRONG_SCHEMA: "the answer's JSON has another form than the dialect asks for",
    ResponseError.WRONG_SCALE: "the answer's coordinates are on another scale than the dialect's",
    ResponseError.BOX_OUT_OF_IMAGE: "a box of the answer lies outside the image",
    ResponseError.POINT_OUT_OF_IMAGE: "a point of the answer lies outside the image",
    ResponseError.EMPTY_BOX: "a box of the answer has no area",
    ResponseError.TOO_MANY_INSTANCES: "the answer names too many instances",
    ResponseError.TOO_MANY_ROUNDS: "the agent found no end within its rounds",
}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+.!|<>~$^&=:/-])")
PHOTOGRAPHS = "Qwen/Qwen3-VL-4B-Instruct"  # a checkpoint to begin with
_NANO = "nano knows rendered shapes only. For photographs"
_FITS = "(genseg doctor says what fits)"
# For a form, where a checkpoint is chosen.
NANO_IN_A_FORM = f"{_NANO} choose the checkpoint {PHOTOGRAPHS}, or name a server {_FITS}"


def sentence(error: Exception) -> str:
    """Return an error's message as a sentence."""
    text = str(error).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def error_in_words(error: str) -> str:
    """Return the meaning of a stored error.

    The value of a `ResponseError` becomes words, and any other text stays.
    """
    try:
        return _ERRORS[ResponseError(error)]
    except ValueError:
        return error


def plain(text: str) -> str:
    """Return a model's or a person's text as Markdown that shows it letter by letter.

    The text becomes one paragraph.
    """
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def nano_in_a_terminal(checkpoint: str | None = None) -> str:
    """Return the command to type instead of nano.

    Args:
        checkpoint: the recommended one; None if none fits this machine, or if nobody looked.
    """
    return f"{_NANO} type: --model {checkpoint or PHOTOGRAPHS}, or --server ... {_FITS}"
