"""Parts that both panels draw: an empty panel's next step, a choice, an error, a figure in percent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import fiftyone as fo
from fiftyone.operators import types

from fiftyone_genseg import uris
from fiftyone_genseg.panels import _runs

FILTERS_HELP = "Pick and type before you filter in the sidebar: FiftyOne clears the filters with each value."


def column(panel: types.Object) -> types.Property:
    """Return a panel with its parts below each other."""
    return types.Property(panel, view=types.GridView(orientation="vertical", gap=2, padding=2))


def missing_step(dataset: fo.Dataset | None, panel: types.Object) -> types.Property | None:
    """Return a panel that says what to do before there is a run; None when there is one."""
    if dataset is None:
        return _next_step(panel, "### No dataset\nOpen a dataset first.")
    if _runs.keys(dataset):
        return None
    predicted = [name for name in dataset.get_field_schema() if name.endswith("_responses")]
    if not predicted and len(dataset.get_field_schema(embedded_doc_type=fo.Detections)) < 2:
        text = "### Nothing is segmented yet\nDescribe what to look for; the masks are then evaluated here."
        return _next_step(panel, text, uris.SEGMENT, "Referring segment")
    text = "### No evaluation yet\nCompare the predicted masks with their ground truth."
    return _next_step(panel, text, uris.EVALUATE, "Evaluate referring segmentation")


def _next_step(panel: types.Object, text: str, operator: str | None = None, label: str = "") -> types.Property:
    """Return an empty panel with a text and the button that opens an operator."""
    content = panel.v_stack("empty", align_x="center", align_y="center", gap=2, width=75)
    content.md(text, name="text")
    if operator:
        content.btn("start", label=label, variant="contained", on_click=operator, prompt=True)
    return types.Property(panel, view=types.GridView(height=100, width=100, align_x="center", align_y="center"))


def dropdown(
    panel: types.Object,
    name: str,
    label: str,
    values: Sequence[str],
    on_change: Callable,
    names: Mapping[str, str] | None = None,
) -> None:
    """Add a choice. Its value is data under its path; a default would make the App write to the panel's state.

    Args:
        panel: the part of the panel that it is added to.
        name: of the property.
        label: above the choice.
        values: to choose from; "" is shown as "none".
        on_change: the handler that gets a new value.
        names: of the values, where they are shown under others.
    """
    choices = types.DropdownView()
    for value in values:
        choices.add_choice(value, label=(names or {}).get(value, value or "none"))
    panel.enum(name, list(values), label=label, view=choices, on_change=on_change)


def percent(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Return a figure as "71.3 [69.0, 73.5]", "-" where it is undefined."""
    if value is None:
        return "-"
    interval = f" [{100 * low:.1f}, {100 * high:.1f}]" if low is not None and high is not None else ""
    return f"{100 * value:.1f}{interval}"
