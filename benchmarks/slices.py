"""Compare this project's exhaustive search for slices with sliceline.

python benchmarks/slices.py --rows 100000

A failure is planted in one value of an attribute, or in a pair of values of two attributes: it halves the IoUs there.
The script prints the rank of the planted slice in each answer (1 is best, - means not found) and the seconds.
"""

import argparse
import time

import numpy as np
import pandas as pd
from sliceline.slicefinder import Slicefinder

from fiftyone_genseg.evaluation.slicing import slices

VALUES = {"length": 4, "targets": 3, "size": 5, "position": 10, "space": 12, "colour": 9, "count": 4, "ordinal": 3}


def planted(rows: int, seed: int, pair: bool) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    """Draw a table and its attributes, plant a slice and return all three."""
    rng = np.random.default_rng(seed)
    weights = {name: rng.dirichlet(np.full(count, 2.0)) for name, count in VALUES.items()}
    columns = pd.DataFrame(
        {n: rng.choice([f"{n}{i}" for i in range(c)], rows, p=weights[n]) for n, c in VALUES.items()}
    )
    # The most common values, because rare ones have too few rows to be tried.
    common = {name: str(columns[name].mode()[0]) for name in ("space", "size")}
    chosen = common if pair else {"space": common["space"]}
    ious = np.clip(rng.normal(0.7, 0.3, rows), 0, 1)
    ious[slices.members(columns, chosen)] *= 0.5
    area = np.full(rows, 1000)
    table = pd.DataFrame(
        {"image": np.arange(rows) // 3, "iou": ious, "intersection": (ious * 1000).astype(int), "target_area": area}
    )
    table["prediction_area"] = table["intersection"]
    return table, columns.astype("category"), chosen


def exhaustive(table: pd.DataFrame, columns: pd.DataFrame) -> list[dict[str, str]]:
    """Return the slices that this project finds, the best first."""
    return slices.find_slices(table, columns)["attributes"].tolist()


def sliceline(table: pd.DataFrame, columns: pd.DataFrame) -> list[dict[str, str]]:
    """Return the slices that sliceline finds, the best first."""
    finder = Slicefinder(alpha=0.95, k=10, max_l=2, min_sup=max(10, len(table) // 100), verbose=False)
    finder.fit(columns.astype(str), 1 - table["iou"].to_numpy())
    names = list(columns)
    return [{n: v for n, v in zip(names, row, strict=True) if v is not None} for row in finder.top_slices_]


def main() -> None:
    """Print ranks and seconds of both searches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    for pair in (False, True):
        for name, search in (("exhaustive", exhaustive), ("sliceline", sliceline)):
            ranks, seconds = [], []
            for seed in range(options.seeds):
                table, columns, chosen = planted(options.rows, seed, pair)
                started = time.perf_counter()
                found = search(table, columns)
                seconds.append(time.perf_counter() - started)
                ranks.append(str(found.index(chosen) + 1) if chosen in found else "-")
            what = "a pair of values" if pair else "one value"
            print(f"{what:17} {name:11} ranks {' '.join(ranks)}   median {np.median(seconds):.2f} s")


if __name__ == "__main__":
    main()
