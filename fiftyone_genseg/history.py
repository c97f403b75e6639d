"""Runs of the plugin's operators: their state, end, and the wish to stop.

The runs are kept in a store that belongs to no dataset, because some operators need none. Other processes read it, such
as the App's while a worker runs an operator in the background. A killed process cannot say that its run has ended, so
each run names its process. A reader of the run looks whether the process is still there.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import psutil
from fiftyone.operators.store import ExecutionStore

RUNNING, DONE, STOPPED, FAILED = "running", "done", "stopped", "failed"
INTERRUPTED = "interrupted"  # the process of the run is gone, and the run said no end
KEPT = 50  # newest runs
_STORE = "genseg_runs"
_STOP = "stop:"
_BETWEEN_WRITES = 1.0  # seconds
_LONGEST = 2000  # characters
_SAME_START = 5.0  # seconds between two readings of one process's start, because clocks are set


class Stopped(Exception):
    """The user asked to stop the run."""


@dataclass(frozen=True)
class Record:
    """A run, as it is kept.

    Attributes:
        id: id of the run.
        operator: label of the operator.
        dataset: name of its dataset; "" for none.
        started: seconds since 1970.
        state: one of RUNNING, DONE, STOPPED, FAILED and INTERRUPTED.
        text: the progress, the result or the error, in words.
        host: name of the machine of the process, with its space of process numbers; "" for a run of an earlier version.
        process: its number on that machine.
        process_started: seconds since 1970.
    """

    id: str
    operator: str
    dataset: str
    started: float
    state: str = RUNNING
    text: str = ""
    host: str = ""
    process: int = 0
    process_started: float = 0.0

    @property
    def when(self) -> str:
        """Return the local date and time of the start."""
        return datetime.fromtimestamp(self.started, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


class Run:
    """A run that this process executes."""

    def __init__(self, operator: str, dataset: str):
        """Keep a new run, and forget the oldest ones."""
        self.record = Record(
            uuid.uuid4().hex,
            operator,
            dataset,
            time.time(),
            host=_host(),
            process=os.getpid(),
            process_started=psutil.Process().create_time(),
        )
        self._written = 0.0
        _keep(self.record)
        for old in records()[KEPT:]:
            _store().delete(old.id)

    def progress(self, text: str) -> None:
        """Record how far the run is, at most once a second.

        Raises:
            Stopped: the user asked for it.
        """
        self.record = replace(self.record, text=text)
        if time.monotonic() - self._written < _BETWEEN_WRITES:
            return
        self._written = time.monotonic()
        if is_stopping(self.record.id):
            raise Stopped
        _keep(self.record)

    def end(self, state: str, text: str) -> None:
        """Keep how the run ended."""
        self.record = replace(self.record, state=state, text=text[:_LONGEST])
        _keep(self.record)
        _store().delete(_STOP + self.record.id)


@contextmanager
def recorded(ctx, operator: str) -> Iterator[Run]:
    """Record a run of an operator that is no generator.

    An error ends the run, and the caller says how it ended otherwise.
    """
    run = Run(operator, ctx.dataset.name if ctx.dataset is not None else "")
    try:
        yield run
    except Stopped as stopped:
        progress = run.record.text
        run.end(STOPPED, f"Stopped at: {progress}")
        raise ValueError(f"stopped by the user at: {progress}") from stopped
    except Exception as error:
        run.end(FAILED, str(error))
        raise


def records() -> list[Record]:
    """Return the runs, newest first. A run whose process is gone is INTERRUPTED.

    Processes of another machine cannot be seen from here, so the last word of their runs counts.
    """
    store = _store()
    found = [store.get(key) for key in store.list_keys() if not key.startswith(_STOP)]
    return sorted((_as_it_is(Record(**kept)) for kept in found if kept), key=lambda record: -record.started)


def stop(run: str) -> Record | None:
    """Ask a run to stop at its next step.

    Return the run; None if no run of this id is running.
    """
    kept = _store().get(run)
    record = _as_it_is(Record(**kept)) if kept else None
    if record is None or record.state != RUNNING:
        return None
    _store().set(_STOP + run, True, ttl=24 * 60 * 60)
    return record


def is_stopping(run: str) -> bool:
    """Return whether the user asked to stop a run."""
    return bool(_store().get(_STOP + run))


def _as_it_is(record: Record) -> Record:
    """Return a kept run, INTERRUPTED if it is kept as running and its process is gone."""
    if record.state != RUNNING or record.host != _host() or _is_there(record):
        return record
    where = f"at: {record.text}" if record.text else "before the first step"
    text = (
        f"Its process ended {where}. Its results stay. Run the operator again with the same settings: "
        "a run that can resume goes on from there."
    )
    return replace(record, state=INTERRUPTED, text=text)


def _host() -> str:
    """Return the machine's name and, on Linux, the space of its process numbers.

    The space tells containers apart that share the machine's name.
    """
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _is_there(record: Record) -> bool:
    """Return whether the process of a run is alive.

    The start times are compared, because another process may have got the number since.
    """
    try:
        process = psutil.Process(record.process)
        is_same = abs(process.create_time() - record.process_started) < _SAME_START
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _store() -> ExecutionStore:
    return ExecutionStore.create(_STORE)


def _keep(record: Record) -> None:
    _store().set(record.id, asdict(record))
