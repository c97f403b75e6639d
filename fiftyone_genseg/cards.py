"""The results of a sample in words, one card per expression, for panels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import fiftyone as fo
from genseg_hub.schema import normalize_expression

from fiftyone_genseg.labels import attribute, expression_of, responses_field
from fiftyone_genseg.messages import error_in_words
from fiftyone_genseg.statuses import SEGMENTED, in_words


@dataclass(frozen=True)
class Card:
    """Result of one expression on one sample.

    Attributes:
        expression: the expression that was asked.
        outcome: "segmented", "no-target", "unparsable" or "failed"; "" if unknown.
        error: the fault, in words; "" for nothing.
        reasoning: the reasoner's thought; "" for nothing.
        instances: number of instances that the reasoner found.
        checkpoint: pinned name of the checkpoint that answered; "" if unknown.
        when: time at which the response was stored, in UTC without a time zone; None if unknown.
        verdict: a person's verdict on the answer: "kept" or "wrong"; "" for nothing.
        corrected: whether a person corrected its boxes or points.
    """

    expression: str
    outcome: str
    error: str
    reasoning: str
    instances: int
    checkpoint: str
    when: datetime | None
    verdict: str = ""
    corrected: bool = False


def cards(sample: fo.Sample, field: str) -> list[Card]:
    """Return the results of a sample in the order in which they were asked.

    Responses of earlier versions lack attributes; these are empty. Masks without responses, as `apply_model` stores
    them, have a card per expression.

    Args:
        sample: sample of any dataset.
        field: field of the masks.
    """
    name = responses_field(field)
    if sample.has_field(name):
        return [_of_response(response) for response in sample[name] or ()]
    found = sample[field] if sample.has_field(field) else None
    return _of_masks(found) if isinstance(found, fo.Detections) else []


def _of_response(response: fo.DynamicEmbeddedDocument) -> Card:
    return Card(
        expression=attribute(response, "expression") or "",
        outcome=in_words(attribute(response, "status") or ""),
        error=error_in_words(attribute(response, "error") or ""),
        reasoning=attribute(response, "reasoning") or "",
        instances=attribute(response, "instances") or 0,
        checkpoint=attribute(response, "checkpoint") or "",
        when=attribute(response, "stored_at"),
        verdict=attribute(response, "verdict") or "",
        corrected=bool(attribute(response, "corrected_by")),
    )


def _of_masks(found: fo.Detections) -> list[Card]:
    counts: Counter[str] = Counter()
    origin: dict[str, str] = {}
    for mask in found.detections:
        value = expression_of(mask)
        for expression in map(normalize_expression, [value] if isinstance(value, str) else value or ()):
            counts[expression] += 1
            origin.setdefault(expression, attribute(mask, "checkpoint") or "")
    reasoning = attribute(found, "reasoning") or ""
    return [
        Card(expression, in_words(SEGMENTED), "", reasoning, count, origin[expression], None)
        for expression, count in counts.items()
    ]
