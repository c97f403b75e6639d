"""Refuse to store an evaluation in which nothing was answered.

Figures of zero would measure nothing.
"""

from __future__ import annotations

from collections import Counter

from fiftyone_genseg import labels
from fiftyone_genseg.evaluation.measuring import Measured
from fiftyone_genseg.evaluation.table import answered
from fiftyone_genseg.messages import error_in_words
from fiftyone_genseg.statuses import FAILED, MISSING, UNPARSABLE


def check_answered(measured: Measured) -> None:
    """Raise ValueError unless an expression has a usable answer.

    The message has the commonest reason.
    """
    table, field = measured.table, measured.config.pred_field
    if not len(table):
        raise ValueError("no sample has an expression to evaluate; choose another field or view")
    if answered(table).any():
        return
    statuses = Counter(table["status"].astype(str))
    said = _errors(measured) if statuses[FAILED] + statuses[UNPARSABLE] else Counter[str]()
    if statuses[MISSING] >= statuses[FAILED] + statuses[UNPARSABLE]:
        count = statuses[MISSING]
        why = f"{count} have no prediction there; ask them with Referring segment first, or name another field"
    elif said:
        (error, count), *_ = said.most_common(1)
        why = f"{error_in_words(error)} ({count} x)"
    else:
        why = "their masks cannot be read or compared"
    raise ValueError(f"none of the {len(table)} expressions has a usable answer in {field!r}: {why}")


def _errors(measured: Measured) -> Counter[str]:
    """Return error -> how many responses have it."""
    path = f"{labels.responses_field(measured.config.pred_field)}.error"
    if measured.samples.get_field(path) is None:
        return Counter()
    counts = measured.samples.count_values(path)
    return Counter({error: count for error, count in counts.items() if error})
