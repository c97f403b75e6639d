"""Panel "Referring evaluation": figures, distributions, two runs side by side."""

from __future__ import annotations

import fiftyone.operators as foo
import pandas as pd
from fiftyone.operators import types
from fiftyone.operators.categories import Categories
from fiftyone.operators.panel import Panel

from fiftyone_genseg import icons, proposals
from fiftyone_genseg.panels import _choices, _figures, _layout, _runs, _views


class ReferringEvaluationPanel(Panel):
    """Figures of the chosen runs, computed from their stored tables.

    Every mark opens its samples. The user chooses `runs`, the first of which the others are compared with.
    """

    @property
    def config(self) -> foo.PanelConfig:
        """Return how FiftyOne lists the panel."""
        return foo.PanelConfig(
            name="referring_evaluation",
            label="Referring evaluation",
            icon="troubleshoot",
            **icons.of("referring_evaluation"),
            category=Categories.ANALYZE,
            help_markdown=(
                "Figures of referring segmentation. Click a figure, bar or point to see its samples. The "
                "figures follow the view and the filters of the sidebar."
            ),
        )

    def on_load(self, ctx) -> None:
        """Show the newest run, or the runs that were chosen before a reload."""
        ctx.redraw = True

    def on_change_dataset(self, ctx) -> None:
        """Show the runs of the new dataset."""
        ctx.redraw = True

    def on_change_view(self, ctx) -> None:
        """Follow the view, unless the panel set it."""
        ctx.redraw = ctx.dataset is not None and not _views.is_own(ctx)

    def gone(self, ctx) -> str | None:
        """Return a run that is on the screen and was deleted."""
        existing = _runs.keys(ctx.dataset)
        return next((key for key in _choices.chosen(ctx).get("runs") or [] if key not in existing), None)

    @_choices.event
    def choose_run(self, ctx) -> None:
        """Put another run first."""
        first, *others = self._chosen(ctx)
        value = ctx.params.get("value")
        if value in _runs.keys(ctx.dataset) and value != first:
            _choices.choose(ctx, runs=[value, *(key for key in others if key != value)])
            ctx.redraw = True

    @_choices.event
    def compare_with(self, ctx) -> None:
        """Put a further run beside the first."""
        chosen, value = self._chosen(ctx), ctx.params.get("value")
        if value in _runs.keys(ctx.dataset) and value not in chosen:
            _choices.choose(ctx, runs=[*chosen, value])
            ctx.redraw = True

    @_choices.event
    def alone(self, ctx) -> None:
        """Keep only the first run."""
        _choices.choose(ctx, runs=self._chosen(ctx)[:1])
        ctx.redraw = True

    @_choices.event
    def reload(self, ctx) -> None:
        """Look for runs that were made since, and follow the current view."""
        _views.follow_again(ctx)
        ctx.redraw = True

    @_choices.event
    def click_histogram(self, ctx) -> None:
        """Show the samples of a bar."""
        _views.show(ctx, *_figures.in_histogram(*self._clicked(ctx)))

    @_choices.event
    def click_precision(self, ctx) -> None:
        """Show the samples that reach the threshold of a point."""
        _views.show(ctx, *_figures.in_precision(*self._clicked(ctx)))

    @_choices.event
    def click_sizes(self, ctx) -> None:
        """Show the samples of a bar."""
        _views.show(ctx, *_figures.in_sizes(*self._clicked(ctx)))

    @_choices.event
    def click_confusion(self, ctx) -> None:
        """Show the samples of a cell."""
        table, _ = self._clicked(ctx)
        _views.show(ctx, *_figures.in_confusion(table, ctx.params.get("y"), ctx.params.get("x")))

    @_choices.event
    def click_figures(self, ctx) -> None:
        """Show the samples that lower a figure of a run.

        Row -1 is the header.
        """
        row, column = ctx.params.get("row", -1), ctx.params.get("column", 0)
        if row >= 0:
            tables = list(self._tables(ctx).items())
            key, table = tables[max(0, min(column - 1, len(tables) - 1))]
            found, words = _figures.lowering(row, table)
            _views.show(ctx, found, f"{words} ({key})")

    @_choices.event
    def click_flips(self, ctx) -> None:
        """Show the samples that one run got and the other did not; -1 is the header."""
        results, rows = self._drawn(ctx)
        flips = [
            (flipped, shown["flip"])
            for found in _figures.differences(results, rows)
            for flipped, shown in zip(found.flips, found.rows, strict=True)
        ]
        row = ctx.params.get("row", -1)
        if 0 <= row < len(flips):
            flipped, words = flips[row]
            _views.show(ctx, flipped.assign(iou=flipped["iou_b"]), words)

    def render(self, ctx) -> types.Property:
        """Return the layout.

        After an event with `ctx.redraw` send also the texts and tables in it. The plots are part of the layout: the App
        takes new data of a plot for a value that the user picked.
        """
        panel = types.Object()
        empty = _layout.missing_step(ctx.dataset, panel)
        if empty:
            return empty
        if proposed := proposals.taken(ctx):
            _choices.choose(ctx, runs=proposed)
            ctx.redraw = True
        chosen = self._chosen(ctx)
        self._add_choices(ctx, _layout.row(panel, "bar"), chosen)
        try:
            results, rows = self._drawn(ctx)
            traces = _figures.plots({key: found.table[rows[key]] for key, found in results.items()})
            if getattr(ctx, "redraw", False):
                self._send(ctx, results, rows)
        except Exception as error:  # noqa: BLE001 - a panel shows its error instead of vanishing
            panel.view("problem", types.Error(label=f"The runs could not be shown: {error}"))
            return _layout.column(panel)
        panel.str("scope", view=types.LabelValueView(read_only=True), label="Shown")
        table = _layout.table(on_click_cell=self.click_figures)
        table.add_column("figure", label="Figure")
        for number, key in enumerate(chosen):
            table.add_column(f"run_{number}", label=key)
        policy = results[chosen[0]].config.policy
        for number in range(_figures.COUNT):
            table.add_tooltip(number, 0, _figures.meaning(number, policy))
        label = "Percent with 95 % intervals. Click a figure to see the samples that lower it."
        panel.list("figures", types.Object(), view=table, label=label)
        if len(chosen) > 1:
            panel.str("difference", view=types.LabelValueView(read_only=True), label="Difference")
            flips = _layout.table(on_click_row=self.click_flips)
            flips.add_column("flip", label="Crossed IoU 0.5")
            flips.add_column("n", label="Expressions")
            panel.list("flips", types.Object(), view=flips)
        for name, title, across, up, click in (
            ("histogram", "IoU of the expressions", "IoU", "expressions", self.click_histogram),
            ("precision", "Precision at IoU (targets)", "IoU threshold", "share", self.click_precision),
            ("sizes", "Mean IoU by size of the target", "share of the image", "mean IoU", self.click_sizes),
            ("confusion", f"Target or no target: {chosen[0]}", "answer", "truth", self.click_confusion),
        ):
            layout = {
                "xaxis": {"title": {"text": across}},
                "yaxis": {"title": {"text": up}} | ({"autorange": "reversed"} if name == "confusion" else {}),
                "showlegend": name != "confusion" and len(chosen) > 1,
                "legend": {"orientation": "h", "x": 0, "y": -0.3},
            }
            _layout.plot(panel, name, traces[name], layout, click, title)
        return _layout.column(panel)

    def _add_choices(self, ctx, bar: types.Object, chosen: list[str]) -> None:
        runs = _runs.keys(ctx.dataset)
        _layout.dropdown(bar, "run", "Run", runs, chosen[0], self.choose_run)
        others = [key for key in runs if key not in chosen]
        if others:
            _layout.dropdown(bar, "compare", "Compare with", others, "add a run", self.compare_with)
        if len(chosen) > 1:
            _layout.button(bar, "alone", f"Only {chosen[0]}", self.alone)
        _layout.button(bar, "reload", "Reload", self.reload, icon="refresh")

    def _chosen(self, ctx) -> list[str]:
        """Return the runs that are shown: the newest one until others are chosen."""
        existing = _runs.keys(ctx.dataset)
        chosen = [key for key in _choices.chosen(ctx).get("runs") or [] if key in existing]
        return chosen or existing[:1]

    def _send(self, ctx, results: dict, rows: dict) -> None:
        _choices.choose(ctx, runs=list(results))  # a run that is made later must not take their place
        differences = _figures.differences(results, rows)
        ctx.panel.set_data(
            {
                "scope": " ".join(f"{key}: {_views.scope(inside)}" for key, inside in rows.items()),
                "figures": _figures.figure_rows(results, rows),
                "difference": " ".join(found.text for found in differences),
                "flips": [row for found in differences for row in found.rows],
            }
        )

    def _drawn(self, ctx) -> tuple[dict, dict]:
        """Return run -> results, and run -> bool[N]: the expressions behind the marks."""
        results = {key: _runs.load_results(ctx.dataset, key) for key in self._chosen(ctx)}
        return results, {key: _views.rows(ctx, found) for key, found in results.items()}

    def _tables(self, ctx) -> dict[str, pd.DataFrame]:
        results, rows = self._drawn(ctx)
        return {key: found.table[rows[key]] for key, found in results.items()}

    def _clicked(self, ctx) -> tuple[pd.DataFrame, int]:
        """Return the table of the clicked trace, and the index of the mark in it."""
        tables = list(self._tables(ctx).values())
        return tables[int(ctx.params.get("trace_idx") or 0)], int(ctx.params.get("idx") or 0)
