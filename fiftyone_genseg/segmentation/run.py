"""Segmenting the samples of a view, written as it goes and resumable.

A sample is asked one or several expressions. Its results are stored in one write, so that a run that is killed leaves
each sample either done or untouched. Only results that the database refuses together are written one by one. This
module knows samples and fields. It does not know forms, or what is inside
an engine.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence

import fiftyone as fo
from genseg_hub.answers import MAX_MESSAGE_CHARACTERS, storable
from genseg_hub.schema import Failure, Prediction, ReferringExample, normalize_expression
from pymongo.errors import BulkWriteError, ConnectionFailure, DocumentTooLarge, OperationFailure

from fiftyone_genseg import fields, labels
from fiftyone_genseg.database import make_durable
from fiftyone_genseg.segmentation.engines.base import Engine
from fiftyone_genseg.segmentation.request import SKIP, SegmentRequest
from fiftyone_genseg.segmentation.summary import Summary

_CHUNK = 1000  # samples read at once
_TOO_LARGE = {10334, 17419, 17420}  # MongoDB's codes for a document of more than 16 MB
Results = dict[str, list[tuple[str, Prediction | Failure]]]  # sample id -> its expressions with their results
_Origin = tuple[str, str | None]  # pinned name of the checkpoint, and the given options
_log = logging.getLogger(__name__)


def segment_view(view: fo.DatasetView | fo.Dataset, request: SegmentRequest, engine: Engine) -> Iterator[Summary]:
    """Segment every sample of a view.

    Args:
        view: images, or the dataset itself.
        request: what to ask, and where to store the results.
        engine: what answers, see `engines.opened`.

    Yields:
        The running summary, once at the start and then after every write.

    Raises:
        ValueError, CheckpointError: see `SegmentRequest.check`; before anything is written.
    """
    request.check(view)
    dataset, view = view._dataset, fields.flat(view)
    labels.declare_fields(dataset, request.output_field)
    ids, options = view.values("id"), request.options_in_words
    summary = Summary(total=_count(view, len(ids), request))
    yield summary
    finished: Results = {}
    waiting = 0
    try:
        answers = engine.answer(_missing(dataset, ids, request, engine.checkpoint, summary), request.batch_size)
        for sample_id, group in itertools.groupby(answers, key=lambda answer: answer[0].example_id):
            results = [(example.expression, result) for example, result in group]
            finished.setdefault(sample_id, []).extend(results)
            waiting += len(results)
            if waiting >= request.batch_size:
                write(dataset, finished, request.output_field, engine.checkpoint, summary, options)
                finished, waiting = {}, 0
                yield summary
    finally:
        write(dataset, finished, request.output_field, engine.checkpoint, summary, options)
    yield summary


def _count(view: fo.DatasetView | fo.Dataset, samples: int, request: SegmentRequest) -> int:
    """Return how many expressions a request asks."""
    if not request.expression_field:
        return samples * len(request.expressions)
    if not fields.holds_several(view, request.expression_field):
        return samples
    return sum(len(fields.expressions_of(value, True)) for value in view.values(request.expression_field))


def _missing(
    dataset: fo.Dataset, ids: Sequence[str], request: SegmentRequest, checkpoint: str, summary: Summary
) -> Iterator[ReferringExample]:
    """Yield what to ask, and count what is skipped.

    Samples are read in chunks so that no database cursor stays open, and without their stored masks.
    """
    responses, own_field = labels.responses_field(request.output_field), request.expression_field
    stored = [f"{responses}.{name}" for name in ("expression", "status", "checkpoint", "options")]
    read = ["id", "filepath", *stored, *([own_field] if own_field else [])]
    mine = (checkpoint, request.options_in_words)
    images, several = fields.every_image(dataset), fields.holds_several(dataset, own_field)
    for start in range(0, len(ids), _CHUNK):
        chunk = images.select(ids[start : start + _CHUNK], ordered=True)
        for sample_id, path, *values in zip(*chunk.values(read), strict=True):
            results, own = zip(*(value or () for value in values[: len(stored)]), strict=True), values[len(stored) :]
            wanted = fields.expressions_of(own[0], several) if own_field else list(request.expressions)
            if request.existing == SKIP:
                have = {
                    normalize_expression(text or ""): tuple(origin)
                    for text, status, *origin in results
                    if status != labels.FAILED
                }
                summary.skipped += sum(expression in have for expression in wanted)
                summary.others += sum(have.get(expression, mine) != mine for expression in wanted)
                wanted = [expression for expression in wanted if expression not in have]
            for expression in wanted:
                yield ReferringExample(path, expression, example_id=sample_id)


def write(
    dataset: fo.Dataset,
    results: Results,
    output_field: str,
    checkpoint: str,
    summary: Summary,
    options: str | None = None,
) -> None:
    """Store results of samples, in place of earlier results for the same expressions.

    They are merged into what the samples hold now, because other runs and people may have written since the samples
    were read. They are counted when they are in the database's journal. A result that the database refuses becomes the
    failure of its expression, and all others are stored.

    Args:
        dataset: the samples' own.
        results: of normalized expressions.
        output_field: field of the masks, see `labels.declare_fields`.
        checkpoint: pinned name, stored with each result.
        summary: counts the results.
        options: stored with each result, see `SegmentRequest.options_in_words`.

    Raises:
        pymongo.errors.PyMongoError: the database cannot be reached, or lets nothing be written.
    """
    if results:
        written = Summary()
        _save(dataset, results, output_field, (checkpoint, options), written)
        make_durable(dataset)
        summary.count(written)


def _save(dataset: fo.Dataset, results: Results, output_field: str, origin: _Origin, summary: Summary) -> None:
    """Save results together; where the database refuses that, save them apart."""
    written = Summary()
    try:
        with fo.core.collections.SaveContext(dataset, batch_size=len(results)) as context:
            for sample in fields.every_image(dataset).select(list(results)):
                expressions, its = zip(*results[sample.id], strict=True)
                _store(sample, output_field, origin, expressions, its, written)
                context.save(sample)
    except ConnectionFailure:
        raise
    except Exception as error:
        apart = _apart(results, error)
        for part in apart:
            _save(dataset, part, output_field, origin, summary)
        if not apart:  # not even a failure has room on the sample
            if not _is_too_large(error):
                raise
            _log.warning("the sample %s has no room for a failure: %s", next(iter(results)), error)
            summary.statuses[labels.FAILED] += 1
            summary.reasons[_reason(error)] += 1
    else:
        summary.count(written)


def _apart(results: Results, error: Exception) -> list[Results]:
    """Return refused results in smaller parts: samples, then expressions, then a failure instead of a prediction."""
    if len(results) > 1:
        return [{sample_id: pairs} for sample_id, pairs in results.items()]
    ((sample_id, pairs),) = results.items()
    if len(pairs) > 1:
        return [{sample_id: [pair]} for pair in pairs]
    ((expression, result),) = pairs
    failure = Failure(_reason(error), error)
    return [] if isinstance(result, Failure) else [{sample_id: [(expression, failure)]}]


def _reason(error: Exception) -> str:
    if _is_too_large(error):
        return "the result does not fit: MongoDB holds 16 MB per sample; remove other results from it, then run again"
    return storable(f"the database refuses the result: {type(error).__name__}: {error}", MAX_MESSAGE_CHARACTERS)


def _is_too_large(error: Exception) -> bool:
    """Return whether a sample would be larger than a document of MongoDB may be."""
    cause = error.__cause__  # FiftyOne's `bulk_write` raises a ValueError from the database's error
    codes = {each["code"] for each in cause.details["writeErrors"]} if isinstance(cause, BulkWriteError) else set()
    codes |= {error.code} if isinstance(error, OperationFailure) else set()
    return isinstance(error, DocumentTooLarge) or not codes.isdisjoint(_TOO_LARGE)


def _store(
    sample: fo.Sample,
    output_field: str,
    origin: _Origin,
    expressions: Sequence[str],
    results: Sequence[Prediction | Failure],
    summary: Summary,
) -> None:
    """Put results on a sample in memory, in place of earlier results for the same expressions.

    A failure replaces the response and leaves earlier masks of its expression alone.

    Args:
        sample: changed, not saved.
        output_field: field of the masks.
        origin: checkpoint and options, stored with each result.
        expressions: normalized.
        results: of each expression.
        summary: counts the results.
    """
    responses_field = labels.responses_field(output_field)
    replaced = {e for e, result in zip(expressions, results, strict=True) if isinstance(result, Prediction)}
    old = sample[output_field].detections if sample[output_field] else []
    found = [detection for detection in old if _normalized(detection) not in replaced]
    responses = [response for response in sample[responses_field] or [] if _normalized(response) not in expressions]
    for expression, result in zip(expressions, results, strict=True):
        response = labels.response_document(result, expression, *origin)
        responses.append(response)
        summary.statuses[response.status] += 1
        summary.in_words += response.no_target_in_words
        if response.error:
            summary.reasons[response.error] += 1
        if isinstance(result, Prediction):
            found += labels.detections(result, expression, origin[0])
    sample[output_field] = fo.Detections(detections=found)
    sample[responses_field] = responses


def _normalized(document: fo.core.odm.DynamicEmbeddedDocument) -> str | None:
    """Return the normalized expression of a label or response; None where it names none, or several."""
    value = labels.attribute(document, "expression")
    return normalize_expression(value) if isinstance(value, str) else None
