"""Dialects: how one family of checkpoints is prompted and how its answer is parsed.

A dialect is a module in this folder whose name does not start with an underscore; adding one means
adding one file. It alone knows the family's coordinates; everything outside is in pixels of the
original image.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol, cast

from genseg_hub.schema import Response


class Dialect(Protocol):
    """What a dialect module defines.

    `IMAGE_SIZE` is the (width, height) to which the image is resized before it is shown, None for its own size.
    `MULTIMASK` says that of SAM 2's three masks of an instance the one with the highest predicted IoU is taken.
    """

    __name__: str
    MAX_NEW_TOKENS: int
    IMAGE_SIZE: tuple[int, int] | None
    MULTIMASK: bool

    def messages(self, image_size: tuple[int, int], expression: str) -> list[dict]: ...

    def parse(self, text: str | bytes, image_size: tuple[int, int], truncated: bool = False) -> Response: ...


def names() -> list[str]:
    """The dialects there are, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def get_dialect(name: str) -> Dialect:
    """The dialect of that name.

    Raises:
        ValueError: naming the dialects that exist.
    """
    if name not in names():
        raise ValueError(f"there is no dialect {name!r}; choose one of {', '.join(names())}")
    return cast(Dialect, importlib.import_module(f"{__name__}.{name}"))
