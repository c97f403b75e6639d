"""Drawings of the panel "Referring evaluation", and the expressions behind a mark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from genseg_hub.evaluation.metrics import POLICIES
from genseg_hub.figures import NAMES

from fiftyone_genseg.evaluation.results import ReferringResults
from fiftyone_genseg.evaluation.slicing import comparison, kinds
from fiftyone_genseg.evaluation.table import COSTS
from fiftyone_genseg.panels import _runs
from fiftyone_genseg.panels._layout import percent
from fiftyone_genseg.statuses import FAILED, MISSING, UNPARSABLE

_METRICS = ("ciou", "miou", "target_miou", "n_acc", "t_acc", "pr@0.5", "pr@0.9", "box_miou")
_FIGURES = {name: NAMES[name] for name in _METRICS} | {
    "n": "expressions",
    "n_target": "with a target",
    "n_no_target": "with no target",
    "n_failed": "without a usable answer",
    "seconds": "seconds per expression",
    "tokens": "tokens per expression",
    "memory_bytes": "memory, GB",
    "policy": "policy",
}
COUNT = len(_FIGURES)
# Meaning of a figure, and the samples that a click on it shows.
_MEANINGS = {
    "ciou": ("Intersection of all expressions over their union: large objects count most", "that lower cIoU"),
    "miou": ("Mean IoU of the expressions, where each counts the same (gIoU)", "that lower mIoU"),
    "target_miou": ("Mean IoU of the expressions with a target", "with a target that lower its mIoU"),
    "n_acc": ("Share of the expressions with no target that got no mask", "with no target that got a mask"),
    "t_acc": ("Share of the expressions with a target that got a mask", "with a target that got no mask"),
    "pr@0.5": ("Share of the expressions with a target whose IoU is at least 0.5", "with an IoU below 0.5"),
    "pr@0.9": ("Share of the expressions with a target whose IoU is at least 0.9", "with an IoU below 0.9"),
    "box_miou": ("Mean IoU of the reasoner's box and the target's box", "whose box is not exact"),
    "n": ("Expressions that were evaluated", "of the run"),
    "n_target": ("Expressions that refer to something in the image", "with a target"),
    "n_no_target": ("Expressions that refer to nothing in the image", "with no target"),
    "n_failed": ("No answer, an unreadable answer, or a failure", "without a usable answer"),
    "seconds": ("Mean wall-clock time; expressions that are answered together share it", "with a measured time"),
    "tokens": ("Mean number of tokens that the reasoner generated, with its thought", "with known tokens"),
    "memory_bytes": (
        "Most memory of the process that answered, without a server: GPU memory, or on a CPU all of the process",
        "with known memory",
    ),
    "policy": ("", "of the run"),
}
# The expressions that keep a figure from being perfect.
_LOWERING: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "ciou": lambda t: t["intersection"] < t["target_area"] + t["prediction_area"] - t["intersection"],
    "miou": lambda t: t["iou"] < 1,
    "target_miou": lambda t: (t["target_area"] > 0) & (t["iou"] < 1),
    "n_acc": lambda t: (t["target_area"] == 0) & (t["kind"] != kinds.CORRECT),
    "t_acc": lambda t: (t["target_area"] > 0) & (t["prediction_area"] == 0),
    "pr@0.5": lambda t: (t["target_area"] > 0) & (t["iou"] < 0.5),
    "pr@0.9": lambda t: (t["target_area"] > 0) & (t["iou"] < 0.9),
    "box_miou": lambda t: (t["target_area"] > 0) & (t["box_iou"] < 1),
    "n": lambda t: t["iou"] >= 0,
    "n_target": lambda t: t["target_area"] > 0,
    "n_no_target": lambda t: t["target_area"] == 0,
    "n_failed": lambda t: t["kind"].isin([UNPARSABLE, FAILED, MISSING]),
    **{name: lambda t, name=name: t[name].notna() for name in COSTS},  # type: ignore[misc]
    "policy": lambda t: t["iou"] >= 0,
}
_THRESHOLDS = np.round(np.arange(0.5, 1.0, 0.05), 2)
_BINS = 20
_SIZES = (0.0025, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 1.0)


def figure_rows(results: Mapping[str, ReferringResults], rows: Mapping[str, np.ndarray]) -> list[dict[str, str]]:
    """Return the table of figures: a row per figure, a column per run.

    The columns are `run_0`, `run_1` and so on.

    Args:
        results: run -> its results.
        rows: run -> bool[N], the expressions that the figures are about.
    """
    figures = {key: found.figures(rows[key]) | _costs(found.table[rows[key]]) for key, found in results.items()}
    intervals = {key: comparison.intervals(found.table[rows[key]]) for key, found in results.items()}
    table = []
    for name, label in _FIGURES.items():
        row = {"figure": label}
        for number, key in enumerate(figures):
            value = figures[key][name]
            if name in comparison.FIGURES:
                text = percent(value, intervals[key][name].low, intervals[key][name].high)
            elif name in COSTS:
                text = value
            elif isinstance(value, int):
                text = f"{value:,}"
            else:
                text = value if isinstance(value, str) else percent(value)
            row[f"run_{number}"] = text
        table.append(row)
    return table


def _costs(table: pd.DataFrame) -> dict[str, str]:
    """Return the costs of expressions as text; "-" for unknown."""
    seconds, tokens, gigabytes = table["seconds"].mean(), table["tokens"].mean(), table["memory_bytes"].max() / 1e9
    known = {"seconds": f"{seconds:.2f}", "tokens": f"{tokens:.1f}", "memory_bytes": f"{gigabytes:.2f}"}
    return {name: "-" if text == "nan" else text for name, text in known.items()}


def meaning(row: int, policy: str) -> str:
    """Return the meaning of a row of `figure_rows`, in words."""
    name = list(_FIGURES)[row]
    if name == "policy":
        return f"How empty masks are scored: {POLICIES[policy].source}"
    return _MEANINGS[name][0]


def lowering(row: int, table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the expressions that lower the figure of a row, and words for them.

    The row is a number in `figure_rows`.
    """
    name = list(_FIGURES)[row]
    return table[_LOWERING[name](table)], _MEANINGS[name][1]


