"""What both panels do with evaluation runs: find them, load them once, follow the view, show samples."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, wraps
from typing import Any

import fiftyone as fo
import fiftyone.core.stages as fos
import numpy as np
import pandas as pd
from fiftyone.operators import types

from fiftyone_genseg.evaluation.results import ReferringResults
from fiftyone_genseg.evaluation.slicing import attributes, slices

SEGMENT = "@fiftyone-genseg/genseg/referring_segment"
EVALUATE = "@fiftyone-genseg/genseg/evaluate_referring_segmentation"
SHOWN_AT_MOST = 5000


_MEMORIES: dict[str, dict[str, Any]] = {}


def memory(ctx) -> dict[str, Any]:
    """What a panel remembers between events.

    The App sends a panel's state with each event, but as it was when that event's handler was made:
    a late one would undo what was chosen since. So the choices live here, and the panel's state is
    only where they start from after a restart.
    """
    known = _MEMORIES.pop(ctx.panel.id, None)
    if known is None:
        known = dict(ctx.panel_state or {})
    _MEMORIES[ctx.panel.id] = known
    while len(_MEMORIES) > 64:
        del _MEMORIES[next(iter(_MEMORIES))]
    return known


def remember(ctx, **values: Any) -> None:
    """Keep values in the panel's memory and in its state."""
    memory(ctx).update(values)
    for name, value in values.items():
        ctx.panel.set_state(name, value)


_PROPOSED: dict[str, list[str]] = {}


def propose(dataset: fo.Dataset, runs: list[str]) -> None:
    """Choose what the panel shows when it is drawn next: the state that it is opened with does not reach it."""
    _PROPOSED[dataset.name] = runs


def proposed(ctx) -> list[str] | None:
    """What was proposed since, once."""
    return _PROPOSED.pop(ctx.dataset.name, None)


def put(ctx, name: str, rows: list) -> None:
    """Put a list in place of the one before.

    The App keeps what it has shown in the panel's state, and merges the lists of state and data: a shorter one would
    leave the end of the longer one standing.
    """
    ctx.panel.set_state(name, None)
    ctx.panel.set_data(name, rows)


def safely(handler: Callable) -> Callable:
    """An event handler whose error is shown as a sentence, for what was deleted under an open panel."""

    @wraps(handler)
    def handle(self, ctx):
        try:
            return handler(self, ctx)
        except Exception as error:  # noqa: BLE001 - the App would show nothing at all
            return ctx.ops.notify(f"That did not work, reload the panel: {error}", variant="error")

    return handle


def comparable(a: ReferringResults, b: ReferringResults) -> str | None:
    """Why two runs cannot be compared, None when they can."""
    rules = [(r.config.policy, r.config.min_pixels) for r in (a, b)]
    if rules[0] == rules[1]:
        return None
    return "they were evaluated under different (policy, min_pixels): {} and {}".format(*rules)


def keys(dataset: fo.Dataset | None) -> list[str]:
    """Runs with results, newest first."""
    if dataset is None:
        return []
    documents = dataset._doc.evaluations
    found = [key for key in dataset.list_evaluations(method="referring") if documents[key].results]
    return sorted(found, key=lambda key: documents[key].timestamp, reverse=True)


def identity(dataset: fo.Dataset, key: str) -> str:
    """Changes when a run is overwritten, which its key does not."""
    return str(dataset._doc.evaluations[key].id)


def load_results(dataset: fo.Dataset, key: str) -> ReferringResults:
    """A run's results, read from the database once."""
    return _load(identity(dataset, key), dataset.name, key)


@lru_cache(maxsize=8)
def _load(identity: str, dataset: str, key: str) -> ReferringResults:
    return fo.load_dataset(dataset).load_evaluation_results(key, cache=False)


@lru_cache(maxsize=8)
def _attributes(identity: str, dataset: str, key: str) -> pd.DataFrame:
    return attributes.attributes(_load(identity, dataset, key).table)


def run_attributes(dataset: fo.Dataset, key: str, fields: tuple[str, ...]) -> pd.DataFrame:
    """Attributes of a run's expressions, with sample fields added."""
    found = _attributes(identity(dataset, key), dataset.name, key)
    if not fields:
        return found
    ids, *columns = dataset.values(["id", *fields])
    table = load_results(dataset, key).table
    extra = {
        name: table["sample_id"].map(dict(zip(ids, map(_plain, column), strict=True))).tolist()
        for name, column in zip(fields, columns, strict=True)
    }
    mine = attributes.attributes(table, extra)
    return found.join(mine[[name for name in fields if name in mine]], rsuffix=" (field)")


def _plain(value):
    return ", ".join(map(str, value)) if isinstance(value, list) else value


_SLICES: dict[tuple, pd.DataFrame] = {}


