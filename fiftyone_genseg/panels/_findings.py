"""Contents of the panel "Failure slices", from the user's choices and the view."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import fiftyone as fo
import numpy as np
import pandas as pd

from fiftyone_genseg.evaluation.config import SAMPLE_FIELDS
from fiftyone_genseg.evaluation.results import ReferringResults
from fiftyone_genseg.evaluation.slicing import comparison, kinds, slices
from fiftyone_genseg.panels import _choices, _runs, _views
from fiftyone_genseg.panels._layout import percent

EVERYTHING = "all expressions"
SORTS = {"z": "evidence", "gap": "gap", "n": "support", "ciou": "cIoU", "miou": "mIoU"}
_ASCENDING = ("ciou", "miou")
_LISTED = 100
_EXAMPLES = 6
_LEAST_P = 0.0001  # smaller ones are not told apart


@dataclass(frozen=True)
class Choice:
    """Choices of the user, without runs and fields that are gone.

    Attributes:
        run: the run whose failures are looked for, the newest one until another is chosen.
        against: the run to compare with.
        fields: sample fields whose values make slices, too.
        sort: a key of `SORTS`.
        about: an attribute that the listed slices are about; "" for all slices.
        attributes: attribute -> value of the chosen slice; {} for everything.
    """

    run: str
    against: str | None
    fields: tuple[str, ...]
    sort: str
    about: str
    attributes: dict[str, str]

    @classmethod
    def of(cls, ctx) -> Choice:
        """Return the choices of an event's panel. There must be a run."""
        chosen, runs = _choices.chosen(ctx), _runs.keys(ctx.dataset)
        known = sample_fields(ctx.dataset)
        run, against = chosen.get("run"), chosen.get("against")
        return cls(
            str(run) if run in runs else runs[0],
            against if against in runs else None,
            tuple(name for name in chosen.get("fields") or [] if name in known),
            chosen.get("sort") or "z",
            chosen.get("about") or "",
            chosen.get("slice") or {},
        )


@dataclass(frozen=True)
class Findings:
    """Slices of a run, and the chosen one.

    Attributes:
        choice: the user's choices.
        results: results of the run.
        rows: bool[N], the expressions of the run that the panel is about.
        columns: attributes of the N expressions.
        found, tried: numbers of slices that are worse than the rest, and of all that were tried.
        listed: the found slices that the table lists, in its order.
        attributes: attributes of the chosen slice; {} for everything, also if an attribute is gone.
    """

    choice: Choice
    results: ReferringResults
    rows: np.ndarray
    columns: pd.DataFrame
    found: int
    tried: int
    listed: pd.DataFrame
    attributes: dict[str, str]

    @property
    def name(self) -> str:
        """Return the chosen slice in words."""
        return slices.describe(self.attributes) if self.attributes else EVERYTHING

    @property
    def table(self) -> pd.DataFrame:
        """Return the expressions of the chosen slice."""
        return self.results.table[self.rows & slices.members(self.columns, self.attributes)]

    @property
    def worst(self) -> pd.DataFrame:
        """Return the worst examples of the chosen slice that failed, at most six."""
        table = self.table
        return table[table["kind"] != kinds.CORRECT].sort_values("iou", kind="stable").head(_EXAMPLES)


def look(ctx) -> Findings:
    """Return the contents of an event's panel."""
    choice = Choice.of(ctx)
    results = _runs.load_results(ctx.dataset, choice.run)
    rows = _views.rows(ctx, results)
    values = _runs.field_values(ctx.dataset, choice.run, choice.fields)
    columns = _runs.run_attributes(ctx.dataset, choice.run, values)
    found = _runs.run_slices(ctx.dataset, choice.run, values, rows)
    listed = found.sort_values(choice.sort, ascending=choice.sort in _ASCENDING, kind="stable")
    if len(listed) and choice.about in columns:
        listed = listed[[choice.about in attributes for attributes in listed["attributes"]]]
    attributes = choice.attributes if set(choice.attributes) <= set(columns) else {}
    tried = found.attrs.get("tried", 0)
    return Findings(choice, results, rows, columns, len(found), tried, listed.head(_LISTED), attributes)