@dataclass(frozen=True)
class Difference:
    """A run against the first one.

    Attributes:
        text: the difference in words, or why there is none.
        rows: rows of the table of flips: better, worse; none without a comparison.
        flips: rows of `comparison.Difference.flips`, for each of `rows`.
    """

    text: str
    rows: tuple[dict[str, str], ...] = ()
    flips: tuple[pd.DataFrame, ...] = ()


def differences(results: Mapping[str, ReferringResults], rows: Mapping[str, np.ndarray]) -> list[Difference]:
    """Compare each run after the first with the first.

    Args:
        results: run -> its results.
        rows: run -> bool[N], the expressions to compare.
    """
    first, *others = results
    found = []
    for key in others:
        problem = _runs.comparable(results[first], results[key])
        if problem:
            found.append(Difference(f"{key} is not compared with {first}: {problem}."))
        else:
            tables = [results[name].table[rows[name]] for name in (first, key)]
            found.append(_difference(first, tables[0], key, tables[1]))
    return found


def _difference(a: str, before: pd.DataFrame, b: str, after: pd.DataFrame) -> Difference:
    try:
        found = comparison.compare(before, after)
    except ValueError as error:
        return Difference(f"{b}: {error}.")
    text = [
        f"{label} {100 * interval.value:+.1f} points [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
        for label, interval in (("cIoU", found.figures["ciou"]), ("mIoU", found.figures["miou"]))
        if interval.value is not None and interval.low is not None and interval.high is not None
    ]
    alone = (
        f" {found.only_a} and {found.only_b} expressions are in one run only." if found.only_a or found.only_b else ""
    )
    words = f"{b} against {a} on {found.n:,} expressions: {', '.join(text)}; "
    risen = found.flips["iou_b"] > found.flips["iou_a"]
    rows = (
        {"flip": f"wrong in {a}, right in {b}", "n": f"{int(risen.sum()):,}"},
        {"flip": f"right in {a}, wrong in {b}", "n": f"{int((~risen).sum()):,}"},
    )
    return Difference(
        f"{words}{found.wins:,} better, {found.losses:,} worse.{alone}", rows, (found.flips[risen], found.flips[~risen])
    )


def plots(tables: Mapping[str, pd.DataFrame]) -> dict[str, list[dict[str, Any]]]:
    """Return name -> traces of each plot; the confusion is about the first run."""
    return {
        "histogram": [_histogram(key, table) for key, table in tables.items()],
        "precision": [_precision(key, table) for key, table in tables.items()],
        "sizes": [_by_size(key, table) for key, table in tables.items()],
        "confusion": [_confusion(next(iter(tables.values())))],
    }


