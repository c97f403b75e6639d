"""Run every benchmark of `make bench`, and write the table of results.

python benchmarks/all.py                     # writes benchmarks/RESULTS.md
python benchmarks/all.py pipeline metrics    # only these, printed
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from statistics import median

import torch

HERE = Path(__file__).parent
SCRIPTS = (
    "pipeline",
    "in_fiftyone",
    "mask_reward",
    "metrics",
    "evaluation",
    "registry",
    "size",
    "dataset_size",
    "cold_start",
)
PACKAGES = ("fiftyone-genseg", "fiftyone", "torch", "transformers", "rf-sam-2", "pycocotools", "numpy")


def main() -> None:
    """Run the chosen benchmarks one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help=f"one of {', '.join(SCRIPTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="less work, to see that all of it runs; printed only")
    options = parser.parse_args()
    chosen, quick = options.scripts or list(SCRIPTS), ["--quick"] if options.quick else []
    unknown = set(chosen) - set(SCRIPTS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose from {', '.join(SCRIPTS)}")
    started, rows, broken = time.monotonic(), [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            out = Path(folder, f"{name}.json")
            print(f"== {name}", flush=True)
            command = [sys.executable, str(HERE / f"{name}.py"), "--out", str(out), *quick]
            if subprocess.run(command, check=False).returncode:
                broken.append(name)
            else:
                rows += json.loads(out.read_text())
    rows.sort(key=lambda row: int(row["number"]))
    text = table(rows, (time.monotonic() - started) / 60, "make bench ARGS=--quick" if options.quick else "make bench")
    if broken:
        sys.exit(f"{text}\nstopped with an error: {', '.join(broken)}; {HERE / 'RESULTS.md'} is unchanged")
    if len(chosen) < len(SCRIPTS) or options.quick:
        print(text)
    else:
        (HERE / "RESULTS.md").write_text(text)
        print(f"wrote {HERE / 'RESULTS.md'}")


def table(rows: list[dict], minutes: float, command: str) -> str:
    """Return RESULTS.md, from rows as `side_by_side.Row` has them."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    lines = [
        "# Results",
        "",
        f"`{command}` on {datetime.date.today()}, {minutes:.0f} minutes: {os.cpu_count()} cores with "
        f"{torch.backends.cpu.get_cpu_capability()}, no GPU; "
        f"Python {platform.python_version()}, {versions}.",
        "",
        "Both ways run in one process and in turn, on the same weights and inputs. Their results are compared",
        "([findings](../docs/performance.md)). Seconds are medians, with the smallest and the largest.",
        "The load is the mean number of processes that wanted a core in the last minute, the benchmark among them.",
        "",
        "| # | work | against | ours, s | theirs, s | figure | bar | load | |",
        "|---|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        note = row["note"] if row["holds"] else f"**falls short** {row['note']}"
        cells = (row["number"], row["work"], row["against"], seconds(row["ours"]), seconds(row["theirs"]))
        cells += (row["figure"], row["bar"], f"{row['load']:.1f}", note)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def seconds(measured: list[float]) -> str:
    """Return a cell: the median and the range, or "-" without a measurement."""
    return f"{median(measured):.3g} ({min(measured):.3g} to {max(measured):.3g})" if measured else "-"


if __name__ == "__main__":
    main()
