"""Show names, expressions and answers in Markdown letter by letter."""

from __future__ import annotations

from html import escape as html_escape

from genseg_hub.errors import escaped


def as_words(text: object) -> str:
    """Return a text as one line that Markdown shows letter by letter.

    The line makes no HTML, link, image, code or column of a table.
    """
    line = escaped(" ".join(str(text).split())).replace("|", "/")
    return html_escape(line, quote=False).replace("`", "'").replace("[", "&#91;").replace("]", "&#93;")


def as_code(text: object) -> str:
    """Return a text of one line for Markdown's inline code, which it cannot end."""
    return escaped(" ".join(str(text).split())).replace("`", "'")
