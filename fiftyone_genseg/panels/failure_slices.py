"""The panel "Failure slices": where a run fails, the worst examples there, and what to do about them."""

from __future__ import annotations

import base64
import io

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pandas as pd
from fiftyone.operators import types
from fiftyone.operators.categories import Categories
from fiftyone.operators.panel import Panel
from genseg_hub.images import load_image
from genseg_hub.overlay import draw_masks
from PIL import Image

from fiftyone_genseg import labels
from fiftyone_genseg.evaluation.config import SAMPLE_FIELDS
from fiftyone_genseg.evaluation.slicing import comparison, kinds, slices
from fiftyone_genseg.fields import holds_several
from fiftyone_genseg.panels import _runs

EXPORT = "@fiftyone-genseg/genseg/export_referring_examples"
TRAIN = "@fiftyone-genseg/genseg/train_on_view"
_SORTS = {"z": "evidence", "gap": "gap", "n": "support", "ciou": "cIoU", "miou": "mIoU"}
_ASCENDING = ("ciou", "miou")
_EXAMPLES = 6
_HEIGHT = 220
_EVERYTHING: dict[str, str] = {}


class FailureSlices(Panel):
    """The table of slices; a chosen slice has its failure kinds, a gallery and actions."""

    @property
    def config(self) -> foo.PanelConfig:
        return foo.PanelConfig(
            name="failure_slices",
            label="Failure slices",
            icon="bug_report",
            category=Categories.ANALYZE,
            help_markdown="Where a run is worse than elsewhere. Click a row to choose a slice.",
        )

    def on_load(self, ctx) -> None:
        self._refresh(ctx)

    def on_change_dataset(self, ctx) -> None:
        _runs.remember(ctx, run=None, against=None, slice=None, fields=None)
        self._refresh(ctx)

    def on_change_view(self, ctx) -> None:
        if ctx.dataset is not None and not _runs.is_shown_by_panel(ctx):
            self._refresh(ctx)

    def reload(self, ctx) -> None:
        """Look for runs that were made since, and forget the view that was shown."""
        _runs.remember(ctx, shown=None)
        self._refresh(ctx)

    def _choose(self, ctx, **values) -> None:
        """Keep what was chosen. The App also sends what is chosen already, when it draws the choice."""
        known = _runs.memory(ctx)
        if any(known.get(name) != value for name, value in values.items()):
            _runs.remember(ctx, **values)
            self._refresh(ctx)

    @_runs.safely
    def choose_run(self, ctx) -> None:
        if ctx.params.get("value") != self._run(ctx):
            self._choose(ctx, run=ctx.params.get("value"), slice=None)

    @_runs.safely
    def choose_against(self, ctx) -> None:
        self._choose(ctx, against=ctx.params.get("value") or None)

    @_runs.safely
    def add_field(self, ctx) -> None:
        """Look for slices in the values of a further sample field."""
        value, fields = ctx.params.get("value"), list(self._fields(ctx))
        if value and value not in fields:
            self._choose(ctx, fields=[*fields, value], slice=None)

    @_runs.safely
    def drop_fields(self, ctx) -> None:
        self._choose(ctx, fields=[], slice=None)

    @_runs.safely
    def choose_sort(self, ctx) -> None:
        self._choose(ctx, sort=ctx.params.get("value"))

    @_runs.safely
    def filter_slices(self, ctx) -> None:
        self._choose(ctx, filter=ctx.params.get("value") or None)

    @_runs.safely
    def choose_slice(self, ctx) -> None:
        """A row of the table was clicked: -1 is the header, which stands for everything."""
        listed = _runs.memory(ctx).get("listed") or []
        row = ctx.params.get("row", -1)
        _runs.remember(ctx, slice=listed[row] if 0 <= row < len(listed) else None)
        self._refresh(ctx)

    @_runs.safely
    def click_kind(self, ctx) -> None:
        table = self._slice_table(ctx)
        _runs.show(ctx, table[table["kind"] == ctx.params.get("x")])

    @_runs.safely
    def show_in_grid(self, ctx) -> None:
        _runs.show(ctx, self._slice_table(ctx))

    @_runs.safely
    def tag(self, ctx) -> None:
        """Tag the samples of the slice with the text in the box."""
        name = (ctx.panel.get_state("tag") or "").strip() or "failure-slice"
        table = self._slice_table(ctx)
        ids = table["sample_id"].unique().tolist()
        ctx.dataset.select(ids).tag_samples(name)
        ctx.ops.notify(f"Tagged {len(ids):,} samples with {name!r}.", variant="success")
        ctx.ops.reload_dataset()

    @_runs.safely
    def export(self, ctx) -> None:
        """Open the form of the export with this slice filled in."""
        self._prompt(ctx, EXPORT)

    @_runs.safely
    def train(self, ctx) -> None:
        """Open the form of the training with this slice filled in."""
        self._prompt(ctx, TRAIN)

    def _prompt(self, ctx, operator: str) -> None:
        table = self._slice_table(ctx)
        results = _runs.load_results(ctx.dataset, self._run(ctx))
        ctx.prompt(
            operator,
            params={
                "gt_field": results.config.gt_field,
                "expression_field": results.config.expression_field,
                "pairs": table[["sample_id", "expression"]].to_numpy().tolist(),
            },
        )

    def _run(self, ctx) -> str:
        existing = _runs.keys(ctx.dataset)
        chosen = _runs.memory(ctx).get("run")
        return chosen if chosen in existing else existing[0]

    def _fields(self, ctx) -> tuple[str, ...]:
        known = _fields(ctx.dataset)
        return tuple(name for name in _runs.memory(ctx).get("fields") or [] if name in known)

    def _slice_table(self, ctx) -> pd.DataFrame:
        """The rows of the chosen slice among those that the panel has drawn."""
        key = self._run(ctx)
        results = _runs.load_results(ctx.dataset, key)
        rows = _runs.drawn_rows(ctx, results)
        columns = _runs.run_attributes(ctx.dataset, key, self._fields(ctx))
        return results.table[rows & slices.members(columns, _runs.memory(ctx).get("slice") or _EVERYTHING)]

    def _refresh(self, ctx) -> None:
        _runs.remember(ctx, problem=None)
        if not _runs.keys(ctx.dataset):
            return
        try:
            self._compute(ctx)
        except Exception as error:  # noqa: BLE001 - a panel shows its error instead of vanishing
            _runs.remember(ctx, problem=f"The run could not be shown: {error}")

    def _compute(self, ctx) -> None:
        key = self._run(ctx)
        results = _runs.load_results(ctx.dataset, key)
        rows = _runs.rows_in_view(ctx, results)
        columns = _runs.run_attributes(ctx.dataset, key, self._fields(ctx))
        if not set(_runs.memory(ctx).get("slice") or ()) <= set(columns):
            _runs.remember(ctx, slice=None)  # its attribute is gone
        found = _runs.run_slices(ctx.dataset, key, rows, columns)
        text = (
            f"{_runs.scope(rows)} {len(found)} of {found.attrs.get('tried', 0)} slices tried are worse than the rest "
            "beyond chance (5 % after correction for their number)."
        )
        _runs.remember(ctx, run=key, drawn=_runs.drawn_view(ctx), scope=text)
        sort = _runs.memory(ctx).get("sort") or "z"
        found = found.sort_values(sort, ascending=sort in _ASCENDING, kind="stable")
        words = (_runs.memory(ctx).get("filter") or "").lower()
        found = found[found["slice"].str.lower().str.contains(words, regex=False)] if len(found) else found
        _runs.remember(ctx, listed=found["attributes"].tolist()[:100])
        change = self._changes(ctx, results)
        listed = []
        for _, row in found.head(100).iterrows():
            inside = None if change is None else change[rows & slices.members(columns, row["attributes"])]
            listed.append(_row(row, inside))
        _runs.put(ctx, "slices", listed)
        table = self._slice_table(ctx)
        chosen = _runs.memory(ctx).get("slice")
        name = slices.describe(chosen) if chosen else "everything"
        _runs.remember(ctx, chosen=f"{name}: {len(table):,} expressions")
        counts = table["kind"].value_counts().reindex(kinds.KINDS, fill_value=0)
        counts = counts[(counts > 0) & (counts.index != kinds.CORRECT)]
        fault = kinds.faults(table)
        traces = []
        for who in (kinds.REASONER, kinds.SEGMENTER, kinds.RUN):
            mine = table.loc[fault == who, "kind"].value_counts().reindex(counts.index, fill_value=0)
            if mine.sum():
                traces.append({"type": "bar", "name": who, "x": counts.index.tolist(), "y": mine.tolist()})
        _runs.put(ctx, "kinds", traces)
        self._gallery(ctx, results, table)
        self._compare(ctx, results, table)

    def _against(self, ctx) -> str | None:
        against = _runs.memory(ctx).get("against")
        return against if against in _runs.keys(ctx.dataset) else None

    def _changes(self, ctx, results) -> pd.Series | None:
        """IoU of each expression minus that of the run compared with."""
        against = self._against(ctx)
        if not against or _runs.comparable(_runs.load_results(ctx.dataset, against), results):
            return None
        return comparison.changes(_runs.load_results(ctx.dataset, against).table, results.table)

    def _compare(self, ctx, results, table: pd.DataFrame) -> None:
        against = self._against(ctx)
        _runs.remember(ctx, difference=None)
        if not against:
            return
        other = _runs.load_results(ctx.dataset, against)
        problem = _runs.comparable(other, results)
        if problem:
            _runs.remember(ctx, difference=f"{against} is not compared: {problem}.")
            return
        try:
            found = comparison.compare(other.table, table)
        except ValueError as error:
            _runs.remember(ctx, difference=f"{error}.")
            return
        interval = found.figures["miou"]
        words = (
            f"mIoU {100 * (interval.value or 0):+.1f} points [{100 * (interval.low or 0):+.1f}, "
            f"{100 * (interval.high or 0):+.1f}] against {against} on {found.n:,} expressions of the slice; "
            f"{found.wins:,} better, {found.losses:,} worse, {len(found.flips):,} crossed IoU 0.5."
        )
        _runs.remember(ctx, difference=words)

    def _gallery(self, ctx, results, table: pd.DataFrame) -> None:
        """The worst examples, ground truth on the left and prediction on the right."""
        wrong = table[table["kind"] != kinds.CORRECT].sort_values("iou", kind="stable").head(_EXAMPLES)
        config = results.config
        samples = {s.id: s for s in ctx.dataset.select(wrong["sample_id"].unique().tolist())}
        shown = []
        for number, (_, row) in enumerate(wrong.iterrows()):
            sample = samples.get(row["sample_id"])
            if sample is None:
                continue
            several = holds_several(ctx.dataset, config.expression_field)
            ctx.panel.set_data(f"picture_{number}", _picture(sample, row["expression"], config, several))
            ctx.panel.set_data(f"expression_{number}", row["expression"])
            ctx.panel.set_data(f"verdict_{number}", f"{row['kind']}, IoU {row['iou']:.2f}")
            ctx.panel.set_data(f"reasoning_{number}", _reasoning(sample, row["expression"], config) or "-")
            shown.append(number)
        _runs.remember(ctx, gallery=shown)

    def render(self, ctx) -> types.Property:
        panel = types.Object()
        empty = _runs.missing_step(ctx.dataset, panel)
        if empty:
            return empty
        runs = _runs.keys(ctx.dataset)
        key = self._run(ctx)
        top = panel.h_stack("top", gap=2, align_y="center")
        _runs.dropdown(top, "run", "Run", runs, key, self.choose_run)
        others = ["", *(name for name in runs if name != key)]
        _runs.dropdown(
            top, "against", "Compare with run", others, _runs.memory(ctx).get("against") or "", self.choose_against
        )
        _runs.dropdown(
            top, "sort", "Sort by", list(_SORTS), _runs.memory(ctx).get("sort") or "z", self.choose_sort, _SORTS
        )
        used = self._fields(ctx)
        free = ["", *(name for name in _fields(ctx.dataset) if name not in used)]
        label = f"Sample fields: {', '.join(used)}" if used else "Sample field"
        _runs.dropdown(
            top, "field", label, free, "", self.add_field, {"": "add one", **{n: f"add {n}" for n in free[1:]}}
        )
        if used:
            top.btn("drop_fields", label="None of them", on_click=self.drop_fields)
        top.str("filter", label="Filter", on_change=self.filter_slices, default=_runs.memory(ctx).get("filter") or "")
        top.btn("reload", label="Reload", icon="refresh", on_click=self.reload)
        problem = _runs.memory(ctx).get("problem")
        if problem:
            panel.view("problem", types.Error(label=problem))
            return types.Property(panel, view=types.GridView(orientation="vertical", gap=2, padding=2))
        text = types.LabelValueView(read_only=True)
        panel.str("scope", view=text, label="Shown")
        table = types.TableView(on_click_row=self.choose_slice)
        for name, label in (
            ("slice", "slice"), ("n", "n"), ("ciou", "cIoU"), ("miou", "mIoU"),
            ("gap", "gap to the rest [95 %]"), ("q", "corrected p"),
        ):  # fmt: skip
            table.add_column(name, label=label)
        if self._against(ctx):
            table.add_column("wins", label="better")
            table.add_column("losses", label="worse")
        panel.list("slices", types.Object(), view=table, label="Slices; the header row stands for everything")
        panel.str("chosen", view=text, label="Chosen")
        if _runs.memory(ctx).get("difference"):
            panel.str("difference", view=text, label="Difference")
        actions = panel.h_stack("actions", gap=1, align_y="center")
        actions.btn("show", label="Show in grid", variant="contained", on_click=self.show_in_grid)
        actions.btn("export", label="Export as training set", variant="outlined", on_click=self.export)
        actions.btn("train", label="Train on it", variant="outlined", on_click=self.train)
        actions.btn("tag_them", label="Tag these samples", variant="outlined", on_click=self.tag)
        panel.str("tag", label="Tag", default="failure-slice")
        layout = {
            "title": {"text": "Failure kinds of the chosen slice"},
            "barmode": "stack",
            "legend": {"title": {"text": "fault of"}},
            "showlegend": True,
            "margin": {"t": 50, "b": 90, "l": 60, "r": 20},
        }
        panel.plot("kinds", layout=layout, on_click=self.click_kind, config={"displayModeBar": False}, height="330px")
        if _runs.memory(ctx).get("gallery"):
            panel.md("**Worst examples**: ground truth left, prediction right", name="gallery_title")
        for number in _runs.memory(ctx).get("gallery") or []:
            picture = types.ImageView(height=f"{_HEIGHT}px", alt="ground truth left, prediction right")
            panel.view(f"picture_{number}", picture)
            for part in ("expression", "verdict", "reasoning"):
                panel.str(f"{part}_{number}", view=text, label=part)
        return types.Property(panel, view=types.GridView(orientation="vertical", gap=2, padding=2))


