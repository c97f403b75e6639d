"""The panel "Past runs": finished and current runs of this plugin's operators."""

from __future__ import annotations

import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.categories import Categories
from fiftyone.operators.panel import Panel

from fiftyone_genseg import history, icons, uris
from fiftyone_genseg.panels import _layout


class PastRunsPanel(Panel):
    """The newest runs of all datasets, with result or error.

    Runs that go on can be stopped.
    """

    @property
    def config(self) -> foo.PanelConfig:
        """Return how FiftyOne lists the panel."""
        return foo.PanelConfig(
            name="past_runs",
            label="Past runs",
            icon="history",
            **icons.of("past_runs"),
            category=Categories.ANALYZE,
            help_markdown=(
                f"The {history.KEPT} newest runs of this plugin's operators, in the App and in the background, with "
                "their result or error."
            ),
        )

    def on_load(self, ctx) -> None:
        """Show the runs."""

    def reload(self, ctx) -> None:
        """Look for new runs."""

    def stop(self, ctx) -> None:
        """Ask the run of a row to stop."""
        runs, row = history.records(), ctx.params.get("row", -1)
        stopped = history.stop(runs[row].id) if 0 <= row < len(runs) else None
        words = f"{stopped.operator} stops after its current step." if stopped else "The run has ended already."
        ctx.ops.notify(words, variant="info")

    def render(self, ctx) -> types.Property:
        """Return the layout and send the table."""
        panel = types.Object()
        runs = history.records()
        if not runs:
            advice = "This panel lists the runs of the plugin's operators, with their result or error."
            return _layout.next_step(panel, "No runs yet", advice, uris.SEGMENT, "Referring segment")
        actions = _layout.row(panel, "actions")
        _layout.button(actions, "reload", "Reload", self.reload, icon="refresh")
        table = _layout.table()
        for name, label in (("run", "Run"), ("state", "State"), ("text", "Result")):
            table.add_column(name, label=label)
        if any(run.state == history.RUNNING for run in runs):
            running = [run.state == history.RUNNING for run in runs]
            table.add_row_action("stop", on_click=self.stop, label="Stop", icon="stop_circle", rows=running)
        panel.list("runs", types.Object(), view=table)
        ctx.panel.set_data({"runs": [_row(run) for run in runs]})
        return _layout.column(panel)


def _row(run: history.Record) -> dict[str, str]:
    where = f" on {run.dataset}" if run.dataset else ""
    return {"run": f"{run.operator}{where}, {run.when}", "state": run.state, "text": run.text}