def in_histogram(table: pd.DataFrame, bar: int) -> tuple[pd.DataFrame, str]:
    """Return the expressions of a bar of the histogram of IoU, and words for them."""
    return table[_iou_bin(table) == bar], f"with an IoU from {bar / _BINS:g} to {(bar + 1) / _BINS:g}"


def in_precision(table: pd.DataFrame, point: int) -> tuple[pd.DataFrame, str]:
    """Return the expressions with a target that reach an IoU, and words for them.

    The IoU is the threshold of a point in the precision plot.
    """
    threshold = _THRESHOLDS[point]
    return table[(table["target_area"] > 0) & (table["iou"] >= threshold)], f"with an IoU of {threshold:g} or more"


def in_sizes(table: pd.DataFrame, bar: int) -> tuple[pd.DataFrame, str]:
    """Return the expressions of a bar of the mean IoU by size, and words for them."""
    found = table[_has_size(table) & (_size_bin(table) == bar)]
    return found, f"whose target fills {_size_names()[bar]} of the image"


def in_confusion(table: pd.DataFrame, truth: str | None, answer: str | None) -> tuple[pd.DataFrame, str]:
    """Return the expressions of a cell, and words for them.

    A cell is "target" or "no target", and "answered" or "nothing".
    """
    meant = (table["target_area"] > 0) == (truth == "target")
    found = table[meant & ((table["prediction_area"] > 0) == (answer == "answered"))]
    return found, f"with {'a' if truth == 'target' else 'no'} target, {answer}"


def _iou_bin(table: pd.DataFrame) -> np.ndarray:
    return np.minimum((table["iou"].to_numpy() * _BINS).astype(int), _BINS - 1)


def _histogram(key: str, table: pd.DataFrame) -> dict[str, Any]:
    counts = np.bincount(_iou_bin(table), minlength=_BINS)
    return {"type": "bar", "name": key, "x": ((np.arange(_BINS) + 0.5) / _BINS).tolist(), "y": counts.tolist()}


def _precision(key: str, table: pd.DataFrame) -> dict[str, Any]:
    ious = table.loc[table["target_area"] > 0, "iou"].to_numpy()
    shares = [float((ious >= threshold).mean()) if len(ious) else None for threshold in _THRESHOLDS]
    return {"type": "scatter", "mode": "lines+markers", "name": key, "x": _THRESHOLDS.tolist(), "y": shares}


def _size_bin(table: pd.DataFrame) -> np.ndarray:
    share = (table["target_area"] / np.maximum(table["image_area"], 1)).to_numpy()
    return np.searchsorted(_SIZES, share, side="left")


def _size_names() -> list[str]:
    lows = (0.0, *_SIZES[:-1])
    return [f"{100 * low:g}-{100 * high:g}%" for low, high in zip(lows, _SIZES, strict=True)]


def _has_size(table: pd.DataFrame) -> pd.Series:
    return (table["target_area"] > 0) & (table["kind"] != FAILED)


def _by_size(key: str, table: pd.DataFrame) -> dict[str, Any]:
    table = table[_has_size(table)]
    bins = _size_bin(table)
    counts = np.bincount(bins, minlength=len(_SIZES))[: len(_SIZES)]
    sums = np.bincount(bins, weights=table["iou"], minlength=len(_SIZES))[: len(_SIZES)]
    means = [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]
    return {
        "type": "bar", "name": key, "x": _size_names(), "y": means,
        "text": [f"n={count}" for count in counts], "hoverinfo": "x+y+text",
    }  # fmt: skip


def _confusion(table: pd.DataFrame) -> dict[str, Any]:
    target, answered = table["target_area"] > 0, table["prediction_area"] > 0
    counts = [
        [int((target & answered).sum()), int((target & ~answered).sum())],
        [int((~target & answered).sum()), int((~target & ~answered).sum())],
    ]
    return {
        "type": "heatmap",
        "x": ["answered", "nothing"],
        "y": ["target", "no target"],
        "z": counts,
        "text": counts,
        "texttemplate": "%{text}",
        "showscale": False,
        "colorscale": [[0, "rgba(86, 180, 233, 0.1)"], [1, "rgba(0, 114, 178, 1)"]],
    }
