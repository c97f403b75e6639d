"""Read the pickles of the REFER archives without running any code in them.

A pickle is a program that may name any function and call it. REFER's pickles hold dictionaries, lists, strings,
numbers, booleans and None. Plain data names no function, so this module refuses every name. Before it builds any
object, it also refuses all other means by which a small file could exhaust memory or time.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import pickletools
from pathlib import Path
from typing import Any, NoReturn

from genseg_hub.errors import ArchiveError

# Without tuples and sets: a tuple of tuples as the key of a dictionary takes forever, or crashes.
_PLAIN = {
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT",
    "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT",
    "DICT", "SETITEM", "SETITEMS", "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
}  # fmt: skip
_LARGEST = 1 << 63
_NUMBERED = ("PUT", "BINPUT", "LONG_BINPUT")
_plain: set[bytes] = set()  # digests of pickles that are checked, because every split is read from the same file


class PlainUnpickler(pickle.Unpickler):
    """Unpickler that refuses every name and every object outside the pickle."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse a name."""
        raise pickle.UnpicklingError(f"it names {module}.{name}, and plain data names nothing")

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse an object outside the pickle."""
        raise pickle.UnpicklingError("it refers to objects outside itself")


def load_plain(file: Path) -> Any:
    """Return the plain data of a pickle, also of Python 2.

    Plain data are lists, dictionaries, numbers and strings.

    Raises:
        ArchiveError: the file is no pickle, is truncated, or holds other data; none of its code has run.
    """
    content = file.read_bytes()
    digest = hashlib.sha256(content).digest()
    try:
        if digest not in _plain:
            _check(content)
            _plain.add(digest)
        # Latin-1 decodes any byte of Python 2's byte strings.
        return PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a malformed pickle raises errors of any type
        raise ArchiveError(f"{file} is not a pickle of plain data ({error}); fetch the archive again") from error


def _check(content: bytes) -> None:
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in _PLAIN:
            raise pickle.UnpicklingError(f"it has a {opcode.name}, which plain data does not need")
        if isinstance(argument, int) and not -_LARGEST <= argument < _LARGEST:  # many such keys can share one hash
            raise pickle.UnpicklingError(
                f"it has a number of {argument.bit_length()} bits, which plain data does not need"
            )
        if opcode.name in _NUMBERED and int(argument or 0) > number:  # pickle allocates memory up to this number
            raise pickle.UnpicklingError(f"it numbers an object {argument}, with fewer objects before it")
