"""Divide a resumable run among processes that share nothing but its folder.

The processes may be the tasks of a Slurm array. A run appends lines of JSON to one file. Each shard appends to a file
of its own in `shards/`, under a lock of its own. The last shard to finish joins these files to the run's one file. A
killed shard loses its unwritten answers alone.

A process takes the lock of a shard only while it holds the lock of the folder. So the process that holds the lock of
the folder and the locks of all shards may remove the files of the shards.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from genseg_hub.errors import RunError

FOLDER, LOCK = "shards", ".lock"
START_SECONDS = 600.0  # a shard waits so long to begin while the last shard to finish scores the run
_SHARD = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True)
class Shard:
    """One part of a run.

    Attributes:
        number: number of this part, from 1 to `count`.
        count: number of parts.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read a shard such as "3/8", the third of eight.

        Raises:
            ValueError: the text is no shard.
        """
        found = _SHARD.fullmatch(text)
        number, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            raise ValueError(f"{text!r} is no shard; write 1/8 to 8/8 for the eight parts of a run")
        return cls(number, count)

    def part(self, total: int) -> range:
        """Return the indices of this shard among `total` examples.

        Neighbours stay together.
        """
        return range(total * (self.number - 1) // self.count, total * self.number // self.count)

    def file(self, folder: Path) -> Path:
        """Return the file that the shard appends to, in the folder of its run."""
        return folder / FOLDER / f"{self.number}-of-{self.count}.jsonl"

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def files(folder: Path) -> list[Path]:
    """Return the files of all shards in the folder of a run."""
    return sorted((folder / FOLDER).glob("*.jsonl"))


@contextlib.contextmanager
def locked(folder: Path, seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock of a run's folder.

    Args:
        folder: folder of the run; it exists.
        seconds: how long to wait for another process; -1 for as long as it takes.

    Raises:
        RunError: another process holds the lock.
    """
    with _held(folder / LOCK, seconds, f"another process works in {folder}; wait for it, or name another folder"):
        yield


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the locks of all shards; call it under `locked`.

    Raises:
        RunError: a shard is at work.
    """
    with contextlib.ExitStack() as stack:
        for lock in sorted((folder / FOLDER).glob("*.lock")):
            shard = lock.stem.replace("-of-", "/")
            stack.enter_context(_held(lock, 0.0, f"shard {shard} of {folder} is at work; wait for it"))
        yield


def take(folder: Path, shard: Shard) -> FileLock:
    """Return the lock of a shard, which the caller releases; call it under `locked`.

    Raises:
        RunError: another process works on the shard.
    """
    file = shard.file(folder).with_suffix(".lock")
    file.parent.mkdir(exist_ok=True)
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"another process works on shard {shard} of {folder}; wait for it") from None
    return lock


def join(folder: Path, into: Path) -> None:
    """Append the lines of all shards to a file, and remove the shards.

    Call it under `locked` and `alone`. A kill on the way leaves the lines in both places, where they do no harm.

    Args:
        folder: folder of the run.
        into: its one file.
    """
    parts = files(folder)
    if parts:
        drop_torn_line(into)
        with into.open("ab") as stream:
            for part in parts:
                copy_lines(part, stream)
            stream.flush()
            os.fsync(stream.fileno())
    remove(folder)


def copy_lines(part: Path, stream: BinaryIO) -> None:
    """Append the whole lines of a shard's file to a stream."""
    drop_torn_line(part)
    with part.open("rb") as lines:
        shutil.copyfileobj(lines, stream)


def remove(folder: Path) -> None:
    """Remove the files of all shards; call it under `locked` and `alone`."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def drop_torn_line(file: Path) -> None:
    """Remove the incomplete last line that a kill left in a file."""
    if file.is_file():
        with file.open("rb+") as stream:
            size = stream.seek(0, os.SEEK_END)
            whole = size
            while whole:
                begin = max(0, whole - 65536)
                stream.seek(begin)
                end = stream.read(whole - begin).rfind(b"\n")
                if end >= 0:
                    whole = begin + end + 1
                    break
                whole = begin
            stream.truncate(whole)


@contextlib.contextmanager
def _held(file: Path, seconds: float, otherwise: str) -> Iterator[None]:
    lock = FileLock(file, timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(otherwise) from None
    try:
        yield
    finally:
        lock.release()
