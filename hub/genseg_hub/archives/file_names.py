"""Find images by the file names of annotation files.

Some tools write these names with folders before them, or with the slashes and drives of Windows. macOS writes letters
and their accents apart (Unicode's NFD). Label Studio and URLs encode a space as %20.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from unicodedata import normalize
from urllib.parse import unquote

_LABEL_STUDIO = "/local-files/?d="  # stands before the encoded path of a local file
_Parts = tuple[str, ...]


class FileNames:
    """The file names of an annotation file.

    Args:
        named: (id, file name) of each image.
    """

    def __init__(self, named: Iterable[tuple[str, str]]):
        self._named = list(named)
        self._written = _Names(self._named)

    @cached_property
    def _decoded(self) -> _Names:
        named = [(id_, _unquoted(name)) for id_, name in self._named]
        return self._written if named == self._named else _Names((id_, name) for id_, name in named if name)

    def ids(self, name: str) -> list[str]:
        """Return the ids of the images with a file name.

        An exact match counts before all others. Otherwise two names match if they differ only in the kind of slash, in
        the Unicode form of their letters, or in folders that one of them has before the other. Names without their
        percent-encoding are compared last.

        Args:
            name: file name, as another file writes it.
        """
        return self._written.ids(name) or self._decoded.ids(_unquoted(name))

    def find(self, name: str, folder: Path) -> Path | None:
        """Return the file of an image in a folder; None if there is none.

        The file may lack folders of the name, or have another Unicode form, or no percent-encoding. It is nobody's if
        two images would then have the same file.

        Args:
            name: name of an image of the annotation file.
            folder: folder of the images; nothing outside it is returned.
        """
        file = self._written.find(name, folder)
        if file is None and len(self._decoded.ids(_unquoted(name))) == 1:
            return self._decoded.find(_unquoted(name), folder)
        return file


class _Names:
    """The file names of an annotation file, all written as they are or all decoded."""

    def __init__(self, named: Iterable[tuple[str, str]]):
        self._exact: dict[str, list[str]] = {}
        self._whole: dict[_Parts, list[str]] = {}
        self._ends: dict[_Parts, list[str]] = {}
        self._times: Counter[_Parts] = Counter()
        seen: set[_Parts] = set()
        for id_, name in named:
            self._exact.setdefault(name, []).append(id_)
            written = _parts(name)
            parts = _composed(written)
            self._whole.setdefault(parts, []).append(id_)
            for end in _ends(parts):
                self._ends.setdefault(end, []).append(id_)
            if written not in seen:
                seen.add(written)
                self._times.update(_ends(parts))

    def ids(self, name: str) -> list[str]:
        if name in self._exact:
            return self._exact[name]
        parts = _composed(_parts(name))
        if parts in self._ends:
            return self._ends[parts]
        return next((self._whole[end] for end in _ends(parts) if end in self._whole), [])

    def find(self, name: str, folder: Path) -> Path | None:
        for number, end in enumerate([_inside(name), *_ends(_parts(name))]):
            is_alone = self._times[_composed(end)] == 1
            # `os.path.isfile`, because `Path.is_file` raises for a name that is too long
            if (number < 2 or is_alone) and end and os.path.isfile(folder.joinpath(*end)):
                return folder.joinpath(*end)
            if is_alone and (file := _in_another_form(end, folder)):
                return file
        return None


def relative(name: str) -> str:
    """Return a file name without the parts that lead out of a folder."""
    return "/".join(_parts(name))


def _inside(name: str) -> _Parts:
    """Return the parts of a name as it is written; () if it leads out of its folder.

    A backslash does not divide parts, because a file may have one in its name.
    """
    path = Path(name)
    return () if path.is_absolute() or ".." in path.parts else path.parts


def _parts(name: str) -> _Parts:
    """Return the parts of a name of any system, without drive and root.

    A name with `..` is reduced to its last part.
    """
    parts = tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
    if ".." in parts:
        parts = parts[-1:] if parts[-1] != ".." else ()
    return parts[1:] if len(parts) > 1 and parts[0].endswith(":") else parts


def _ends(parts: _Parts) -> Iterator[_Parts]:
    """Yield the ends of a path, the longest first."""
    return (parts[start:] for start in range(len(parts)))


def _composed(parts: _Parts) -> _Parts:
    """Return parts with each letter and its accents in one character (NFC)."""
    return tuple(normalize("NFC", part) for part in parts)


def _in_another_form(parts: _Parts, folder: Path) -> Path | None:
    """Return a file whose name differs only in the Unicode form of its letters."""
    if "".join(parts).isascii():
        return None
    for part in parts:
        forms = [part, normalize("NFC", part), normalize("NFD", part)]
        there = [folder / form for form in forms if os.path.exists(folder / form)]
        if not there:
            return None
        folder = there[0]
    return folder if os.path.isfile(folder) else None


def _unquoted(name: str) -> str:
    """Return a name without percent-encoding; "" if it leads out of its folder."""
    found = unquote(name.rpartition(_LABEL_STUDIO)[2])
    return "" if ".." in found.replace("\\", "/").split("/") else found
