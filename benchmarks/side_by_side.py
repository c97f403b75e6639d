"""Two ways of doing one thing, timed in turn in one process: what the benchmarks of `make bench` share.

Both get the same weights and inputs, and their results are compared each time. They alternate, so that a machine whose
speed drifts is slow for both; the ratio is that of the medians.
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
        number, work, against, bar: as in its table; the bar is a sentence.
        ours, theirs: seconds, one per repetition.
        figure: what is compared with the bar, as printed.
        holds: whether it is reached.
        note: what the reader has to know.
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
    """Seconds of each, in turn; `check` compares the results of each repetition (it raises)."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repetitions):
        results = []
        for run, its in zip((ours, theirs), seconds, strict=True):
            gc.collect()
            started = time.perf_counter()
            results.append(run())
            its.append(time.perf_counter() - started)
        check(*results)
    return seconds


def faster(
    number: str, work: str, against: str, at_least: float, ours: list[float], theirs: list[float], note=""
) -> Row:
    """A row whose bar is a ratio of medians."""
    ratio = median(theirs) / median(ours)
    return Row(number, work, against, f">= {at_least:g}x", ours, theirs, f"{ratio:.1f}x", ratio >= at_least, note)


def report(rows: list[Row]) -> None:
    """Print rows, and write them as JSON where --out says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    out = parser.parse_known_args()[0].out
    for row in rows:
        times = " against ".join(f"{median(its):.3f} s" for its in (row.ours, row.theirs) if its)
        print(f"{row.number}. {row.work}, {row.against}: {row.figure} (bar {row.bar}; {times}) {row.note}", flush=True)
    if out:
        out.write_text(json.dumps([asdict(row) for row in rows]))
