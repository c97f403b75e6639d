"""Choices of the user in a panel, in a store of the dataset.

The panel's id is the key. The choices are not in the panel's state, because FiftyOne 1.22 reloads the page on every
change of it. A reload clears the filters of the sidebar. The App itself writes there when the user picks or types
something in most of its inputs, so the panels have only inputs that do not write: buttons, rows of tables, and the
menus of `_layout.dropdown`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

_STORE = "genseg_panel_choices"
_KEPT_SECONDS = 30 * 24 * 60 * 60


def chosen(ctx) -> dict[str, Any]:
    """Return the user's choices in the panel that sends this event."""
    return ctx.store(_STORE).get(ctx.panel.id) or {}


def choose(ctx, **values: Any) -> bool:
    """Keep choices for the panel's later events and return whether one of them is new."""
    known = chosen(ctx)
    if all(known.get(name) == value for name, value in values.items()):
        return False
    ctx.store(_STORE).set(ctx.panel.id, known | values, ttl=_KEPT_SECONDS)
    return True


def event(handler: Callable) -> Callable:
    """Wrap the handler of a user's event in a panel, a class that has `gone`.

    A run on the screen may have been deleted since. Then the panel is drawn anew and the event counts for nothing. An
    error becomes a notification, because the App would show nothing at all.
    """

    @wraps(handler)
    def handle(self, ctx):
        try:
            if gone := self.gone(ctx):
                ctx.redraw = True
                return ctx.ops.notify(f"The run {gone} was deleted.", variant="warning")
            return handler(self, ctx)
        except Exception as error:  # noqa: BLE001 - see above
            return ctx.ops.notify(f"That did not work; reload the panel: {error}", variant="error")

    return handle
