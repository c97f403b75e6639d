"""Dialects: how a family of checkpoints is prompted, and its answers parsed.

A dialect is a module in this folder whose name does not start with an underscore. To add a dialect, add one file. Only
the dialect knows the family's coordinates; all other code uses pixels of the original image.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import Protocol, cast

from genseg_hub.schema import Response


class Dialect(Protocol):
    """Interface of a dialect module.

    Attributes:
        TUNED: whether the checkpoints were trained to answer in this form. Only an untuned checkpoint may say in words
            that there is nothing.
        MODEL_TYPES: `model_type` values of config.json whose untuned checkpoints speak this dialect; () for a dialect
            of tuned checkpoints.
        NAMES: names of the models that do not contain a model type; a module without it has none.
        FRAME: coordinates of the answers, in words, such as "0-1000 of the image".
        PIXELS: whether the coordinates are pixels of the resized image; then `parse` needs its size.
        TOKEN_SIDE: side in pixels of the square that is one image token.
        MAX_NEW_TOKENS: token limit of an answer.
        IMAGE_SIZE: (width, height) to which the image is resized before the reasoner sees it; None for its own size.
        MULTIMASK: whether SAM 2 makes three masks of an instance, of which the mask with the highest predicted IoU
            counts.
    """

    __name__: str
    TUNED: bool
    MODEL_TYPES: tuple[str, ...]
    FRAME: str
    PIXELS: bool
    TOKEN_SIDE: int
    MAX_NEW_TOKENS: int
    IMAGE_SIZE: tuple[int, int] | None
    MULTIMASK: bool

    def messages(self, image_size: tuple[int, int], expression: str) -> list[dict]:
        """Return the chat for one expression.

        {"type": "image"} stands in place of the image.

        Args:
            image_size: (width, height) of the original image in pixels.
            expression: the natural-language query.

        Raises:
            TypeError, ValueError: the expression cannot be used.
        """
        ...

    def parse(
        self,
        text: str,
        image_size: tuple[int, int],
        truncated: bool = False,
        shown_size: tuple[int, int] | None = None,
    ) -> Response:
        """Read an answer; never raise, because `Response.error` says what is wrong.

        Call `answers.read` instead: it bounds the text before this function and the Response after it.

        Args:
            text: the generated answer; it begins with `<think>` if the prompt ended inside an open thought.
            image_size: (width, height) of the original image in pixels.
            truncated: whether generation stopped at the token limit.
            shown_size: (width, height) in pixels of the image as the model saw it; None if unknown. Only a dialect
                whose coordinates are pixels of the resized image reads it.
        """
        ...


def names() -> list[str]:
    """Return the names of all dialects, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def get_dialect(name: str) -> Dialect:
    """Return the dialect of that name.

    Raises:
        ValueError: there is no such dialect; the message lists all dialects.
    """
    if name not in names():
        raise ValueError(f"there is no dialect {name!r}; choose one of {', '.join(names())}")
    return cast(Dialect, importlib.import_module(f"{__name__}.{name}"))


def of_model_type(model_type: str) -> str | None:
    """Return the dialect of untuned checkpoints of a `model_type`; None if unknown."""
    return model_types().get(model_type)


def of_name(name: str) -> str | None:
    """Return the dialect that a model's name tells; None if it tells none.

    A server lists names such as "qwen3-vl:8b-instruct" without config.json. Only letters and digits are compared, and
    the longest model type in the name counts.
    """
    letters = _letters(name)
    further = {told: found for found in names() for told in getattr(get_dialect(found), "NAMES", ())}
    known = [(told, found) for told, found in (model_types() | further).items() if _letters(told) in letters]
    return max(known, key=lambda pair: len(pair[0]))[1] if known else None


def model_types() -> dict[str, str]:
    """Return the known `model_type` values, each with its dialect."""
    return {kind: name for name in names() for kind in get_dialect(name).MODEL_TYPES}


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
