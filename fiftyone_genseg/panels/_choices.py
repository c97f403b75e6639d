"""Choices of the user in a panel, kept in a store of the dataset under the panel's id.

They are not in the panel's state, because FiftyOne 1.22 reloads the page on every change of it, and a reload clears the
filters of the sidebar. The App itself still writes there when the user picks or types something: see `drop_copies`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

_STORE = "genseg_panel_choices"
_KEPT_SECONDS = 30 * 24 * 60 * 60


def chosen(ctx) -> dict[str, Any]:
    """Return what the user chose in the panel that sends this event."""
    return ctx.store(_STORE).get(ctx.panel.id) or {}


def choose(ctx, **values: Any) -> bool:
    """Keep choices for the panel's later events and return whether one of them is new."""
    known = chosen(ctx)
    if all(known.get(name) == value for name, value in values.items()):
        return False
    ctx.store(_STORE).set(ctx.panel.id, known | values, ttl=_KEPT_SECONDS)
    return True


def drop_copies(ctx, inputs: tuple[str, ...]) -> None:
    """Remove data from the panel's state.

    With each value that the user picks or types, the App copies all data of the panel into its state. It then shows
    state and data merged, item by item: a new list that is shorter would keep the end of the copied one.

    Args:
        ctx: the context of the event.
        inputs: names in the state that hold what the user picked or typed.
    """
    state = ctx.panel_state or {}
    copies = [name for name, value in state.items() if name not in inputs and value is not None]
    if copies:
        ctx.panel.set_state(dict.fromkeys(copies))


def event(handler: Callable) -> Callable:
    """Wrap the handler of a user's event in a panel, a class that has `inputs`.

    Copies of data are dropped first. An error becomes a notification, because the App would show nothing at all.
    """

    @wraps(handler)
    def handle(self, ctx):
        try:
            drop_copies(ctx, self.inputs)
            return handler(self, ctx)
        except Exception as error:  # noqa: BLE001 - see above
            return ctx.ops.notify(f"That did not work, reload the panel: {error}", variant="error")

    return handle
