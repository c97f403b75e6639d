"""Show a run in the App: progress with a Stop button, result, next steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fiftyone.operators import types

from fiftyone_genseg import uris
from fiftyone_genseg.history import Record, is_stopping

_SHOWN = {"success": types.Success, "warning": types.Warning, "error": types.Error, "info": types.Notice}


@dataclass(frozen=True)
class Step:
    """A button below a result.

    Attributes:
        label: text on the button.
        operator: operator that the button runs, one of FiftyOne's or of this plugin.
        params: parameters of the operator.
        asks: whether the operator's form is shown first.
    """

    label: str
    operator: str
    params: Mapping[str, Any] = field(default_factory=dict)
    asks: bool = True


class Result(Protocol):
    """The end of a run; see `_progress.Done`."""

    @property
    def text(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def facts(self) -> Mapping[str, str]: ...
    @property
    def steps(self) -> tuple[Step, ...]: ...


def open_panel(label: str, name: str) -> Step:
    """Return the button that opens a panel of this plugin beside the grid."""
    return Step(label, "open_panel", {"name": name, "isActive": True, "layout": "horizontal"}, asks=False)


def evaluate(field_name: str) -> Step:
    """Return the button that opens the form to evaluate a field."""
    return Step("Evaluate it", uris.EVALUATE, {"pred_field": field_name})


def show(ctx, operator: str, result: Result):
    """Return the message that shows a result until the user closes it."""
    outputs = types.Object()
    outputs.view("said", _SHOWN[result.variant](label=operator, description=result.text))
    for number, name in enumerate(result.facts):
        outputs.str(f"fact_{number}", label=name, view=types.LabelValueView(read_only=True))
    _add_steps(outputs, result.steps)
    facts = {f"fact_{number}": words for number, words in enumerate(result.facts.values())}
    return _message(ctx, outputs, facts)


def show_progress(ctx, run: Record, share: float, label: str):
    """Return the message that shows how far a run is, with a button that stops it."""
    outputs = types.Object()
    outputs.int("progress", view=types.ProgressView(label=f"{run.operator}: {label}"))
    if is_stopping(run.id):
        outputs.md("The run stops after this step.", name="stopping")
    else:
        _add_steps(outputs, (Step("Stop", uris.STOP, {"run": run.id}, asks=False),))
    return _message(ctx, outputs, {"progress": share})


def _add_steps(outputs: types.Object, steps: tuple[Step, ...]) -> None:
    if not steps:
        return
    row = outputs.h_stack("steps", gap=1, align_x="left")
    for number, step in enumerate(steps):
        row.btn(
            f"step_{number}",
            label=step.label,
            on_click=step.operator,
            params=dict(step.params),
            prompt=step.asks,
            variant="outlined",
        )


def _message(ctx, outputs: types.Object, results: Mapping[str, Any]):
    return ctx.trigger("show_output", {"outputs": types.Property(outputs).to_json(), "results": dict(results)})
