"""What a benchmark run says of itself: its figures beside the published ones, in Markdown and as a page of HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from genseg_hub.evaluation import literature
from genseg_hub.evaluation.gallery import Exhibit
from genseg_hub.evaluation.metrics import NAMES
from genseg_hub.evaluation.scores import MAX_GROUPS

_FIGURES = ("ciou", "miou", "target_miou", "box_miou", "n_acc", "t_acc", "pr@0.5", "pr@0.9")
COLUMNS = {figure: NAMES[figure] for figure in _FIGURES}


def markdown(figures: Mapping[str, Any]) -> str:
    """A table of a run's figures, the published ones of the same split beside them.

    Args:
        figures: as `benchmarking.run` writes them to metrics.json.
    """

    def row(name: str, values: Mapping[str, Any], source: str) -> str:
        cells = [_points(values.get(column)) for column in COLUMNS]
        return f"| {' '.join(name.replace('|', '/').split())} | {' | '.join(cells)} | {source} |"

    rows = [row(f"**{figures['model']}**", figures, "this run")]
    rows += [row(other.system, other.figures, other.source) for other in _others(figures)]
    notes = [
        f"{figures['n']:,} expressions, {figures['n_target']:,} with a target; policy `{figures['policy']}`. "
        f"Parse failures {figures['parse_failures']:.2%}, not segmented {figures['failures']:,}, "
        f"of which without a prediction {figures['missing']:,}.",
        f"Archive: {figures['archive']}",
        f"Command: `{figures['command']}`",
        *([f"Reasoner: on a server, which calls it `{figures['served']}`"] if "served" in figures else []),
        "Versions: " + ", ".join(f"{name} {version}" for name, version in figures["versions"].items()),
    ]
    return "\n".join(
        [
            f"# {figures['benchmark']} {figures['split']}",
            "",
            f"| system | {' | '.join(COLUMNS.values())} | source |",
            f"|---|{'---:|' * len(COLUMNS)}---|",
            *rows,
            "",
            "\n\n".join(notes),
            "",
        ]
    )


def html(figures: Mapping[str, Any], gallery: Mapping[str, Sequence[Exhibit]]) -> str:
    """The same, with the figures of each group, what went wrong, and pictures: one page that needs no other file.

    Whatever the expressions, the model and the archive say is shown as text.

    Args:
        figures: as `benchmarking.run` writes them to metrics.json.
        gallery: of `gallery.draw`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["points"] = _points
    return environment.get_template("report.html").render(
        run=figures,
        columns=COLUMNS,
        others=_others(figures),
        troubles=_troubles(figures),
        max_groups=MAX_GROUPS,
        gallery=gallery,
    )


def _points(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _others(figures: Mapping[str, Any]) -> list[literature.PublishedFigures]:
    return literature.of(figures["benchmark"], figures["split"])


def _troubles(figures: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """(what went wrong, how many times, of how many expressions)."""
    n, targets, others = figures["n"], figures["n_target"], figures["n_no_target"]
    return [
        ("Without a prediction", figures["missing"], n),
        ("Not segmented: the model failed", figures["failures"] - figures["missing"], n),
        *(
            (f"Answer not as asked: {error.replace('_', ' ')}", count, n)
            for error, count in sorted(figures["errors"].items())
        ),
        ("With a target, and no mask", targets - round((figures["t_acc"] or 0) * targets), targets),
        ("Without a target, and not answered with nothing", others - round((figures["n_acc"] or 0) * others), others),
    ]
