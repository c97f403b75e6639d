"""Find images by the file names of annotation files.

Some tools write these names with folders before them, or with the slashes and drives of Windows.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

_Parts = tuple[str, ...]


class FileNames:
    """The file names of an annotation file.

    Args:
        named: (id, file name) of each image.
    """

    def __init__(self, named: Iterable[tuple[str, str]]):
        self._exact: dict[str, list[str]] = {}
        self._whole: dict[_Parts, list[str]] = {}
        self._ends: dict[_Parts, list[str]] = {}
        files: Counter[_Parts] = Counter()
        for id_, name in named:
            self._exact.setdefault(name, []).append(id_)
            parts = _parts(name)
            self._whole.setdefault(parts, []).append(id_)
            for end in _ends(parts):
                self._ends.setdefault(end, []).append(id_)
            if self._whole[parts] == [id_]:
                files.update(_ends(parts))
        self._times = files

    def ids(self, name: str) -> list[str]:
        """Return the ids of the images with a file name.

        An exact match counts before all others. Otherwise two names match if they differ only in the kind of slash, or
        in folders that one of them has before the other.

        Args:
            name: file name, as another file writes it.
        """
        if name in self._exact:
            return self._exact[name]
        parts = _parts(name)
        if parts in self._ends:
            return self._ends[parts]
        return next((self._whole[end] for end in _ends(parts) if end in self._whole), [])

    def find(self, name: str, folder: Path) -> Path | None:
        """Return the file of an image in a folder; None if there is none.

        The name may have folders that the folder lacks, unless two images would then have the same file.

        Args:
            name: name of an image of the annotation file.
            folder: folder of the images; nothing outside it is returned.
        """
        ends = _ends(_parts(name))
        for number, end in enumerate([_inside(name), *ends]):
            # `os.path.isfile`, because `Path.is_file` raises for a name that is too long
            if (number < 2 or self._times[end] == 1) and end and os.path.isfile(folder.joinpath(*end)):
                return folder.joinpath(*end)
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
