"""Dialects: how one family of checkpoints is prompted and how its answer is parsed.

A dialect is a module in this folder whose name does not start with an underscore. To add a dialect, add one file. Only
the dialect knows the family's coordinates; all other code uses pixels of the original image.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol, cast

from genseg_hub.schema import Response


class Dialect(Protocol):
    """Interface of a dialect module.

    Attributes:
        MAX_NEW_TOKENS: token limit of an answer.
        IMAGE_SIZE: (width, height) to which the image is resized before the reasoner sees it; None for its own size.
        MULTIMASK: whether SAM 2 makes three masks of an instance, of which the mask with the highest predicted IoU
            counts.
    """

    __name__: str
    MAX_NEW_TOKENS: int
    IMAGE_SIZE: tuple[int, int] | None
    MULTIMASK: bool

    def messages(self, image_size: tuple[int, int], expression: str) -> list[dict]:
        """Return the chat for one expression, with {"type": "image"} in place of the image.

        Args:
            image_size: (width, height) of the original image in pixels.
            expression: the natural-language query.

        Raises:
            TypeError, ValueError: the expression cannot be used.
        """
        ...

    def parse(self, text: str | bytes, image_size: tuple[int, int], truncated: bool = False) -> Response:
        """Read an answer; never raise, because `Response.error` says what is wrong.

        Args:
            text: the generated answer.
            image_size: (width, height) of the original image in pixels.
            truncated: whether generation stopped at the token limit.
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
