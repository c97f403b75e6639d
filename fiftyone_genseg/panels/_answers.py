"""The answers of a sample, one card each, and the editor of one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC
from pathlib import PurePath

from fiftyone.operators import types

from fiftyone_genseg.cards import Card
from fiftyone_genseg.panels import _layout

SHOWN = 12  # newest answers
_LONGEST_THOUGHT = 1500  # characters


def add_card(panel: types.Object, number: int, card: Card, buttons: Sequence[tuple[str, str, Callable]]) -> None:
    """Add an answer with its buttons.

    Args:
        panel: panel to add it to.
        number: number of the card in the panel.
        card: the result of the expression.
        buttons: name, label and handler; the handler gets the expression in `ctx.params`.
    """
    facts, *rest = words(card)
    panel.view(f"card_{number}", types.HeaderView(label=card.expression, description=facts, caption="\n".join(rest)))
    row = _layout.row(panel, f"card_buttons_{number}")
    for name, label, handler in buttons:
        _layout.button(row, f"{name}_{number}", label, handler, params={"expression": card.expression})


def words(card: Card) -> list[str]:
    """Return the text below a card's expression, as lines of plain text."""
    facts = [card.outcome]
    if card.instances:
        facts.append(f"{card.instances} instance{'' if card.instances == 1 else 's'}")
    if card.checkpoint:
        facts.append(_short(card.checkpoint))
    if card.when:
        facts.append(card.when.replace(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M"))
    facts += [word for word in (card.verdict, "corrected" if card.corrected else "") if word]
    lines = [" · ".join(facts)]
    if card.error:
        lines.append(card.error)
    if card.reasoning:
        cut = " ..." if len(card.reasoning) > _LONGEST_THOUGHT else ""
        lines.append(f"{card.reasoning[:_LONGEST_THOUGHT]}{cut}")
    return lines


def _short(checkpoint: str) -> str:
    """Return a checkpoint and its segmenter, short enough for a narrow panel.

    A folder has its last name instead of its path.
    """
    parts = (PurePath(part) for part in checkpoint.split("+"))
    return "+".join(part.name if part.is_absolute() else str(part) for part in parts)
