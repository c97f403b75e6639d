"""Read JSON as untuned models write it.

Such JSON may stand in prose, repeat keys, lack commas or brackets, or be cut. json-repair is of no use here: it keeps
only the last of equal keys, and it completes a cut value without a word. This reader keeps every pair of an object, and
it drops values that a cut left unfinished. It takes time in proportion to the text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

_MAX_DEPTH = 50
_OPENING = re.compile(r"[\[{]")
# A string, a string in single quotes, a mark of the syntax, or a word. An unclosed string ends with the text, so that
# no part of the text is scanned again and again.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?' + r"|'[^'\"\[\]{}:,]*'" + r'|[\[\]{}:,]|[^\s\[\]{}:,"]+', re.S)
_TAG = re.compile(r"<[^<>]{1,40}>")
_NUMBER = re.compile(r"[+-]?\d{1,20}(?:\.\d{0,20})?(?:[eE][+-]?\d{1,3})?")
_WORDS = {"null": None, "None": None, "true": True, "True": True, "false": False, "False": False}
_OPENING_OF = {"]": "[", "}": "{"}
_BETWEEN_VALUES = " \t\r\n,;`]})"


class Object(tuple):
    """A JSON object as its (key, value) pairs, because a model may repeat a key."""

    __slots__ = ()

    def groups(self) -> list[dict[str, Any]]:
        """Return the pairs as dicts.

        A key that the current dict has already begins the next dict.
        """
        groups: list[dict[str, Any]] = [{}]
        for key, value in self:
            if key in groups[-1]:
                groups.append({})
            groups[-1][key] = value
        return groups


@dataclass(frozen=True)
class Value:
    """An outermost JSON list or object, and its place in the text.

    Attributes:
        data: the value; objects are `Object`.
        start, end: its place.
        strict: whether the text is valid JSON.
        lost: whether the value lacks parts of the text, because they are unfinished or out of place.
    """

    data: Any
    start: int
    end: int
    strict: bool = True
    lost: bool = False


@dataclass
class Reading:
    """Values and words of a text.

    Attributes:
        text: the text.
        values: the outermost lists and objects, left to right.
        unclosed: whether nothing closes the bracket of the last value.
    """

    text: str
    values: list[Value] = field(default_factory=list)
    unclosed: bool = False

    @property
    def goes_on(self) -> bool:
        """Return whether words follow the last value, all of whose brackets are closed."""
        closed = bool(self.values) and not self.unclosed
        return closed and has_words(self.text[self.values[-1].end :])

    def last_values(self) -> list[Value]:
        """Return the last values, with nothing but punctuation between them."""
        values = self.values
        first = len(values) - 1
        while first > 0 and not self.text[values[first - 1].end : values[first].start].strip(_BETWEEN_VALUES):
            first -= 1
        return values[max(first, 0) :]


def has_words(text: str) -> bool:
    """Return whether a text has letters or digits outside tags such as `</box>`.

    The last tag may be cut.
    """
    return any(letter.isalnum() for letter in _TAG.sub("", text).partition("<")[0])


def read(text: str, cut: bool) -> Reading:
    """Read the JSON lists and objects in a text; never raise.

    Args:
        text: text of at most some 10,000 characters.
        cut: whether the text may end in the middle of a value.
    """
    reading = Reading(text)
    decoder = json.JSONDecoder(object_pairs_hook=Object)
    start = _OPENING.search(text)
    while start and not reading.unclosed:
        try:
            data, end = decoder.raw_decode(text, start.start())
            value = Value(data, start.start(), end)
        except (ValueError, RecursionError):
            value, reading.unclosed = _Reader(text, start.start(), cut).read()
        reading.values.append(value)
        start = _OPENING.search(text, value.end)
    return reading


@dataclass
class _Frame:
    """A list or an object that is not closed yet."""

    opening: str
    items: list[Any] = field(default_factory=list)  # of an object: its pairs
    key: str | None = None

    def add(self, value: Any) -> bool:
        """Add a value or a key; return whether it has a place."""
        if self.opening == "[":
            self.items.append(value)
        elif self.key is not None:
            self.items.append((self.key, value))
            self.key = None
        elif isinstance(value, str):
            self.key = value
        elif isinstance(value, list | Object):  # as in \boxed{[1, 2, 3, 4]}
            self.items.append(("", value))
        else:
            return False
        return True

    def drop_key(self) -> bool:
        """Drop a key that has no value; return whether there was none."""
        key, self.key = self.key, None
        return key is None

    def value(self) -> Any:
        return self.items if self.opening == "[" else Object(self.items)


class _Reader:
    """Reader of one value that is no valid JSON.

    Args:
        text: text with the value.
        start: place of its bracket.
        cut: whether the text may end in the middle of the value.
    """

    def __init__(self, text: str, start: int, cut: bool):
        self._text, self._start, self._cut = text, start, cut
        self._stack = [_Frame(text[start])]
        self._lost = False

    def read(self) -> tuple[Value, bool]:
        """Return the value, and whether nothing closes its bracket."""
        last = ""
        for token in _TOKEN.finditer(self._text, self._start + 1):
            mark = token[0]
            if mark == ",":
                self._check(self._stack[-1].drop_key())
            elif not mark.startswith("```"):
                last = mark
                if mark in _OPENING_OF:
                    if any(frame.opening == _OPENING_OF[mark] for frame in self._stack):
                        data = self._close(_OPENING_OF[mark])
                        if not self._stack:
                            return self._value(data, token.end()), False
                    else:
                        self._check(False)
                elif mark in "[{" and len(self._stack) == _MAX_DEPTH:
                    self._stack = []
                    self._check(False)
                    break
                elif mark in "[{":
                    self._stack.append(_Frame(mark))
                elif mark != ":":
                    self._check(self._stack[-1].add(_atom(mark)))
                    self._check(mark[0] != '"' or not _OPENING.search(mark))
        only_closing_is_missing = last in _OPENING_OF and not self._cut
        data = self._close_all() if only_closing_is_missing else self._finished()
        return self._value(Object() if data is None else data, len(self._text)), True

    def _value(self, data: Any, end: int) -> Value:
        return Value(data, self._start, end, strict=False, lost=self._lost)

    def _check(self, in_place: bool) -> None:
        self._lost |= not in_place

    def _close(self, opening: str) -> Any:
        """Close the innermost frame with this opening; return its value.

        The frames inside it are closed, too.
        """
        while True:
            frame = self._stack.pop()
            self._check(frame.drop_key())
            data = frame.value()
            if self._stack:
                self._check(self._stack[-1].add(data))
            if frame.opening == opening:
                return data

    def _close_all(self) -> Any:
        data: Any = None
        while self._stack:
            data = self._close(self._stack[-1].opening)
        return data

    def _finished(self) -> Any:
        """Close all frames without their unfinished parts; return None if nothing is left.

        The last number of a list may lack digits, and the last group of an object may lack pairs.
        """
        self._lost = True
        data: Any = None
        while self._stack:
            frame = self._stack.pop()
            items = frame.items
            if frame.opening == "[":
                while data is None and items and not isinstance(items[-1], list | Object):
                    items.pop()
                data = [*items, *([] if data is None else [data])] or None
            else:
                items = items[: len(items) - len(Object(items).groups()[-1])]
                if frame.key is not None and _has_object(data):
                    items.append((frame.key, data))
                data = Object(items) if items else None
        return data


def _has_object(data: Any) -> bool:
    return isinstance(data, Object) or (isinstance(data, list) and any(isinstance(item, Object) for item in data))


def _atom(mark: str) -> Any:
    if mark[0] in "\"'":
        return mark.strip(mark[0])
    if _NUMBER.fullmatch(mark):
        return float(mark)
    return _WORDS.get(mark, mark)
