"""The view that a panel's figures are about, and the views that its marks open.

A panel follows the view and the filters of the sidebar. It does not follow a view that it set itself when a mark was
clicked: its figures stay about the view of before.
"""

from __future__ import annotations

import json

import fiftyone as fo
import fiftyone.core.stages as fos
import numpy as np
import pandas as pd

from fiftyone_genseg.evaluation.results import ReferringResults
from fiftyone_genseg.fields import every_image
from fiftyone_genseg.panels import _choices

SHOWN_AT_MOST = 5000


def rows(ctx, results: ReferringResults) -> np.ndarray:
    """Return bool[N]: the expressions of a run that the panel's figures are about."""
    view = _followed(ctx)
    return np.ones(len(results.table), dtype=bool) if view is None else results.in_view(view)


def scope(inside: np.ndarray) -> str:
    """Return which expressions the figures are about, in words."""
    if inside.all():
        return f"All {len(inside):,} expressions of the run."
    return f"{inside.sum():,} of the {len(inside):,} expressions of the run are in the current view."


def show(ctx, table: pd.DataFrame, words: str) -> None:
    """Set the view to the samples of some expressions, worst first.

    A message names them.

    Args:
        ctx: the context of the event.
        table: rows of the run's table.
        words: the expressions in words, after their number.
    """
    ids = list(dict.fromkeys(table.sort_values("iou", kind="stable")["sample_id"]))
    count = f"{len(table):,} expression{'' if len(table) == 1 else 's'}"
    if not ids:
        ctx.ops.notify(f"0 expressions {words}: the grid stays as it is.", variant="info")
        return
    if len(ids) > SHOWN_AT_MOST:
        count = f"The worst samples ({SHOWN_AT_MOST:,} of {len(ids):,}) of {count}"
        ids = ids[:SHOWN_AT_MOST]
    followed = _followed(ctx)
    stages = None if followed is None else json.dumps(followed._serialize())
    _choices.choose(ctx, shown=_digest(ids), followed=stages)
    ctx.ops.set_view(every_image(ctx.dataset).select(ids, ordered=True))
    ctx.ops.notify(f"{count} {words}, worst first.", variant="info")


def follow_again(ctx) -> None:
    """Let the panel follow the current view, also when the panel set it."""
    _choices.choose(ctx, shown=None)


def is_own(ctx) -> bool:
    """Return whether `show` set the current view."""
    stages = ctx.view._stages
    last = stages[-1] if stages else None
    ids = list(last.sample_ids or []) if isinstance(last, fos.Select) else []
    return bool(ids) and _digest(ids) == _choices.chosen(ctx).get("shown")


def _followed(ctx) -> fo.DatasetView | None:
    """Return the view that the figures are about, None for the whole dataset."""
    if not is_own(ctx):
        return None if ctx.view == ctx.dataset.view() else ctx.view
    stages = _choices.chosen(ctx).get("followed")
    return None if stages is None else fo.DatasetView._build(ctx.dataset, json.loads(stages))


def _digest(ids: list[str]) -> str:
    return f"{len(ids)}-{ids[0]}-{ids[-1]}"
