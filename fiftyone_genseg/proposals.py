"""Runs that an operator asks the panel "Referring evaluation" to show when it is drawn next.

The panel that an operator opens does not get the state it is opened with. The proposal waits in a store of the dataset.
"""

from __future__ import annotations

_STORE, _KEY = "genseg_referring_evaluation", "proposed_runs"


def propose(ctx, runs: list[str]) -> None:
    """Ask the panel to show some runs of the context's dataset."""
    ctx.store(_STORE).set(_KEY, runs)


def taken(ctx) -> list[str] | None:
    """Return the runs that were proposed since the last call, None for no proposal."""
    store = ctx.store(_STORE)
    runs = store.get(_KEY)
    if runs is not None:
        store.delete(_KEY)
    return runs
