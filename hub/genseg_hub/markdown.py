"""Show strangers' text in Markdown without interpreting it.

Such text is names, expressions and answers.
"""

from __future__ import annotations

from html import escape as html_escape

from genseg_hub.errors import escaped


def as_words(text: object) -> str:
    """Return a text of one line that Markdown shows as it is.

    The line has no HTML, link, image, code or column of a table.
    """
    line = escaped(" ".join(str(text).split())).replace("|", "/")
    return html_escape(line, quote=False).replace("`", "'").replace("[", "&#91;").replace("]", "&#93;")


def as_code(text: object) -> str:
    """Return a text of one line for Markdown's inline code, which it cannot end."""
    return escaped(" ".join(str(text).split())).replace("`", "'")
