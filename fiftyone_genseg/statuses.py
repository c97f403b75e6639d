"""Statuses of an expression.

This module is free of FiftyOne, which takes seconds to import.
"""

SEGMENTED, NO_TARGET, UNPARSABLE, FAILED = "segmented", "no_target", "unparsable", "failed"
# Statuses of a stored response.
STATUSES = (SEGMENTED, NO_TARGET, UNPARSABLE, FAILED)
# Status of an evaluated expression without a response.
MISSING = "missing"
# Status of a sample whose expressions ended differently.
MIXED = "mixed"


def in_words(status: str) -> str:
    """Return a status as people read it, such as "no-target"."""
    return status.replace("_", "-")
