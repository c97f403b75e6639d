"""Messages that people read in forms, notifications and terminals."""

from __future__ import annotations


def sentence(error: Exception) -> str:
    """Return an error's message as a sentence."""
    text = str(error).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."
