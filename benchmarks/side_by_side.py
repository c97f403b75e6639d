"""Time two ways of doing one thing in turn.

The benchmarks of `make bench` share this module. `compare` runs both ways in one process on the same weights and
inputs, and compares their results each time. They alternate, so that a machine whose speed drifts is slow for both. The
ratio is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

REPETITIONS = 5


@dataclass(frozen=True)
class Row:
    """One line of RESULTS.md.

    Attributes:
        number: number of the comparison, in the first column.
        work: the thing that both ways do.
        against: the other way.
        bar: the goal, in words.
        ours: seconds of this project, one per repetition.
        theirs: seconds of the other way, one per repetition.
        figure: printed value that is compared with the bar.
        holds: whether the figure reaches the bar.
        note: further facts for the reader.
        load: mean number of processes that wanted a core in the last minute, this benchmark included.
    """

    number: str
    work: str
    against: str
    bar: str
    ours: list[float]
    theirs: list[float]
    figure: str
    holds: bool
    note: str = ""
    load: float = field(default_factory=lambda: os.getloadavg()[0])


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of each benchmark of `make bench`.

    Args:
        description: description of the script.
    """
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, help="JSON file of the rows")
    made.add_argument("--quick", action="store_true", help="less work and one repetition, to see that all of it runs")
    return made


def compare(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    check: Callable[[Any, Any], None],
    repetitions: int = REPETITIONS,
) -> tuple[list[float], list[float]]:
    """Run two ways in turn and return the seconds of each.

    Args:
        ours: this project's way.
        theirs: the other way.
        check: gets both results of each repetition and raises if they differ.
        repetitions: repetitions of each way.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repetitions):
        results = []
        for run, measured in zip((ours, theirs), seconds, strict=True):
            gc.collect()
            started = time.perf_counter()
            results.append(run())
            measured.append(time.perf_counter() - started)
        check(*results)
    return seconds


def faster(
    number: str, work: str, against: str, at_least: float, ours: list[float], theirs: list[float], note=""
) -> Row:
    """Return a row whose bar is a ratio of medians.

    Args:
        number: see `Row`, as for the other arguments.
        work: see `Row`.
        against: see `Row`.
        at_least: how many times faster ours must be.
        ours: seconds.
        theirs: seconds.
        note: see `Row`.
    """
    ratio = median(theirs) / median(ours)
    return Row(number, work, against, f">= {at_least:g}x", ours, theirs, f"{ratio:.1f}x", ratio >= at_least, note)


def report(rows: list[Row], out: Path | None) -> None:
    """Print rows, and write them as JSON.

    Args:
        rows: rows in the order of the report.
        out: the file of the rows; None to print only.
    """
    for row in rows:
        times = " against ".join(f"{median(seconds):.3f} s" for seconds in (row.ours, row.theirs) if seconds)
        measured = f"(bar {row.bar}; {times}; load {row.load:.1f})"
        print(f"{row.number}. {row.work}, {row.against}: {row.figure} {measured} {row.note}", flush=True)
    if out:
        out.write_text(json.dumps([asdict(row) for row in rows]))
