"""The operator "Stop a run": end a run of this plugin after its current step."""

from __future__ import annotations

import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.operator import RiskLevel

from fiftyone_genseg import history, icons
from fiftyone_genseg.operators import _forms


class StopRun(foo.Operator):
    """Stop a run that the App or a worker in the background executes.

    Results that it has written stay.
    """

    @property
    def config(self) -> foo.OperatorConfig:
        """Return the name of the operator."""
        return foo.OperatorConfig(
            name="stop_run",
            label="Stop a run",
            description="End a run of this plugin after its current step; its results stay",
            icon="stop_circle",
            **icons.of("stop_run"),
            dynamic=True,
            risk_level=RiskLevel.LOW,
        )

    def resolve_input(self, ctx) -> types.Property:
        """Return the form: the runs that go on."""
        inputs = types.Object()
        running = {record.id: record for record in history.records() if record.state == history.RUNNING}
        if not running:
            _forms.show_problem(inputs, "Nothing is running.")
            return types.Property(inputs, view=types.View(label="Stop a run"))
        names = {
            run: f"{record.operator}, {record.dataset or 'no dataset'}, since {record.when}"
            for run, record in running.items()
        }
        choices = _forms.dropdown(names, names)
        inputs.enum("run", list(names), label="Run", default=next(iter(names)), required=True, view=choices)
        return types.Property(inputs, view=types.PromptView(label="Stop a run", submit_button_label="Stop"))

    def execute(self, ctx) -> dict[str, str | None]:
        """Ask the run to stop."""
        stopped = history.stop(str(ctx.params.get("run") or ""))
        if stopped is None:
            ctx.ops.notify("The run has ended already.", variant="info")
        else:
            ctx.ops.notify(f"{stopped.operator} stops after its current step.", variant="info")
        return {"stopped": stopped.id if stopped else None}
