"""Proposals of an operator to the panels.

The panel that an operator opens does not get the state it is opened with. The proposal waits in a store of the dataset.
"""

from __future__ import annotations

_STORE, _KEY, _COMPARED = "genseg_referring_evaluation", "proposed_runs", "compared_fields"


def propose(ctx, runs: list[str]) -> None:
    """Ask the panel "Referring evaluation" to show some runs.

    The panel shows them when it is drawn next on the context's dataset.
    """
    ctx.store(_STORE).set(_KEY, runs)


def taken(ctx) -> list[str] | None:
    """Return the runs that were proposed since the last call, None for no proposal."""
    store = ctx.store(_STORE)
    runs = store.get(_KEY)
    if runs is not None:
        store.delete(_KEY)
    return runs


def propose_fields(ctx, fields: list[str]) -> None:
    """Ask the panel "Compare answers" to begin with fields of the context's dataset."""
    ctx.store(_STORE).set(_COMPARED, fields)


def compared(ctx) -> list[str]:
    """Return the fields that were proposed last; [] for no proposal.

    A proposed field may be gone.
    """
    return ctx.store(_STORE).get(_COMPARED) or []
