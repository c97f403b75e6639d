"""Reading the pickles of the REFER archives without ever running what is in them.

A pickle is a program that may name any function and call it. Those of REFER hold dictionaries, lists, strings, numbers,
booleans and None; none of these has to be named, so everything that is named is refused.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and plain data names nothing")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to objects outside itself")


def load_plain(file: Path) -> Any:
    """The containers, numbers and strings of a pickle, Python 2's included.

    Raises:
        ValueError: for a file that is not a pickle, is cut short, or holds anything else; nothing of it has run.
    """
    with file.open("rb") as stream:
        try:
            # Python 2's byte strings: the archives have a few Latin-1 characters, and Latin-1 decodes any byte.
            return _PlainUnpickler(stream, encoding="latin1").load()
        except Exception as error:  # a malformed pickle fails in any way it likes
            raise ValueError(f"{file} is not a pickle of plain data ({error}); fetch the archive again") from error
