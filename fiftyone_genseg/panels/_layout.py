"""Parts that panels share: an empty panel's next step, menus, tables and plots."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from fiftyone_genseg import uris
from fiftyone_genseg.panels import _runs

# The App's tables are at least 650 pixels wide, and its plots 700, unless they are told otherwise.
_NARROW_TABLE = {"table": {"sx": {"minWidth": 0}}}
_NARROW_PLOT = {"plotly": {"useResizeHandler": True}}
_NARROW_COLUMN = {"grid": {"sx": {"gridTemplateColumns": "minmax(0, 1fr)"}}}
NARROW_IMAGE = {"image": {"style": {"maxWidth": "100%", "objectFit": "contain", "objectPosition": "left"}}}
_OWN_WIDTH = {"item": {"sx": {"width": "auto"}}}


def column(panel: types.Object) -> types.Property:
    """Return a panel with its parts below each other, in the panel's width."""
    view = types.GridView(orientation="vertical", gap=2, pad=2, width=100, componentsProps=_NARROW_COLUMN)
    return types.Property(panel, view=view)


def row(panel: types.Object, name: str) -> types.Object:
    """Add a row of small parts.

    In a narrow panel the row continues in the next line.
    """
    return panel.grid(name, orientation="2d", gap=1, align_y="center")


def missing_step(dataset: fo.Dataset | None, panel: types.Object) -> types.Property | None:
    """Return a panel that names the next step if there is no run yet, else None."""
    if dataset is None:
        return next_step(panel, "No dataset", "Open a dataset first.")
    if _runs.keys(dataset):
        return None
    predicted = [name for name in dataset.get_field_schema() if name.endswith("_responses")]
    if not predicted and len(dataset.get_field_schema(embedded_doc_type=fo.Detections)) < 2:
        advice = "Describe what to look for; the masks are then evaluated here."
        return next_step(panel, "Nothing is segmented yet", advice, uris.SEGMENT, "Referring segment")
    advice = "Compare the predicted masks with their ground truth."
    return next_step(panel, "No evaluation yet", advice, uris.EVALUATE, "Evaluate referring segmentation")


def next_step(
    panel: types.Object, title: str, advice: str, operator: str | None = None, label: str = ""
) -> types.Property:
    """Return an empty panel with a text and the button that opens an operator."""
    content = panel.v_stack("empty", align_x="center", align_y="center", gap=2, width=75)
    text(content, "text", title, advice)
    if operator:
        content.btn("start", label=label, variant="contained", on_click=operator, prompt=True)
    return types.Property(panel, view=types.GridView(height=100, width=100, align_x="center", align_y="center"))


def text(panel: types.Object, name: str, label: str, description: str | None = None) -> None:
    """Add a text.

    Markdown would have a default, and the App writes each default into the panel's state.
    """
    panel.view(name, types.HeaderView(label=label, description=description))


def dropdown(
    panel: types.Object, name: str, label: str, values: Sequence[str], chosen: str, on_change: Callable
) -> None:
    """Add a menu that sends its value to a handler.

    Unlike the App's dropdowns it does not write to the panel's state. The App shows the first value until the user
    picks another. The name of the property changes with the values, or the App would go on to show a value that is
    gone.

    Args:
        panel: the row that it is added to.
        name: name of the property.
        label: text before the menu.
        values: values to choose from, as they are shown.
        chosen: the value that is shown.
        on_change: the handler that gets a new value in `ctx.params`.
    """
    texts = [chosen, *(value for value in values if value != chosen)]
    part = panel.h_stack(f"{name}_part", gap=0.5, align_y="center", componentsProps=_OWN_WIDTH)
    text(part, "label", label)
    view = types.PillBadgeView(text=texts, variant="outlined", show_icon=False, showIcon=False)
    part.str(f"{name}_{zlib.crc32(repr(texts).encode())}", view=view, on_change=on_change)


def button(panel: types.Object, name: str, label: str, on_click: Callable | str, **options: Any) -> None:
    """Add a button that is as wide as its label to a row."""
    options = {"variant": "outlined"} | options
    panel.btn(name, label=label, on_click=on_click, componentsProps=_OWN_WIDTH, **options)


def table(**handlers: Callable) -> types.TableView:
    """Return a table that fits a narrow panel."""
    return types.TableView(componentsProps=_NARROW_TABLE, **handlers)


def plot(
    panel: types.Object, name: str, traces: Sequence[dict], layout: dict[str, Any], on_click: Callable, title: str
) -> None:
    """Add a plot that fits a narrow panel.

    Args:
        panel: panel to add it to.
        name: name of the property.
        traces: traces of Plotly.
        layout: layout of Plotly, over the defaults of all plots.
        on_click: the handler of a click on a mark.
        title: above the plot.
    """
    defaults = {"title": {"text": title, "font": {"size": 16}}, "margin": {"t": 45, "b": 50, "l": 50, "r": 10}}
    panel.plot(
        name,
        data=list(traces),
        layout=defaults | layout,
        config={"displayModeBar": False, "scrollZoom": False},
        on_click=on_click,
        height="300px",
        componentsProps=_NARROW_PLOT,
    )


def percent(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Return a figure as "71.3 [69.0, 73.5]", "-" if it is undefined."""
    if value is None:
        return "-"
    interval = f" [{100 * low:.1f}, {100 * high:.1f}]" if low is not None and high is not None else ""
    return f"{100 * value:.1f}{interval}"
