"""Read values of records that somebody else wrote.

Check the type of a value before you print or compare it. A small pickle can hold nested lists that are endless in
print, or one long text a million times.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genseg_hub.archives.base import Problem, Unusable
from genseg_hub.errors import ArchiveError

_LIMIT = 1 << 63  # of numbers
_WHOLE = re.compile(r"-?\d{1,19}\.(?:0*|(\d{0,17})e\+?(\d{1,2}))")
_NUMPY_DECIMALS = 8  # NumPy rounds the numbers of an array to as many
_LONGEST = 10_000  # characters of a text


def as_text(value: Any) -> str | None:
    """Return stripped text; None for other values, very long text and lone surrogates."""
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    try:
        value.encode()  # raises for a lone surrogate
    except UnicodeEncodeError:
        return None
    return value.strip()


def as_id(value: Any) -> str | None:
    """Return an id, given as a number or as text, as text; None for other values."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int:
        return str(value) if -_LIMIT <= value < _LIMIT else None
    return as_text(value) or None


def whole(text: str) -> str:
    """Return the integer of a text such as 41.0, 4.1e+06 or 41., as pandas writes it.

    Any other text stays as it is, also a number that NumPy may have rounded.
    """
    found = _WHOLE.fullmatch(text)
    if not found:
        return text
    decimals, exponent = found.groups(default="0")
    if len(decimals) == _NUMPY_DECIMALS < int(exponent):
        return text
    number = float(text)
    return str(int(number)) if number.is_integer() and abs(number) < _LIMIT else text


def id_of(record: dict[str, Any], name: str, what: str) -> str:
    """Return an id of a record as text.

    Args:
        record: record of an archive.
        name: key of the id.
        what: name of the record, for errors.

    Raises:
        Unusable: the record has no such id.
    """
    found = as_id(record.get(name))
    if found is None:
        raise malformed(record, name, what, "a number or text")
    return found


def text_of(record: dict[str, Any], name: str, what: str) -> str:
    """Return a text of a record, stripped.

    Args:
        record: record of an archive.
        name: key of the text.
        what: name of the record, for errors.

    Raises:
        Unusable: the record has no such text.
    """
    found = as_text(record.get(name))
    if found is None:
        raise malformed(record, name, what, f"text of at most {_LONGEST:,} characters")
    return found


def size_of(record: dict[str, Any], name: str, what: str) -> int:
    """Return a number of pixels of a record.

    Args:
        record: record of an archive.
        name: key of the number.
        what: name of the record, for errors.

    Raises:
        Unusable: the record has no such number.
    """
    value = record.get(name)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 < value < _LIMIT:
        raise malformed(record, name, what, "a number of pixels")
    return value


def malformed(record: dict[str, Any], name: str, what: str, needed: str) -> Unusable:
    """Return the error for a value that is missing or of another kind than needed.

    Args:
        record: record of an archive.
        name: key of the value.
        what: name of the record.
        needed: description of the needed value.
    """
    wrong = f"{what} has no {name!r}" if record.get(name) is None else f"the {name!r} of {what} is something else"
    return Unusable(Problem.MALFORMED_RECORD, f"{wrong}; expected {needed}")


def as_records(values: Any) -> list[dict[str, Any]] | None:
    """Return the records of a list; None if the value is no list.

    An item that is no record becomes {}.
    """
    return [value if isinstance(value, dict) else {} for value in values] if isinstance(values, list) else None


def read_json(
    file: Path, fallback: str | None = None, hook: Callable[[dict[str, Any]], dict[str, Any]] | None = None
) -> Any:
    """Return the value in a JSON file.

    Args:
        file: file to read.
        fallback: encoding of files that are not in UTF-8.
        hook: returns the value of an object of the file; called for inner objects first.

    Raises:
        ArchiveError: the file is not JSON.
    """
    raw = file.read_bytes()
    try:
        try:
            return json.loads(raw, object_hook=hook)
        except UnicodeDecodeError:
            if fallback is None:
                raise
            return json.loads(raw.decode(fallback), object_hook=hook)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{file} is not JSON ({error}); fetch it again") from error
