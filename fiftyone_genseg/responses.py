"""Responses as FiftyOne stores them, and the outcome of a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

import fiftyone as fo
from genseg_hub.answers import MAX_MESSAGE_CHARACTERS, storable
from genseg_hub.schema import Failure, Prediction, Response

from fiftyone_genseg.statuses import FAILED, MIXED, NO_TARGET, SEGMENTED, STATUSES, UNPARSABLE, in_words


def response_document(
    result: Prediction | Failure, expression: str, checkpoint: str, options: str | None = None
) -> fo.DynamicEmbeddedDocument:
    """Return the response to one expression, with `status` one of `statuses.STATUSES`.

    Args:
        result: the result of the expression.
        expression: normalized.
        checkpoint: pinned name of the checkpoint that answered.
        options: the given options that change answers, such as "max_pixels=400000"; None for the defaults.
    """
    error: str | None
    cost = None if isinstance(result, Failure) else result.cost
    if isinstance(result, Failure):
        error = storable(result.message, MAX_MESSAGE_CHARACTERS)
        status, response, dialect = FAILED, Response(""), ""
    else:
        response, dialect = result.response, result.dialect
        error = response.error.value if response.error else None
        status = SEGMENTED if response.instances else UNPARSABLE if response.error else NO_TARGET
    return fo.DynamicEmbeddedDocument(  # the App shows the attributes in this order
        expression=expression,
        status=status,
        error=error,
        reasoning=response.reasoning,
        instances=len(response.instances),
        checkpoint=checkpoint,
        stored_at=datetime.now(UTC).replace(tzinfo=None),
        dialect=dialect or None,
        options=options,
        points_outside_box=sum(instance.points_outside_box for instance in response.instances),
        no_target_in_words=response.no_target_in_words,
        repeated=response.repeated,
        cut=response.cut,
        tokens=response.tokens,
        seconds=cost and cost.seconds,
        memory_bytes=cost and cost.memory_bytes,
    )


def outcome(statuses: Iterable[str]) -> fo.Classification | None:
    """Return the outcome of a sample's expressions; None without any.

    The label is a status in words, or "mixed" if the expressions ended differently. The attributes count the
    expressions, and the expressions of each status.
    """
    counts = Counter(statuses)
    if not counts:
        return None
    label = in_words(next(iter(counts))) if len(counts) == 1 else MIXED
    return fo.Classification(label=label, expressions=counts.total(), **{status: counts[status] for status in STATUSES})
