"""Write files and folders whole or not at all.

The new content is written beside its place, then a rename swaps it in. A kill or a full disk leaves the earlier
content, or nothing. The next writer of the same place removes the leftovers. A full disk is a `DiskFullError`. These
writers raise it, and `disk_full_in_words` names longer work that stopped. The doors of the project, which are its
commands and operators, turn every other error of a full disk into one.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# The system's words, which some libraries pass on alone, and MongoDB's, PyTorch's and numpy's own.
_FULL = re.compile(
    r"No space left on device|os error 28\b|Disk quota exceeded|os error 122\b|OutOfDiskSpace"
    r"|inline_container.* unexpected pos \d|PytorchStreamWriter failed writing|\d requested and \d+ written"
)
_SAID = "the disk is full"
_NEW, _OLD = ".{}.new", ".{}.old"  # names beside a folder while it is written and swapped


class DiskFullError(OSError):
    """A disk is full; the message says which file was not written and what to do."""


def write_text(file: Path, text: str) -> None:
    """Write a text file, in place of an earlier one; its folder is made.

    Characters that UTF-8 cannot hold become question marks.

    Raises:
        DiskFullError: the disk is full; an earlier file is kept.
        OSError: the disk does not allow it.
    """
    with written_file(file) as new:
        new.write_text(text, encoding="utf-8", errors="replace")


@contextmanager
def written_file(file: Path) -> Iterator[Path]:
    """Give the `with` body a path to write to; its file then replaces `file`.

    An error of the body removes the new file and keeps the earlier one.

    Raises:
        DiskFullError: the disk is full.
    """
    with disk_full_in_words(f"{file} was not written{_earlier(file)}"):
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(_NEW.format(file.name))  # the next writer of the file overwrites the leftovers of a kill
        try:
            yield new
            new.replace(file)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


@contextmanager
def written_folder(folder: Path, is_stale: Callable[[Path], bool] = lambda _: False) -> Iterator[Path]:
    """Give the `with` body an empty folder to fill, which then replaces `folder`.

    Files of the earlier folder that the new one does not have are taken over, because they can be somebody's. An error
    of the body removes the new folder and keeps the earlier one. Only one process at a time may write a folder.

    Args:
        folder: folder, which is made if missing.
        is_stale: returns whether a file of the earlier folder, by its path in it, is left out.

    Raises:
        DiskFullError: the disk is full.
    """
    folder = folder.resolve()
    restore(folder)
    new, old = (folder.with_name(name.format(folder.name)) for name in (_NEW, _OLD))
    with disk_full_in_words(f"{folder} was not written{_earlier(folder)}"):
        try:
            new.mkdir(parents=True)
            yield new
            if folder.is_dir():
                _take_over(folder, new, is_stale)
                folder.rename(old)
            new.rename(folder)
        except BaseException:
            restore(folder)
            raise
    shutil.rmtree(old, ignore_errors=True)


def restore(folder: Path) -> None:
    """Remove a killed writer's leftovers beside a folder.

    An earlier folder that the kill took away is put back.
    """
    new, old = (folder.resolve().with_name(name.format(folder.resolve().name)) for name in (_NEW, _OLD))
    if old.is_dir() and not folder.exists():
        old.rename(folder)
    for left_over in (new, old):
        if left_over.exists():
            shutil.rmtree(left_over)


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether an error, or an error behind it, says that a disk is full."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or _FULL.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def disk_full_in_words(outcome: str | None = None) -> Iterator[None]:
    """Turn every error of a full disk into words.

    Args:
        outcome: the loss in words, such as "the checkpoint in runs/best was not written". None for the file that the
            system names.

    Raises:
        DiskFullError: the body of the `with` statement found a full disk.
    """
    try:
        yield
    except Exception as error:
        if _says_so_badly(error):
            raise _in_words(error, outcome) from error
        raise


def in_words(error: Exception) -> Exception:
    """Return an error of a full disk as a DiskFullError.

    Any other error stays as it is, and so does an error whose message already explains the full disk.
    """
    return _in_words(error, None) if _says_so_badly(error) else error


def _in_words(error: Exception, outcome: str | None) -> DiskFullError:
    outcome = outcome or f"{_file_of(error) or 'a file'} was not written"
    return DiskFullError(f"{_SAID}: {outcome}; free some space, then run the same again")


def _says_so_badly(error: Exception) -> bool:
    return is_disk_full(error) and not str(error).startswith(_SAID)


def _earlier(place: Path) -> str:
    return ", and the earlier one is kept" if place.exists() else ""


def _file_of(error: BaseException | None) -> str | None:
    """Return the file that the system names in an error or in an error behind it."""
    while error is not None:
        if getattr(error, "filename", None) is not None:
            return str(error.filename)  # type: ignore[attr-defined]
        error = error.__cause__ or error.__context__
    return None


def _take_over(earlier: Path, new: Path, is_stale: Callable[[Path], bool]) -> None:
    for file in sorted(earlier.rglob("*")):
        path = file.relative_to(earlier)
        target = new / path
        if file.is_dir() and not file.is_symlink():
            target.mkdir(exist_ok=True)
        elif not target.exists() and not is_stale(path):
            try:
                os.link(file, target, follow_symlinks=False)
            except OSError:  # a disk without hard links
                shutil.copy2(file, target, follow_symlinks=False)
