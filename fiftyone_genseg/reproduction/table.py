"""Write published figures beside a reproduction's, and the figures of the cards.

The reproduction's figures have 95 % intervals.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from genseg_hub.evaluation import benchmark_run, literature
from genseg_hub.evaluation.metrics import POLICIES
from genseg_hub.figures import NAMES
from genseg_hub.markdown import as_words
from genseg_hub.whole import write_text

from fiftyone_genseg.evaluation.slicing import comparison
from fiftyone_genseg.reproduction.request import Reproduction, Run
from fiftyone_genseg.reproduction.stages import scored, start_won

MARKDOWN, JSON = "table.md", "table.json"
COLUMNS = ("ciou", "miou", "target_miou", "box_miou", "n_acc")
NOTE = (
    "Percent. Brackets: 95 % intervals by a bootstrap over images of the benchmark; they say nothing about another "
    "seed of the training. Published figures have no intervals."
)


def write(asked: Reproduction, out: Path) -> str:
    """Write the table of all benchmarks that are scored; return it as Markdown.

    Args:
        asked: the reproduction.
        out: its folder.

    Raises:
        OSError: a run has no figures yet, or the disk does not allow the table.
    """
    rows: list[dict[str, Any]] = []
    for benchmark in dict.fromkeys(benchmark for run in asked.runs for benchmark in run.benchmarks):
        rows += [_published(figures) for figures in literature.of(*benchmark)]
        rows += [_ours(run, benchmark, out) for run in asked.runs if benchmark in run.benchmarks]
    text = _markdown(asked, rows)
    write_text(out / JSON, json.dumps({"reproduction": asked.name, "note": NOTE, "rows": rows}, indent=2) + "\n")
    write_text(out / MARKDOWN, text)
    return text


def add_figures(run: Run, out: Path) -> None:
    """Copy the figures of a run's benchmarks into its result's folder, for the card.

    Paths of this machine and texts of the archive stay behind.

    Args:
        run: run with all benchmarks scored.
        out: folder of the reproduction.
    """
    for name, split in run.benchmarks:
        figures = _figures(scored(run, (name, split), out))
        kept = {key: value for key, value in figures.items() if isinstance(value, int | float)}
        limit = f" --limit {figures['n']}" if "--limit" in figures["command"].split() else ""
        report = {
            "benchmark": f"{name} {split}" + (f", {figures['n']:,} expressions" if limit else ""),
            "command": f"genseg benchmark {name} --split {split}{limit} --root ARCHIVES",
            "policy": figures["policy"],
            "intervals": _intervals(scored(run, (name, split), out), figures["policy"]),
            "versions": figures["versions"],
        }
        file = run.result / "evaluation" / f"{name}-{split}.json"
        write_text(file, json.dumps(report | kept, indent=2) + "\n")


def _published(row: literature.PublishedFigures) -> dict[str, Any]:
    figures = {name: {"value": value} for name, value in row.figures.items()}
    return {
        "benchmark": row.benchmark,
        "split": row.split,
        "system": row.system,
        "published": True,
        "figures": figures,
        "source": row.source,
    }


def _ours(run: Run, benchmark: tuple[str, str], out: Path) -> dict[str, Any]:
    folder = scored(run, benchmark, out)
    figures = _figures(folder)
    intervals = _intervals(folder, figures["policy"])
    return {
        "benchmark": benchmark[0],
        "split": benchmark[1],
        "system": run.name,
        "published": False,
        "figures": {
            name: {"value": figures[name]} | intervals.get(name, {})
            for name in COLUMNS
            if figures.get(name) is not None
        },
        "source": "this reproduction",
        **{name: figures[name] for name in ("model", "checksum", "policy", "n", "n_failed", "command", "versions")},
        "part": "--limit" in figures["command"].split(),
        "start_won": start_won(run),
    }


def _figures(folder: Path) -> dict[str, Any]:
    return json.loads((folder / benchmark_run.METRICS).read_bytes())


def _intervals(folder: Path, policy: str) -> dict[str, dict[str, float]]:
    """Return the 95 % intervals of a benchmark run's figures, from its rows."""
    rows = pd.read_json(folder / benchmark_run.ROWS, lines=True, dtype={"example_id": str, "image_id": str})
    iou, target = rows["iou"].to_numpy(float), (rows["target_area"] > 0).to_numpy(float)
    intersection = rows["intersection"].to_numpy(float)
    union = (rows["target_area"] + rows["prediction_area"]).to_numpy(float) - intersection
    parts = {
        "ciou": (intersection, union),
        "miou": (iou, np.ones(len(rows))),
        "target_miou": (iou * target, target),
        "box_miou": (rows["box_iou"].to_numpy(float) * target, target),
    }
    if POLICIES[policy].rejection_iou:  # an IoU of a no-target expression is then 1 for a right answer, else 0
        parts["n_acc"] = (iou * (1 - target), 1 - target)
    found = comparison.ratios(parts, rows["image_id"].to_numpy())
    return {
        name: {"low": interval.low, "high": interval.high}
        for name, interval in found.items()
        if interval.low is not None and interval.high is not None
    }


def _markdown(asked: Reproduction, rows: list[dict[str, Any]]) -> str:
    lines = [f"# {as_words(asked.name)}", ""]
    lines.append(f"| benchmark | system |{''.join(f' {NAMES[name]} |' for name in COLUMNS)} source |")
    lines.append(f"|---|---|{'---:|' * len(COLUMNS)}---|")
    for row in rows:
        where, system = f"{row['benchmark']} {row['split']}", as_words(row["system"])
        system = system if row["published"] else f"**{system}**"
        cells = "".join(f" {_cell(row['figures'].get(name))} |" for name in COLUMNS)
        lines.append(f"| {as_words(where)} | {system} |{cells} {as_words(row['source'])} |")
    lines += ["", NOTE, ""]
    for row in rows:
        if not row["published"]:
            part = "; **not the whole split**" if row["part"] else ""
            part += "; these are the weights that the run started from, which no checkpoint beat" * row["start_won"]
            failed = f", {row['n_failed']:,} without a usable answer" if row["n_failed"] else ""
            where = f"{as_words(row['system'])}, {row['benchmark']} {row['split']}"
            lines.append(f"- {where}: {row['n']:,} expressions{failed}, policy {row['policy']}{part}")
    return "\n".join(lines) + "\n"


def _cell(figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return ""
    value = f"{100 * figure['value']:.2f}"
    return f"{value} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]" if "low" in figure else value
