"""Values of records that somebody else wrote.

What kind of thing a value is comes first, before it is printed or compared: a small pickle can hold lists of the same
lists that have no end when they are written out, and one long text a million times.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genseg_hub.archives.base import Problem, Unusable

_LIMIT = 1 << 63  # of numbers
_LONGEST = 10_000  # characters of a text


def as_text(value: Any) -> str | None:
    """Text without the space around it; None for anything else, for very long text and for half a character."""
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    try:
        value.encode()  # a lone surrogate cannot be
    except UnicodeEncodeError:
        return None
    return value.strip()


def as_id(value: Any) -> str | None:
    """An id as text, which files hold as a number or as text; None for anything else."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int:
        return str(value) if -_LIMIT <= value < _LIMIT else None
    return as_text(value) or None


def id_of(record: dict[str, Any], name: str, what: str) -> str:
    """An id of a record.

    Args:
        what: the record, for errors.

    Raises:
        Unusable: when there is none.
    """
    found = as_id(record.get(name))
    if found is None:
        raise malformed(record, name, what, "a number or text")
    return found


def text_of(record: dict[str, Any], name: str, what: str) -> str:
    """The text of a record without the space around it, as `id_of`."""
    found = as_text(record.get(name))
    if found is None:
        raise malformed(record, name, what, f"text of at most {_LONGEST:,} characters")
    return found


def size_of(record: dict[str, Any], name: str, what: str) -> int:
    """A number of pixels, as `id_of`."""
    value = record.get(name)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 < value < _LIMIT:
        raise malformed(record, name, what, "a number of pixels")
    return value


def malformed(record: dict[str, Any], name: str, what: str, needed: str) -> Unusable:
    """What to raise for a value that is not there, or not `needed`."""
    wrong = f"{what} has no {name!r}" if record.get(name) is None else f"the {name!r} of {what} is something else"
    return Unusable(Problem.MALFORMED_RECORD, f"{wrong}; needed is {needed}")


def as_records(values: Any) -> list[dict[str, Any]] | None:
    """The records of a list, {} for what is none; None for what is no list."""
    return [value if isinstance(value, dict) else {} for value in values] if isinstance(values, list) else None


def read_json(file: Path, fallback: str | None = None) -> Any:
    """What a JSON file holds.

    Args:
        fallback: encoding of files that are not in UTF-8.

    Raises:
        ValueError: naming the file.
    """
    raw = file.read_bytes()
    try:
        try:
            return json.loads(raw)
        except UnicodeDecodeError:
            if fallback is None:
                raise
            return json.loads(raw.decode(fallback))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}); fetch it again") from error
