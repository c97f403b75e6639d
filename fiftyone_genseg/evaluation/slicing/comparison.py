"""Figures of a run, or differences of two runs, with 95 % bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fiftyone_genseg.evaluation.slicing.kinds import CORRECT_IOU

REPLICATES = 1000
KEY = ["sample_id", "expression"]
FIGURES = ("ciou", "miou")


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % percentile interval; all None if undefined."""

    value: float | None
    low: float | None
    high: float | None


def _sums(table: pd.DataFrame) -> np.ndarray:
    """Return float64[N, 4]: intersection, union, IoU and 1 per expression."""
    intersection = table["intersection"].to_numpy(dtype=np.float64)
    union = (table["target_area"] + table["prediction_area"]).to_numpy(dtype=np.float64) - intersection
    return np.stack([intersection, union, table["iou"].to_numpy(dtype=np.float64), np.ones(len(table))], 1)


def _figures(sums: np.ndarray) -> np.ndarray:
    """Return [..., 2], cIoU and mIoU, of [..., 4] sums."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([sums[..., 0] / sums[..., 1], sums[..., 2] / sums[..., 3]], -1)


def _replicates(sums: np.ndarray, clusters: np.ndarray, seed: int) -> np.ndarray:
    """Return [REPLICATES, K]: sums over clusters drawn with replacement.

    Each draw has as many clusters as there are.
    """
    _, codes = np.unique(clusters, return_inverse=True)
    per_cluster = np.stack([np.bincount(codes, weights=column) for column in sums.T], 1)
    rng, count = np.random.default_rng(seed), len(per_cluster)
    return np.stack(
        [
            np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64) @ per_cluster
            for _ in range(REPLICATES)
        ]
    )


def _intervals(values: np.ndarray, replicates: np.ndarray, names: Sequence[str] = FIGURES) -> dict[str, Interval]:
    found = {}
    for column, name in enumerate(names):
        value = values[column]
        if not np.isfinite(value):
            found[name] = Interval(None, None, None)
            continue
        low, high = np.nanpercentile(replicates[:, column], [2.5, 97.5])
        found[name] = Interval(float(value), float(low), float(high))
    return found


def intervals(table: pd.DataFrame, seed: int = 0) -> dict[str, Interval]:
    """Return cIoU and mIoU of a run with 95 % intervals, by a bootstrap over images.

    Images are drawn with replacement, each with all of its expressions, because expressions about one image are not
    independent.

    Args:
        table: table with the columns image, iou, intersection, target_area, prediction_area.
        seed: seed of the bootstrap.
    """
    if not len(table):
        return {name: Interval(None, None, None) for name in FIGURES}
    sums = _sums(table)
    replicates = _figures(_replicates(sums, table["image"].to_numpy(), seed))
    return _intervals(_figures(sums.sum(0)), replicates)


def ratios(
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]], images: np.ndarray, seed: int = 0
) -> dict[str, Interval]:
    """Return ratios of sums with 95 % intervals.

    The bootstrap over images is the same as in `intervals`.

    Args:
        parts: figure -> the numerator and the denominator of each expression, float64[N].
        images: the image of each expression, [N].
        seed: seed of the bootstrap.
    """
    sums = np.stack([column for pair in parts.values() for column in pair], 1).astype(np.float64)
    drawn = _replicates(sums, images, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        values, replicates = (part[..., ::2] / part[..., 1::2] for part in (sums.sum(0), drawn))
    return _intervals(values, replicates, tuple(parts))


@dataclass(frozen=True)
class Difference:
    """Differences, run B minus run A, on the expressions that both have.

    Attributes:
        n: expressions in both; only_a, only_b: left out.
        figures: cIoU and mIoU differences with paired bootstrap intervals.
        wins, losses: expressions whose IoU rose or fell.
        flips: rows that crossed IoU 0.5: sample_id, expression, iou_a, iou_b, largest change first.
    """

    n: int
    only_a: int
    only_b: int
    figures: dict[str, Interval]
    wins: int
    losses: int
    flips: pd.DataFrame


def compare(a: pd.DataFrame, b: pd.DataFrame, seed: int = 0) -> Difference:
    """Compare two runs on the same expressions, by a paired bootstrap over images.

    Args:
        a: run A, with sample_id, expression, image, iou, intersection, target_area, prediction_area.
        b: run B, with the same columns.
        seed: seed of the bootstrap.

    Raises:
        ValueError: the runs share no expression.
    """
    joined = a[KEY].reset_index(names="row_a").merge(b[KEY].reset_index(names="row_b"), on=KEY, validate="1:1")
    if joined.empty:
        raise ValueError("the two runs have no expression in common; compare runs about the same samples")
    mine, its = a.loc[joined["row_a"]], b.loc[joined["row_b"]]
    before, after = _sums(mine), _sums(its)
    drawn = _replicates(np.concatenate([before, after], 1), mine["image"].to_numpy(), seed)
    values = _figures(after.sum(0)) - _figures(before.sum(0))
    change = after[:, 2] - before[:, 2]
    flipped = np.flatnonzero((before[:, 2] >= CORRECT_IOU) != (after[:, 2] >= CORRECT_IOU))
    flipped = flipped[np.argsort(-np.abs(change[flipped]), kind="stable")]
    flips = joined[KEY].iloc[flipped].assign(iou_a=before[flipped, 2], iou_b=after[flipped, 2]).reset_index(drop=True)
    return Difference(
        len(joined), len(a) - len(joined), len(b) - len(joined),
        _intervals(values, _figures(drawn[:, 4:]) - _figures(drawn[:, :4])),
        int((change > 0).sum()), int((change < 0).sum()), flips,
    )  # fmt: skip


def changes(a: pd.DataFrame, b: pd.DataFrame) -> pd.Series:
    """Return IoU in run B minus IoU in run A for each row of B; NaN if A lacks it."""
    before = b[KEY].merge(a[[*KEY, "iou"]], on=KEY, how="left", validate="1:1")["iou"]
    return pd.Series(b["iou"].to_numpy() - before.to_numpy(), index=b.index)
