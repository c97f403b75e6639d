"""Expressions as people type them, one on each line.

The class of the masks stands behind an arrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from genseg_hub.schema import normalize_expression

ARROW = "->"


def read(lines: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the expressions of lines, and expression -> class.

    Such lines are "the red car" and "the red car -> car". The last arrow of a line counts. An empty side stays empty,
    see `check_classes`.
    """
    expressions, classes = [], {}
    for line in lines:
        before, arrow, after = line.rpartition(ARROW)
        expression = normalize_expression(before if arrow else line)
        expressions.append(expression)
        if arrow:
            classes[expression] = normalize_expression(after)
    return expressions, classes


def check_classes(classes: Mapping[str, str], expressions: Iterable[str]) -> None:
    """Raise ValueError unless each class is named and has an asked expression.

    Args:
        classes: expression -> class.
        expressions: the asked expressions; empty if only the samples know.
    """
    asked = set(expressions)
    for expression, name in classes.items():
        if not expression:
            raise ValueError(f"the class {name!r} has no expression; write: the red car {ARROW} car")
        if not name:
            raise ValueError(
                f"the expression {expression!r} has an arrow and no class; write: {expression} {ARROW} car"
            )
        if asked and expression not in asked:
            raise ValueError(f"there is a class for {expression!r}, which is not asked; ask it, or leave the class out")
