"""Segmenting the samples of a view, written as it goes and resumable.

A sample is asked one or several expressions. Its results are stored in one write, so that a run that is killed leaves
each sample either done or untouched. This module knows samples and fields. It does not know forms, or what is inside
an engine.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import fiftyone as fo
from genseg_hub.schema import Failure, Prediction, ReferringExample, normalize_expression

from fiftyone_genseg import labels
from fiftyone_genseg.segmentation.engines.base import Engine
from fiftyone_genseg.segmentation.request import SKIP, SegmentRequest
from fiftyone_genseg.segmentation.summary import Summary

_CHUNK = 1000  # samples read at once
_Results = dict[str, list[tuple[str, Prediction | Failure]]]  # sample id -> its expressions with their results


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
    dataset = view._dataset
    labels.declare_fields(dataset, request.output_field)
    ids = view.values("id")
    summary = Summary(total=len(ids) * (1 if request.expression_field else len(request.expressions)))
    yield summary
    finished: _Results = {}
    waiting = 0
    try:
        answers = engine.answer(_missing(dataset, ids, request, summary), request.batch_size)
        for sample_id, group in itertools.groupby(answers, key=lambda answer: answer[0].example_id):
            results = [(example.expression, result) for example, result in group]
            finished.setdefault(sample_id, []).extend(results)
            waiting += len(results)
            if waiting >= request.batch_size:
                _write(dataset, finished, request.output_field, engine.checkpoint, summary)
                waiting = 0
                yield summary
    finally:
        _write(dataset, finished, request.output_field, engine.checkpoint, summary)
    yield summary


def _missing(
    dataset: fo.Dataset, ids: Sequence[str], request: SegmentRequest, summary: Summary
) -> Iterator[ReferringExample]:
    """Yield what to ask, and count what is skipped.

    Samples are read in chunks so that no database cursor stays open, and without their stored masks.
    """
    responses, own_field = labels.responses_field(request.output_field), request.expression_field
    fields = ["id", "filepath", f"{responses}.expression", f"{responses}.status", *([own_field] if own_field else [])]
    for start in range(0, len(ids), _CHUNK):
        chunk = dataset.select(ids[start : start + _CHUNK], ordered=True)
        for sample_id, path, answered, statuses, *own in zip(*chunk.values(fields), strict=True):
            wanted = [normalize_expression(own[0] or "")] if own_field else list(request.expressions)
            if request.existing == SKIP:
                results = zip(answered or (), statuses or (), strict=True)
                have = {normalize_expression(text or "") for text, status in results if status != labels.FAILED}
                left = [expression for expression in wanted if expression not in have]
                summary.skipped += len(wanted) - len(left)
                wanted = left
            for expression in wanted:
                yield ReferringExample(path, expression, example_id=sample_id)


def _write(dataset: fo.Dataset, finished: _Results, output_field: str, checkpoint: str, summary: Summary) -> None:
    """Store results and forget them.

    They are merged into what the samples hold now, because other runs and people may have written since the samples
    were read.
    """
    if not finished:
        return
    with fo.core.collections.SaveContext(dataset, batch_size=len(finished)) as context:
        for sample in dataset.select(list(finished)):
            expressions, results = zip(*finished[sample.id], strict=True)
            store(sample, output_field, checkpoint, expressions, results, summary)
            context.save(sample)
    finished.clear()


def store(
    sample: fo.Sample,
    output_field: str,
    checkpoint: str,
    expressions: Sequence[str],
    results: Sequence[Prediction | Failure],
    summary: Summary,
) -> None:
    """Put results on a sample in memory, in place of earlier results for the same expressions.

    A failure replaces the response and leaves earlier masks of its expression alone.

    Args:
        sample: changed, not saved.
        output_field: field of the masks.
        checkpoint: pinned name, stored with each result.
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
        response = labels.response_document(result, expression, checkpoint)
        responses.append(response)
        summary.statuses[response.status] += 1
        summary.in_words += response.no_target_in_words
        if response.error:
            summary.reasons[response.error] += 1
        if isinstance(result, Prediction):
            found += labels.detections(result, expression, checkpoint)
    sample[output_field] = fo.Detections(detections=found)
    sample[responses_field] = responses


def _normalized(document: fo.core.odm.DynamicEmbeddedDocument) -> str | None:
    """Return the normalized expression of a label or response; None where it names none, or several."""
    value = labels.attribute(document, "expression")
    return normalize_expression(value) if isinstance(value, str) else None