def data(ctx, findings: Findings) -> dict[str, Any]:
    """Return the values of the panel's texts and table."""
    choice, table = findings.choice, findings.table
    other = _runs.load_results(ctx.dataset, choice.against) if choice.against else None
    return {
        "scope": (
            f"{_views.scope(findings.rows)} {findings.found} of {findings.tried} slices tried are worse than the rest "
            "beyond chance (5 % after correction for their number)."
        ),
        "slices": _slice_rows(findings, other),
        "chosen": f"{findings.name}: {len(table):,} expressions",
        "difference": _difference(findings, choice.against, other) if choice.against and other else "",
    }


def sample_fields(dataset: fo.Dataset) -> list[str]:
    """Return the sample fields whose values can make slices."""
    types = (fo.StringField, fo.BooleanField, fo.IntField, fo.FloatField)
    hidden = {"id", "filepath", "expression", "image_id"}
    suffixes = ("tp", "fp", "fn", *SAMPLE_FIELDS)
    own = {f"{key}_{suffix}" for key in dataset.list_evaluations() for suffix in suffixes}
    return ["tags", *(name for name in dataset.get_field_schema(ftype=types) if name not in hidden | own)]


def _slice_rows(findings: Findings, other: ReferringResults | None) -> list[dict[str, str]]:
    """Return a row per listed slice, with its wins and losses.

    Wins and losses are counted against another run that is comparable.
    """
    change = None
    if other is not None and not _runs.comparable(other, findings.results):
        change = comparison.changes(other.table, findings.results.table)
    rows = []
    for row in findings.listed.to_dict("records"):
        compared = {}
        if change is not None:
            inside = change[findings.rows & slices.members(findings.columns, row["attributes"])]
            compared = {"wins": f"{(inside > 0).sum():,}", "losses": f"{(inside < 0).sum():,}"}
        shown = {
            "slice": row["slice"],
            "n": f"{row['n']:,}",
            "ciou": percent(row["ciou"] if np.isfinite(row["ciou"]) else None),
            "miou": percent(row["miou"]),
            "gap": percent(row["gap"], row["gap_low"], row["gap_high"]),
            "q": f"{row['q']:.2g}" if row["q"] >= _LEAST_P else f"< {_LEAST_P}",
        }
        rows.append(shown | compared)
    return rows


def _difference(findings: Findings, against: str, other: ReferringResults) -> str:
    """Return the chosen slice against the same expressions of another run, in words."""
    problem = _runs.comparable(other, findings.results)
    if problem:
        return f"{against} is not compared: {problem}."
    try:
        found = comparison.compare(other.table, findings.table)
    except ValueError as error:
        return f"{error}."
    interval = found.figures["miou"]
    return (
        f"mIoU {100 * (interval.value or 0):+.1f} points [{100 * (interval.low or 0):+.1f}, "
        f"{100 * (interval.high or 0):+.1f}] against {against} on {found.n:,} expressions of the slice; "
        f"{found.wins:,} better, {found.losses:,} worse, {len(found.flips):,} crossed IoU 0.5."
    )


def kind_traces(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the bars of the failure kinds: a trace for reasoner, segmenter and run."""
    counts = table["kind"].value_counts().reindex(kinds.KINDS, fill_value=0)
    counts = counts[(counts > 0) & (counts.index != kinds.CORRECT)]
    fault = kinds.faults(table)
    traces = []
    for who in (kinds.REASONER, kinds.SEGMENTER, kinds.RUN):
        mine = table.loc[fault == who, "kind"].value_counts().reindex(counts.index, fill_value=0)
        if mine.sum():
            meanings = ["<br>".join(wrap(kinds.DEFINITIONS[kind], 50)) for kind in counts.index]
            names = [in_words(kind) for kind in counts.index]
            traces.append({"type": "bar", "name": who, "x": names, "y": mine.tolist(), "hovertext": meanings})
    return traces


def in_words(kind: str) -> str:
    """Return a failure kind as people read it."""
    return kind.replace("_", " ")
