"""Slices: one or two attribute values on which a run is worse than elsewhere."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

COLUMNS = ("slice", "attributes", "n", "ciou", "miou", "gap", "gap_low", "gap_high", "z", "q")
_Z95 = float(stats.norm.ppf(0.975))


def find_slices(
    table: pd.DataFrame, attributes: pd.DataFrame, min_support: int | None = None, alpha: float = 0.05
) -> pd.DataFrame:
    """Return the slices whose mIoU is below the rest's, worst evidence first.

    A slice is one or two attribute values. Every value of every attribute and every pair of values of two attributes is
    tried. A slice is judged by its mean IoU minus the mean IoU of all other expressions. The difference is divided by
    the larger of two standard errors, Student's and one that is robust to clusters: expressions about one image are not
    independent. The one-sided p-values of all slices tried are corrected by Benjamini and Hochberg's procedure. A pair
    is left out unless it is clearly worse than each of its two values alone: the upper end of its mIoU's interval is
    below both of theirs.

    Args:
        table: table with the columns image, iou, intersection, target_area, prediction_area.
        attributes: categorical columns, one row per row of `table`.
        min_support: smaller slices are not tried; None for 1 % of the rows, at least 10.
        alpha: largest corrected p-value; 1 gives every slice with a gap.

    Returns:
        One row for each slice, with `slice` (text), `attributes` (dict attribute -> value), `n`, `ciou`, `miou` and
        `gap` (mIoU of the rest minus its own). `gap` has a 95 % interval by that standard error. `z` is the statistic,
        by which rows are sorted, and `q` is the corrected p-value. `result.attrs["tried"]` is the number of slices
        tried.
    """
    total = len(table)
    min_support = max(10, total // 100) if min_support is None else min_support
    names, owner, indicators = _indicators(attributes, min_support)
    iou = table["iou"].to_numpy(dtype=np.float64)
    union = (table["target_area"] + table["prediction_area"] - table["intersection"]).to_numpy(dtype=np.float64)
    sums = {"n": np.ones(total), "iou": iou, "square": iou**2, "union": union}
    sums["intersection"] = table["intersection"].to_numpy(dtype=np.float64)
    # [m, m] sums of every pair of indicators; the diagonal holds the single values.
    both = {name: indicators.T @ (indicators * weight[:, None]) for name, weight in sums.items()}
    candidates = [(i, i) for i in range(len(names))]
    candidates += [(i, j) for i, j in combinations(range(len(names)), 2) if owner[i] != owner[j]]
    rows = np.array([(i, j) for i, j in candidates if min_support <= both["n"][i, j] <= total - min_support])
    if not len(rows):
        empty = pd.DataFrame(columns=list(COLUMNS))
        empty.attrs["tried"] = 0
        return empty
    i, j = rows.T
    n, mean = both["n"][i, j], both["iou"][i, j] / both["n"][i, j]
    variance = np.maximum(both["square"][i, j] / n - mean**2, 0) * n / np.maximum(n - 1, 1)
    rest_n = total - n
    rest_mean = (iou.sum() - both["iou"][i, j]) / rest_n
    rest_variance = np.maximum(((iou**2).sum() - both["square"][i, j]) / rest_n - rest_mean**2, 0)
    rest_variance *= rest_n / np.maximum(rest_n - 1, 1)
    pooled = ((n - 1) * variance + (rest_n - 1) * rest_variance) / max(1, total - 2)
    gap = rest_mean - mean
    _, image = np.unique(table["image"].to_numpy(), return_inverse=True)
    clustered = np.zeros(len(rows))
    for k in np.flatnonzero(gap > 0):  # the others are not reported
        clustered[k] = _cluster_variance(iou, indicators[:, i[k]] * indicators[:, j[k]], mean[k], rest_mean[k], image)
    error = np.sqrt(np.maximum(np.maximum(pooled * (1 / n + 1 / rest_n), clustered), 1e-12))
    z = gap / error
    q = stats.false_discovery_control(stats.t.sf(z, max(1, image.max())))
    spread = _Z95 * error
    with np.errstate(invalid="ignore"):
        ciou = both["intersection"][i, j] / both["union"][i, j]
    single = np.diag(both["iou"]) / np.maximum(np.diag(both["n"]), 1)
    upper = mean + _Z95 * np.sqrt(variance / n)
    worse_than_parts = (i == j) | ((upper < single[i]) & (upper < single[j]))
    chosen = np.flatnonzero((gap > 0) & (q <= alpha) & worse_than_parts)
    chosen = chosen[np.lexsort((-n[chosen], -z[chosen]))]
    result = pd.DataFrame(
        {
            "attributes": [dict(names[k] for k in sorted({i[c], j[c]})) for c in chosen],
            "n": n[chosen].astype(int),
            "ciou": ciou[chosen],
            "miou": mean[chosen],
            "gap": gap[chosen],
            "gap_low": (gap - spread)[chosen],
            "gap_high": (gap + spread)[chosen],
            "z": z[chosen],
            "q": q[chosen],
        }
    )
    result.insert(0, "slice", [describe(values) for values in result["attributes"]])
    result.attrs["tried"] = len(rows)
    return result


def _cluster_variance(iou: np.ndarray, inside: np.ndarray, mean: float, rest_mean: float, image: np.ndarray) -> float:
    """Return the variance of a difference of means, for rows grouped by image.

    Sum each image's residuals, square the sums, and add the squares. The correction for C images is C / (C - 1) (Liang
    and Zeger, 1986).
    """
    n = inside.sum()
    residual = np.where(inside > 0, (iou - mean) / n, (rest_mean - iou) / (len(iou) - n))
    sums = np.bincount(image, weights=residual)
    return float((sums**2).sum() * len(sums) / max(1, len(sums) - 1))


def _indicators(attributes: pd.DataFrame, min_support: int) -> tuple[list[tuple[str, str]], list[int], np.ndarray]:
    """Return each indicator's (attribute, value), its column, and float64[N, m].

    The column is the number of the attribute in `attributes`. The matrix has 1 where a row has the value, else 0.
    """
    names, owner, columns = [], [], []
    for number, (attribute, values) in enumerate(attributes.items()):
        counts = values.value_counts()
        for value in counts[counts >= min_support].index:
            names.append((str(attribute), str(value)))
            owner.append(number)
            columns.append((values == value).to_numpy(dtype=np.float64))
    return names, owner, np.stack(columns, 1) if columns else np.zeros((len(attributes), 0))


def describe(values: dict[str, str]) -> str:
    """Return a slice in one line: "space = left of, size = 1-5%"."""
    return ", ".join(f"{attribute} = {value}" for attribute, value in values.items())


def members(attributes: pd.DataFrame, values: dict[str, str]) -> np.ndarray:
    """Return bool[N]: the rows that belong to a slice; all rows for {}.

    Raises:
        KeyError: when an attribute does not exist.
    """
    inside = np.ones(len(attributes), dtype=bool)
    for attribute, value in values.items():
        inside &= (attributes[attribute].astype(str) == value).to_numpy()
    return inside
