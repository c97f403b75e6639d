"""Panel "Failure slices": the worst slices, their examples, and next steps."""

from __future__ import annotations

import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.categories import Categories
from fiftyone.operators.panel import Panel

from fiftyone_genseg import icons, uris
from fiftyone_genseg.panels import _choices, _findings, _gallery, _layout, _runs, _views

_ALL, _NONE = "all attributes", "nothing"


class FailureSlicesPanel(Panel):
    """Table of slices; a chosen slice has its failure kinds, a gallery and actions.

    The user's choices are the fields of `_findings.Choice`.
    """

    @property
    def config(self) -> foo.PanelConfig:
        """Return how FiftyOne lists the panel."""
        return foo.PanelConfig(
            name="failure_slices",
            label="Failure slices",
            icon="bug_report",
            **icons.of("failure_slices"),
            category=Categories.ANALYZE,
            help_markdown=(
                "Slices on which a run is worse than elsewhere. Click a row to choose one. They follow the view and "
                "the filters of the sidebar."
            ),
        )

    def on_load(self, ctx) -> None:
        """Show the newest run, or the run that was chosen before a reload."""
        ctx.redraw = True

    def on_change_dataset(self, ctx) -> None:
        """Show the runs of the new dataset."""
        ctx.redraw = True

    def on_change_view(self, ctx) -> None:
        """Follow the view, unless the panel set it."""
        ctx.redraw = ctx.dataset is not None and not _views.is_own(ctx)

    def gone(self, ctx) -> str | None:
        """Return a run that is on the screen and was deleted."""
        chosen, existing = _choices.chosen(ctx), _runs.keys(ctx.dataset)
        return next((key for key in (chosen.get("run"), chosen.get("against")) if key and key not in existing), None)

    @_choices.event
    def reload(self, ctx) -> None:
        """Look for runs that were made since, and follow the current view."""
        _views.follow_again(ctx)
        ctx.redraw = True

    @_choices.event
    def choose_run(self, ctx) -> None:
        """Look for the failures of another run."""
        value = ctx.params.get("value")
        if value in _runs.keys(ctx.dataset) and value != _findings.Choice.of(ctx).run:
            self._choose(ctx, run=value, slice=None)

    @_choices.event
    def choose_against(self, ctx) -> None:
        """Compare the run with another."""
        value = ctx.params.get("value")
        self._choose(ctx, against=value if value in _runs.keys(ctx.dataset) else None)

    @_choices.event
    def add_field(self, ctx) -> None:
        """Look for slices in the values of a further sample field."""
        value, fields = ctx.params.get("value"), _findings.Choice.of(ctx).fields
        if value in _findings.sample_fields(ctx.dataset) and value not in fields:
            self._choose(ctx, fields=[*fields, value], slice=None)

    @_choices.event
    def drop_fields(self, ctx) -> None:
        """Look for slices without sample fields."""
        self._choose(ctx, fields=[], slice=None)

    @_choices.event
    def choose_sort(self, ctx) -> None:
        """List the slices in another order."""
        keys = {words: key for key, words in _findings.SORTS.items()}
        self._choose(ctx, sort=keys.get(ctx.params.get("value"), "z"))

    @_choices.event
    def choose_about(self, ctx) -> None:
        """List the slices that are about an attribute."""
        value = ctx.params.get("value")
        self._choose(ctx, about=None if value == _ALL else value)

    @_choices.event
    def choose_slice(self, ctx) -> None:
        """Choose the slice of a row of the table; -1 is the header, which does nothing."""
        row, listed = ctx.params.get("row", -1), _findings.look(ctx).listed["attributes"].tolist()
        if 0 <= row < len(listed):
            self._choose(ctx, slice=listed[row])

    @_choices.event
    def choose_everything(self, ctx) -> None:
        """Choose no slice: kinds, examples and actions are about all expressions."""
        self._choose(ctx, slice=None)

    @_choices.event
    def tag(self, ctx) -> None:
        """Open the form that tags the samples of the slice."""
        findings = _findings.look(ctx)
        ids = findings.table["sample_id"].unique().tolist()
        ctx.prompt(uris.TAG, params={"samples": ids, "slice": findings.name})

    @_choices.event
    def click_kind(self, ctx) -> None:
        """Show the samples of a failure kind."""
        findings, kind = _findings.look(ctx), ctx.params.get("x")
        table = findings.table
        _views.show(ctx, table[table["kind"].map(_findings.in_words) == kind], f"with {kind} ({findings.name})")

    @_choices.event
    def show_in_grid(self, ctx) -> None:
        """Show the samples of the slice."""
        findings = _findings.look(ctx)
        _views.show(ctx, findings.table, f"of the slice ({findings.name})" if findings.attributes else "of the run")

    @_choices.event
    def export(self, ctx) -> None:
        """Open the form of the export with this slice filled in."""
        self._prompt(ctx, uris.EXPORT)

    @_choices.event
    def train(self, ctx) -> None:
        """Open the form of the training with this slice filled in."""
        self._prompt(ctx, uris.TRAIN)

    def render(self, ctx) -> types.Property:
        """Return the layout.

        After an event with `ctx.redraw` send also the texts and tables in it. The plot is part of the layout: the App
        takes new data of a plot for a value that the user picked.
        """
        panel = types.Object()
        empty = _layout.missing_step(ctx.dataset, panel)
        if empty:
            return empty
        choice = _findings.Choice.of(ctx)
        top = _layout.row(panel, "top")
        try:
            findings = _findings.look(ctx)
            self._add_choices(ctx, top, choice, list(findings.columns))
            if getattr(ctx, "redraw", False):
                self._send(ctx, findings)
        except Exception as error:  # noqa: BLE001 - a panel shows its error instead of vanishing
            self._add_choices(ctx, top, choice, [])
            panel.view("problem", types.Error(label=f"The run could not be shown: {error}"))
            return _layout.column(panel)
        text = types.LabelValueView(read_only=True)
        panel.str("scope", view=text, label="Shown")
        if findings.found:
            self._add_table(panel, findings)
        panel.str("chosen", view=text, label="Chosen")
        if choice.against:
            panel.str("difference", view=text, label="Difference")
        actions = _layout.row(panel, "actions")
        if findings.attributes:
            _layout.button(actions, "everything", "All expressions", self.choose_everything)
        _layout.button(actions, "show", "Show in grid", self.show_in_grid, variant="contained")
        _layout.button(actions, "export", "Export as training set", self.export)
        _layout.button(actions, "train", "Train on it", self.train)
        _layout.button(actions, "tag", "Tag these samples", self.tag)
        layout = {
            "barmode": "stack",
            "legend": {"title": {"text": "fault of"}, "orientation": "h", "x": 0, "y": -0.3},
            "showlegend": True,
        }
        traces = _findings.kind_traces(findings.table)
        if traces:
            title = f"Failure kinds: {findings.name}"
            _layout.plot(panel, "kinds", traces, layout, self.click_kind, title)
        else:
            _layout.text(panel, "no_kinds", "None of these expressions failed.")
        examples = len(findings.worst)
        if examples:
            _layout.text(panel, "gallery_title", "Worst examples", "Ground truth left, prediction right")
        for number in range(examples):
            picture = types.ImageView(
                height=f"{_gallery.HEIGHT}px",
                alt="ground truth left, prediction right",
                componentsProps=_layout.NARROW_IMAGE,
            )
            panel.view(f"picture_{number}", picture)
            for part in _gallery.TEXTS:
                panel.str(f"{part}_{number}", view=text, label=part.capitalize())
        return _layout.column(panel)

    def _add_table(self, panel: types.Object, findings: _findings.Findings) -> None:
        table = _layout.table(on_click_row=self.choose_slice)
        columns = [
            ("slice", "Slice", ""),
            ("n", "n", "Expressions of the slice"),
            ("ciou", "cIoU", "cIoU of the slice, in percent"),
            ("miou", "mIoU", "mIoU of the slice, in percent"),
            ("gap", "Gap [95 %]", "mIoU of the other expressions minus the slice's mIoU, in points"),
            ("q", "p", "Probability of such a gap by chance, corrected for the number of slices that were tried"),
        ]
        if findings.choice.against:
            columns += [
                ("wins", "Better", f"Expressions with a higher IoU than in {findings.choice.against}"),
                ("losses", "Worse", f"Expressions with a lower IoU than in {findings.choice.against}"),
            ]
        for number, (name, label, meaning) in enumerate(columns):
            table.add_column(name, label=label)
            for row in range(len(findings.listed) if meaning else 0):
                table.add_tooltip(row, number, meaning)
        panel.list("slices", types.Object(), view=table, label="Click a slice to look into it")

    def _add_choices(self, ctx, top: types.Object, choice: _findings.Choice, columns: list[str]) -> None:
        runs = _runs.keys(ctx.dataset)
        _layout.dropdown(top, "run", "Run", runs, choice.run, self.choose_run)
        others = [name for name in runs if name != choice.run]
        if others:
            _layout.dropdown(
                top, "against", "Compare with", [_NONE, *others], choice.against or _NONE, self.choose_against
            )
        _layout.dropdown(
            top, "sort", "Sort by", list(_findings.SORTS.values()), _findings.SORTS[choice.sort], self.choose_sort
        )
        about = choice.about if choice.about in columns else _ALL
        _layout.dropdown(top, "about", "About", [_ALL, *columns], about, self.choose_about)
        free = [name for name in _findings.sample_fields(ctx.dataset) if name not in choice.fields]
        label = f"Sample fields: {', '.join(choice.fields)}" if choice.fields else "Sample fields"
        _layout.dropdown(top, "field", label, free, "add one", self.add_field)
        if choice.fields:
            _layout.button(top, "drop_fields", "Without fields", self.drop_fields)
        _layout.button(top, "reload", "Reload", self.reload, icon="refresh")

    def _choose(self, ctx, **values) -> None:
        """Keep choices and show the panel that follows from them."""
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
