"""Reading the pickles of the REFER archives without ever running what is in them.

A pickle is a program that may name any function and call it. Those of REFER hold dictionaries, lists, strings, numbers,
booleans and None. None of these has to be named, so everything that is named is refused; and so is, before anything is
built, whatever else a small file could take the memory or the time with.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any, NoReturn

# Tuples and sets are not among them: as the key of a dictionary a tuple of tuples takes forever, or crashes.
_PLAIN = {
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT",
    "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT",
    "DICT", "SETITEM", "SETITEMS", "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
}  # fmt: skip
_LARGEST = 1 << 63
_NUMBERED = ("PUT", "BINPUT", "LONG_BINPUT")


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and plain data names nothing")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to objects outside itself")


def load_plain(file: Path) -> Any:
    """The lists, dictionaries, numbers and strings of a pickle, Python 2's included.

    Raises:
        ValueError: for a file that is not a pickle, is cut short, or holds anything else; nothing of it has run.
    """
    content = file.read_bytes()
    try:
        _check(content)
        # Python 2's byte strings: Latin-1 decodes any byte.
        return _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a malformed pickle fails in any way it likes
        raise ValueError(f"{file} is not a pickle of plain data ({error}); fetch the archive again") from error


def _check(content: bytes) -> None:
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in _PLAIN:
            raise pickle.UnpicklingError(f"it has a {opcode.name}, which plain data does not need")
        if isinstance(argument, int) and not -_LARGEST <= argument < _LARGEST:  # as keys they can be alike
            raise pickle.UnpicklingError(
                f"it has a number of {argument.bit_length()} bits, which plain data does not need"
            )
        if opcode.name in _NUMBERED and int(argument or 0) > number:  # memory is reserved up to this number
            raise pickle.UnpicklingError(f"it gives the number {argument} to an object with fewer before it")
