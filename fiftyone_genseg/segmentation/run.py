"""Segment the samples of a view, write results as they come, and resume.

A sample is asked one or several expressions. Its results are stored in one write, or in one write for every 64 of many.
A run that is killed leaves each expression either done or untouched. Only results that the database refuses together
are written one by one. This module knows samples and fields. It knows neither forms nor the inside of an engine.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import fiftyone as fo
from genseg_hub.answers import MAX_MESSAGE_CHARACTERS, storable
from genseg_hub.schema import Failure, Prediction, ReferringExample, normalize_expression
from pymongo.errors import BulkWriteError, ConnectionFailure, DocumentTooLarge, OperationFailure

from fiftyone_genseg import fields, labels, outputs, overlays, responses
from fiftyone_genseg.database import make_durable
from fiftyone_genseg.segmentation.engines.base import Engine
from fiftyone_genseg.segmentation.request import SKIP, SegmentRequest
from fiftyone_genseg.segmentation.summary import Summary
from fiftyone_genseg.statuses import FAILED, SEGMENTED

_CHUNK = 1000  # samples read at once
_MOST_WAITING = 64  # results of one sample that wait to be written together, because each write has the whole sample
_TOO_LARGE = {10334, 17419, 17420}  # MongoDB's codes for a document of more than 16 MB
Results = dict[str, list[tuple[str, Prediction | Failure]]]  # sample id -> its expressions with their results
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Target:
    """Fields of results, and the values that each result stores with it.

    Attributes:
        field: field of the masks; `outputs` describes the other fields.
        checkpoint: pinned name.
        options: the given options that change answers, see `SegmentRequest.options_in_words`.
        labels: expression -> label of its masks; others have the label "referred".
    """

    field: str
    checkpoint: str
    options: str | None = None
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)


def segment_view(view: fo.DatasetView | fo.Dataset, request: SegmentRequest, engine: Engine) -> Iterator[Summary]:
    """Segment every sample of a view.

    Args:
        view: images, or the dataset itself.
        request: the expressions to ask, and the fields of the results.
        engine: the engine that answers, see `engines.opened`.

    Yields:
        The running summary, once at the start and then after every write.

    Raises:
        ValueError, CheckpointError: see `SegmentRequest.check`; before anything is written.
    """
    request.check(view)
    dataset, view = view._dataset, fields.flat(view)
    outputs.declare_fields(dataset, request.output_field)
    ids = view.values("id")
    target = Target(request.output_field, engine.checkpoint, request.options_in_words, request.labels)
    summary = Summary(total=_count(view, len(ids), request))
    yield summary
    finished: Results = {}
    waiting = 0
    try:
        answers = engine.answer(_missing(dataset, ids, request, engine.checkpoint, summary), request.batch_size)
        before = None
        for example, result in answers:
            is_next = before not in (None, example.example_id)
            if waiting >= (request.batch_size if is_next else max(request.batch_size, _MOST_WAITING)):
                write(dataset, finished, target, summary)
                finished, waiting = {}, 0
                yield summary
            before = example.example_id
            finished.setdefault(example.example_id, []).append((example.expression, result))
            waiting += 1
    finally:
        write(dataset, finished, target, summary)
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
    """Yield the examples to ask, and count the skipped ones.

    Samples are read in chunks so that no database cursor stays open, and without their stored masks. An expression that
    was segmented is asked again on a sample whose field of masks was cleared, deleted or renamed.
    """
    asked, own_field = labels.responses_field(request.output_field), request.expression_field
    stored = [f"{asked}.{name}" for name in ("expression", "status", "checkpoint", "options")]
    has_masks = fo.ViewField(request.output_field).exists()  # a result stores Detections, also empty ones
    read = ["id", "filepath", has_masks, *stored, *([own_field] if own_field else [])]
    mine = (checkpoint, request.options_in_words)
    images, several = fields.every_image(dataset), fields.holds_several(dataset, own_field)
    for start in range(0, len(ids), _CHUNK):
        chunk = images.select(ids[start : start + _CHUNK], ordered=True)
        for sample_id, path, masked, *values in zip(*chunk.values(read), strict=True):
            results, own = zip(*(value or () for value in values[: len(stored)]), strict=True), values[len(stored) :]
            wanted = fields.expressions_of(own[0], several) if own_field else list(request.expressions)
            if request.existing == SKIP:
                have = {
                    normalize_expression(text or ""): tuple(origin)
                    for text, status, *origin in results
                    if status != FAILED and (masked or status != SEGMENTED)
                }
                summary.skipped += sum(expression in have for expression in wanted)
                summary.others += sum(have.get(expression, mine) != mine for expression in wanted)
                wanted = [expression for expression in wanted if expression not in have]
            for expression in wanted:
                yield ReferringExample(path, expression, example_id=sample_id)


def write(dataset: fo.Dataset, results: Results, target: Target, summary: Summary) -> None:
    """Store results of samples, in place of earlier results for the same expressions.

    The results are merged into the samples' present values, because other runs and people may have written since the
    samples were read. They are counted when they are in the database's journal. A result that the database refuses
    becomes the failure of its expression, and all others are stored.

    Args:
        dataset: the samples' own.
        results: results of normalized expressions.
        target: its fields are declared, see `outputs.declare_fields`.
        summary: counts the results.

    Raises:
        pymongo.errors.PyMongoError: the database cannot be reached, or lets nothing be written.
    """
    if results:
        written = Summary()
        _save(dataset, results, target, written)
        make_durable(dataset)
        summary.count(written)


def _save(dataset: fo.Dataset, results: Results, target: Target, summary: Summary) -> None:
    """Save results together; if the database refuses that, save them apart."""
    written = Summary()
    try:
        with fo.core.collections.SaveContext(dataset, batch_size=len(results)) as context:
            for sample in fields.every_image(dataset).select(list(results)):
                expressions, its = zip(*results[sample.id], strict=True)
                store(sample, target, expressions, its, written)
                context.save(sample)
    except ConnectionFailure:
        raise
    except Exception as error:
        apart = _apart(results, error)
        for part in apart:
            _save(dataset, part, target, summary)
        if not apart:  # not even a failure has room on the sample
            if not _is_too_large(error):
                raise
            _log.warning("the sample %s has no room for a failure: %s", next(iter(results)), error)
            summary.statuses[FAILED] += 1
            summary.reasons[_reason(error)] += 1
    else:
        summary.count(written)


def _apart(results: Results, error: Exception) -> list[Results]:
    """Return refused results in smaller parts.

    A sample follows a group of samples, an expression a sample, and a failure a prediction.
    """
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


def store(
    sample: fo.Sample,
    target: Target,
    expressions: Sequence[str],
    results: Sequence[Prediction | Failure],
    summary: Summary,
) -> None:
    """Put results on a sample in memory, in place of results of the same expressions.

    A failure replaces the response and leaves earlier labels of its expression alone. If the sample's field of masks
    was cleared, the responses to segmented expressions go, so that a run asks these expressions again.

    Args:
        sample: changed, not saved.
        target: see `write`.
        expressions: normalized.
        results: results of each expression.
        summary: counts the results.
    """
    masks, boxes, points = target.field, labels.boxes_field(target.field), labels.points_field(target.field)
    asked = labels.responses_field(target.field)
    replaced = {e for e, result in zip(expressions, results, strict=True) if isinstance(result, Prediction)}
    found = {
        masks: _others(sample[masks] and sample[masks].detections, replaced),
        boxes: _others(sample[boxes] and sample[boxes].detections, replaced),
        points: _others(sample[points] and sample[points].keypoints, replaced),
    }
    answers = _others(sample[asked], expressions)
    if sample[masks] is None:
        answers = [answer for answer in answers if labels.attribute(answer, "status") != SEGMENTED]
    for expression, result in zip(expressions, results, strict=True):
        response = responses.response_document(result, expression, target.checkpoint, target.options)
        answers.append(response)
        summary.statuses[response.status] += 1
        summary.in_words += response.no_target_in_words
        if response.error:
            summary.reasons[response.error] += 1
        if isinstance(result, Prediction):
            label = target.labels.get(expression, labels.LABEL)
            attributes = {"label": label, "expression": expression, "checkpoint": target.checkpoint}
            found[masks] += labels.detections(result, **attributes)
            found[boxes] += overlays.boxes(result, **attributes)
            found[points] += overlays.points(result, **attributes)
    sample[masks] = fo.Detections(detections=found[masks])
    sample[boxes] = fo.Detections(detections=found[boxes])
    sample[points] = fo.Keypoints(keypoints=found[points])
    sample[asked] = answers
    sample[labels.outcome_field(target.field)] = responses.outcome(answer.status for answer in answers)


def _others(stored: Sequence[Any] | None, expressions: Collection[str]) -> list[Any]:
    """Return the labels or responses that are not of some expressions."""
    return [document for document in stored or () if _normalized(document) not in expressions]


def _normalized(document: fo.core.odm.DynamicEmbeddedDocument) -> str | None:
    """Return the normalized expression of a label or response.

    Return None if it names none, or several.
    """
    value = labels.attribute(document, "expression")
    return normalize_expression(value) if isinstance(value, str) else None
