"""The panel "Failure slices": where a run fails, the worst examples there, and what to do about them."""

from __future__ import annotations

import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.categories import Categories
from fiftyone.operators.panel import Panel

from fiftyone_genseg import uris
from fiftyone_genseg.fields import every_image
from fiftyone_genseg.panels import _choices, _findings, _gallery, _layout, _runs, _views

_TAG = "failure-slice"


class FailureSlicesPanel(Panel):
    """The table of slices; a chosen slice has its failure kinds, a gallery and actions.

    The user's choices are the fields of `_findings.Choice`.
    """

    inputs = ("top", "tag")

    @property
    def config(self) -> foo.PanelConfig:
        """How FiftyOne lists the panel."""
        return foo.PanelConfig(
            name="failure_slices",
            label="Failure slices",
            icon="bug_report",
            category=Categories.ANALYZE,
            help_markdown=(
                f"Where a run is worse than elsewhere. Click a row to choose a slice.\n\n{_layout.FILTERS_HELP}"
            ),
        )

    def on_load(self, ctx) -> None:
        """Show the newest run, or what was chosen before the page was reloaded."""
        ctx.redraw = True

    def on_change_dataset(self, ctx) -> None:
        """Show the runs of the new dataset."""
        ctx.redraw = True

    def on_change_view(self, ctx) -> None:
        """Follow the view, unless the panel set it."""
        ctx.redraw = ctx.dataset is not None and not _views.is_own(ctx)

    @_choices.event
    def reload(self, ctx) -> None:
        """Look for runs that were made since, and follow the current view."""
        _views.follow_again(ctx)
        ctx.redraw = True

    @_choices.event
    def choose_run(self, ctx) -> None:
        """Look for the failures of another run. The App also sends what is chosen already."""
        value = ctx.params.get("value")
        if value and value != _findings.Choice.of(ctx).run:
            self._choose(ctx, run=value, slice=None)

    @_choices.event
    def choose_against(self, ctx) -> None:
        """Compare the run with another; "" for none."""
        self._choose(ctx, against=ctx.params.get("value") or None)

    @_choices.event
    def add_field(self, ctx) -> None:
        """Look for slices in the values of a further sample field."""
        value, fields = ctx.params.get("value"), _findings.Choice.of(ctx).fields
        if value and value not in fields:
            self._choose(ctx, fields=[*fields, value], slice=None)

    @_choices.event
    def drop_fields(self, ctx) -> None:
        """Look for slices without sample fields."""
        self._choose(ctx, fields=[], slice=None)

    @_choices.event
    def choose_sort(self, ctx) -> None:
        """List the slices in another order."""
        self._choose(ctx, sort=ctx.params.get("value"))

    @_choices.event
    def filter_slices(self, ctx) -> None:
        """List the slices whose names contain a text."""
        self._choose(ctx, filter=ctx.params.get("value") or None)

    @_choices.event
    def choose_slice(self, ctx) -> None:
        """Choose the slice of a row of the table; -1 is the header, which stands for everything."""
        row, listed = ctx.params.get("row", -1), _findings.look(ctx).listed["attributes"].tolist()
        self._choose(ctx, slice=listed[row] if 0 <= row < len(listed) else None)

    @_choices.event
    def type_tag(self, ctx) -> None:
        """Take note of a tag: the App keeps it in the panel's state, where `tag` reads it."""

    @_choices.event
    def tag(self, ctx) -> None:
        """Tag the samples of the slice with the text in the box."""
        name = (ctx.panel.get_state("tag") or "").strip() or _TAG
        ids = _findings.look(ctx).table["sample_id"].unique().tolist()
        every_image(ctx.dataset).select(ids).tag_samples(name)
        ctx.ops.notify(f"Tagged {len(ids):,} samples with {name!r}.", variant="success")
        ctx.ops.reload_dataset()

    @_choices.event
    def click_kind(self, ctx) -> None:
        """Show the samples of a failure kind."""
        table = _findings.look(ctx).table
        _views.show(ctx, table[table["kind"] == ctx.params.get("x")])

    @_choices.event
    def show_in_grid(self, ctx) -> None:
        """Show the samples of the slice."""
        _views.show(ctx, _findings.look(ctx).table)

    @_choices.event
    def export(self, ctx) -> None:
        """Open the form of the export with this slice filled in."""
        self._prompt(ctx, uris.EXPORT)

    @_choices.event
    def train(self, ctx) -> None:
        """Open the form of the training with this slice filled in."""
        self._prompt(ctx, uris.TRAIN)

    def render(self, ctx) -> types.Property:
        """Return the layout and, after an event with `ctx.redraw`, send the texts and tables in it.

        The plot is part of the layout: the App takes new data of a plot for a value that the user picked.
        """
        panel = types.Object()
        empty = _layout.missing_step(ctx.dataset, panel)
        if empty:
            return empty
        choice = _findings.Choice.of(ctx)
        self._add_choices(ctx, panel.h_stack("top", gap=2, align_y="center"), choice)
        try:
            findings = _findings.look(ctx)
            if getattr(ctx, "redraw", False):
                self._send(ctx, findings)
        except Exception as error:  # noqa: BLE001 - a panel shows its error instead of vanishing
            panel.view("problem", types.Error(label=f"The run could not be shown: {error}"))
            return _layout.column(panel)
        text = types.LabelValueView(read_only=True)
        panel.str("scope", view=text, label="Shown")
        table = types.TableView(on_click_row=self.choose_slice)
        for name, label in (
            ("slice", "slice"), ("n", "n"), ("ciou", "cIoU"), ("miou", "mIoU"),
            ("gap", "gap to the rest [95 %]"), ("q", "corrected p"),
        ):  # fmt: skip
            table.add_column(name, label=label)
        if choice.against:
            table.add_column("wins", label="better")
            table.add_column("losses", label="worse")
        panel.list("slices", types.Object(), view=table, label="Slices; the header row stands for everything")
        panel.str("chosen", view=text, label="Chosen")
        if choice.against:
            panel.str("difference", view=text, label="Difference")
        actions = panel.h_stack("actions", gap=1, align_y="center")
        actions.btn("show", label="Show in grid", variant="contained", on_click=self.show_in_grid)
        actions.btn("export", label="Export as training set", variant="outlined", on_click=self.export)
        actions.btn("train", label="Train on it", variant="outlined", on_click=self.train)
        actions.btn("tag_them", label="Tag these samples", variant="outlined", on_click=self.tag)
        panel.str("tag", label=f"Tag ({_TAG} if empty)", on_change=self.type_tag)
        layout = {
            "title": {"text": "Failure kinds of the chosen slice"},
            "barmode": "stack",
            "legend": {"title": {"text": "fault of"}},
            "showlegend": True,
            "margin": {"t": 50, "b": 90, "l": 60, "r": 20},
        }
        config = {"displayModeBar": False}
        traces = _findings.kind_traces(findings.table)
        panel.plot("kinds", data=traces, layout=layout, config=config, on_click=self.click_kind, height="330px")
        examples = len(findings.worst)
        if examples:
            panel.md("**Worst examples**: ground truth left, prediction right", name="gallery_title")
        for number in range(examples):
            picture = types.ImageView(height=f"{_gallery.HEIGHT}px", alt="ground truth left, prediction right")
            panel.view(f"picture_{number}", picture)
            for part in _gallery.TEXTS:
                panel.str(f"{part}_{number}", view=text, label=part)
        return _layout.column(panel)

    def _add_choices(self, ctx, top: types.Object, choice: _findings.Choice) -> None:
        runs = _runs.keys(ctx.dataset)
        _layout.dropdown(top, "run", "Run", runs, self.choose_run)
        others = ["", *(name for name in runs if name != choice.run)]
        _layout.dropdown(top, "against", "Compare with run", others, self.choose_against)
        _layout.dropdown(top, "sort", "Sort by", list(_findings.SORTS), self.choose_sort, _findings.SORTS)
        free = [name for name in _findings.sample_fields(ctx.dataset) if name not in choice.fields]
        label = f"Sample fields: {', '.join(choice.fields)}" if choice.fields else "Sample field"
        names = {"": "add one"} | {name: f"add {name}" for name in free}
        _layout.dropdown(top, "field", label, ["", *free], self.add_field, names)
        if choice.fields:
            top.btn("drop_fields", label="None of them", on_click=self.drop_fields)
        top.str("filter", label="Filter", on_change=self.filter_slices)
        top.btn("reload", label="Reload", icon="refresh", on_click=self.reload)

    def _choose(self, ctx, **values) -> None:
        """Keep choices and show what follows. The App also sends what is chosen already."""
        ctx.redraw = _choices.choose(ctx, **values)

    def _prompt(self, ctx, operator: str) -> None:
        findings = _findings.look(ctx)
        ctx.prompt(
            operator,
            params={
                "gt_field": findings.results.config.gt_field,
                "expression_field": findings.results.config.expression_field,
                "pairs": findings.table[["sample_id", "expression"]].to_numpy().tolist(),
            },
        )

    def _send(self, ctx, findings: _findings.Findings) -> None:
        _choices.choose(ctx, run=findings.choice.run)  # a run that is made later must not take its place
        pictures = _gallery.gallery(ctx.dataset, findings.results.config, findings.worst)
        ctx.panel.set_data(_findings.data(ctx, findings) | pictures)