def _fields(dataset: fo.Dataset) -> list[str]:
    """Sample fields whose values can make slices."""
    kinds_ = (fo.StringField, fo.BooleanField, fo.IntField, fo.FloatField)
    hidden = {"id", "filepath", "expression", "image_id"}
    suffixes = ("tp", "fp", "fn", *SAMPLE_FIELDS)
    own = {f"{key}_{suffix}" for key in dataset.list_evaluations() for suffix in suffixes}
    return ["tags", *(n for n in dataset.get_field_schema(ftype=kinds_) if n not in hidden | own)]


def _row(row: pd.Series, change: pd.Series | None) -> dict[str, str]:
    """A slice in the table, with its wins and losses where another run is compared with."""
    compared = {} if change is None else {"wins": f"{(change > 0).sum():,}", "losses": f"{(change < 0).sum():,}"}
    return compared | {
        "slice": row["slice"],
        "n": f"{row['n']:,}",
        "ciou": _runs.percent(row["ciou"] if np.isfinite(row["ciou"]) else None),
        "miou": _runs.percent(row["miou"]),
        "gap": _runs.percent(row["gap"], row["gap_low"], row["gap_high"]),
        "q": f"{row['q']:.2g}",
    }


def _picture(sample: fo.Sample, expression: str, config, several: bool) -> str | None:
    """A data URI of ground truth and prediction side by side; None when the image cannot be read."""
    try:
        image = load_image(sample.filepath)
        truth, found = sample[config.gt_field], labels.of_expression(sample[config.pred_field], expression)
        sides = [labels.of_expression(truth, expression) if several else truth, found]
        pictures = [draw_masks(image, labels.instance_masks(side, image.size)) for side in sides]
    except (OSError, ValueError):
        return None
    scale = _HEIGHT / pictures[0].height
    size = max(1, round(pictures[0].width * scale)), _HEIGHT
    both = Image.new("RGB", (2 * size[0] + 6, size[1]), "white")
    for number, picture in enumerate(pictures):
        both.paste(picture.resize(size), (number * (size[0] + 6), 0))
    buffer = io.BytesIO()
    both.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _reasoning(sample: fo.Sample, expression: str, config) -> str:
    name = labels.responses_field(config.pred_field)
    for response in sample[name] or [] if sample.has_field(name) else []:
        if labels.attribute(response, "expression") == expression:
            return labels.attribute(response, "reasoning") or labels.attribute(response, "error") or ""
    return ""