def run_slices(dataset: fo.Dataset, key: str, rows: np.ndarray, columns: pd.DataFrame) -> pd.DataFrame:
    """`slices.find_slices` on some rows of a run; the last few answers are kept."""
    values = pd.util.hash_pandas_object(columns, index=False).to_numpy().tobytes()
    at = identity(dataset, key), rows.tobytes(), tuple(columns), values
    if at not in _SLICES:
        while len(_SLICES) >= 8:
            del _SLICES[next(iter(_SLICES))]
        _SLICES[at] = slices.find_slices(load_results(dataset, key).table[rows], columns[rows])
    return _SLICES[at]


def rows_in_view(ctx, results: ReferringResults) -> np.ndarray:
    """bool[N]: the expressions of the current view, its sidebar filters included; those that were
    drawn when the view is the one that a click on them has set."""
    if is_shown_by_panel(ctx):
        return drawn_rows(ctx, results)
    if ctx.view == ctx.dataset.view():
        return np.ones(len(results.table), dtype=bool)
    return results.in_view(ctx.view)


def drawn_view(ctx) -> str | None:
    """The current view as text; None for the whole dataset. What a click refers to is what was
    drawn, also when the view has changed since."""
    if is_shown_by_panel(ctx):
        return memory(ctx).get("drawn")
    return None if ctx.view == ctx.dataset.view() else json.dumps(ctx.view._serialize())


def drawn_rows(ctx, results: ReferringResults) -> np.ndarray:
    """bool[N]: the expressions of the view that was remembered as `drawn`."""
    drawn = memory(ctx).get("drawn")
    if drawn is None:
        return np.ones(len(results.table), dtype=bool)
    return results.in_view(fo.DatasetView._build(ctx.dataset, json.loads(drawn)))


def scope(rows: np.ndarray) -> str:
    """What the figures are about, in words."""
    if rows.all():
        return f"All {len(rows):,} expressions of the run."
    return f"{rows.sum():,} of the {len(rows):,} expressions of the run: those in the current view."


def show(ctx, table: pd.DataFrame) -> None:
    """Set the view to the samples of some expressions, worst first, and remember that it was the panel."""
    ids = list(dict.fromkeys(table.sort_values("iou", kind="stable")["sample_id"]))
    if not ids:
        ctx.ops.notify("There are no samples here.", variant="info")
        return
    if len(ids) > SHOWN_AT_MOST:
        ctx.ops.notify(f"The {SHOWN_AT_MOST:,} worst of {len(ids):,} samples are shown.", variant="warning")
        ids = ids[:SHOWN_AT_MOST]
    remember(ctx, shown=_digest(ids))
    ctx.ops.set_view(ctx.dataset.select(ids, ordered=True))


def _digest(ids: list[str]) -> str:
    return f"{len(ids)}-{ids[0]}-{ids[-1]}"


def is_shown_by_panel(ctx) -> bool:
    """Whether the current view is the one that `show` set, so that the panel must not follow it."""
    stages = ctx.view._stages
    last = stages[-1] if stages else None
    ids = list(last.sample_ids or []) if isinstance(last, fos.Select) else []
    return bool(ids) and _digest(ids) == memory(ctx).get("shown")


def next_step(panel: types.Object, text: str, operator: str | None = None, label: str = "") -> types.Property:
    """An empty panel that says what to do, with the button that does it."""
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
    default: str,
    on_change: Callable,
    names: Mapping[str, str] | None = None,
) -> None:
    """A choice that is drawn anew with each answer of the panel; "" is shown as "none"."""
    choices = types.DropdownView()
    for value in values:
        choices.add_choice(value, label=(names or {}).get(value, value or "none"))
    panel.enum(name, list(values), label=label, default=default, view=choices, on_change=on_change)


def missing_step(dataset: fo.Dataset | None, panel: types.Object) -> types.Property | None:
    """The empty state that fits, or None when there are runs."""
    if dataset is None:
        return next_step(panel, "### No dataset\nOpen a dataset first.")
    if keys(dataset):
        return None
    predicted = [name for name in dataset.get_field_schema() if name.endswith("_responses")]
    if not predicted and len(dataset.get_field_schema(embedded_doc_type=fo.Detections)) < 2:
        text = "### Nothing is segmented yet\nDescribe what to look for; the masks are then evaluated here."
        return next_step(panel, text, SEGMENT, "Referring segment")
    text = "### No evaluation yet\nCompare the predicted masks with their ground truth."
    return next_step(panel, text, EVALUATE, "Evaluate referring segmentation")


def percent(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """ "71.3 [69.0, 73.5]", "-" where undefined."""
    if value is None:
        return "-"
    interval = f" [{100 * low:.1f}, {100 * high:.1f}]" if low is not None and high is not None else ""
    return f"{100 * value:.1f}{interval}"
