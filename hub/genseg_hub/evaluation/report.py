"""Reports of a benchmark run: its figures beside the published ones, in Markdown and as a page of HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from genseg_hub.evaluation import literature
from genseg_hub.evaluation.gallery import Exhibit
from genseg_hub.evaluation.scores import MAX_GROUPS
from genseg_hub.figures import NAMES
from genseg_hub.markdown import as_code, as_words

_FIGURES = ("ciou", "miou", "target_miou", "box_miou", "n_acc", "t_acc", "pr@0.5", "pr@0.9")
COLUMNS = {figure: NAMES[figure] for figure in _FIGURES}
_WORDS_NOTE = (
    "No-target answers read from words, a null or an empty box instead of []: {:,}. The N-acc of an untuned checkpoint "
    "depends on them, because another evaluator may count them as wrong."
)


def markdown(figures: Mapping[str, Any]) -> str:
    """Return a table of a run's figures beside the published figures of the same split.

    Args:
        figures: as `benchmark_run.run` writes them to metrics.json.
    """
    return _render("report.md.jinja", figures)


def html(figures: Mapping[str, Any], gallery: Mapping[str, Sequence[Exhibit]]) -> str:
    """Return the same table, the figures of each group, errors and pictures as a page that needs no other file.

    The page shows every expression, answer and archive name as text, never as HTML.

    Args:
        figures: as `benchmark_run.run` writes them to metrics.json.
        gallery: of `gallery.draw`.
    """
    return _render("report.html.jinja", figures, troubles=_troubles(figures), max_groups=MAX_GROUPS, gallery=gallery)


def _render(template: str, figures: Mapping[str, Any], **more: Any) -> str:
    others = literature.of(figures["benchmark"], figures["split"])
    figures = {"no_target_in_words": 0, **figures}  # figures of an earlier version have no count
    note = _WORDS_NOTE.format(figures["no_target_in_words"])
    template_file = _environment().get_template(template)
    return template_file.render(run=figures, columns=COLUMNS, others=others, words_note=note, **more)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(disabled_extensions=["md.jinja"], default=True),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"points": _points, "words": as_words, "code": as_code}
    return environment


def _points(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _troubles(figures: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Return each kind of error, how many expressions have it, and of how many."""
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
