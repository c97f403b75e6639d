"""Time two ways of doing one thing in turn: shared by the benchmarks of `make bench`.

Both ways run in one process on the same weights and inputs, and their results are compared each time. They alternate,
so that a machine whose speed drifts is slow for both. The ratio is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

REPETITIONS = 5


@dataclass(frozen=True)
class Row:
    """One line of RESULTS.md.

    Attributes:
        number: of the comparison, in the first column.
        work: the thing that both ways do.
        against: the other way.
        bar: the goal, in words.
        ours: seconds of this project, one per repetition.
        theirs: seconds of the other way, one per repetition.
        figure: printed value that is compared with the bar.
        holds: whether the figure reaches the bar.
        note: what else the reader must know.
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
        check: gets both results of each repetition and raises where they differ.
        repetitions: of each way.
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


def report(rows: list[Row]) -> None:
    """Print rows, and write them as JSON to the file that --out names.

    Args:
        rows: in the order of the report.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    out = parser.parse_known_args()[0].out
    for row in rows:
        times = " against ".join(f"{median(seconds):.3f} s" for seconds in (row.ours, row.theirs) if seconds)
        print(f"{row.number}. {row.work}, {row.against}: {row.figure} (bar {row.bar}; {times}) {row.note}", flush=True)
    if out:
        out.write_text(json.dumps([asdict(row) for row in rows]))
