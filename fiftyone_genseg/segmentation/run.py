"""Segmenting the samples of a view, written as it goes and resumable.

A sample is asked one or several expressions. Its results are stored in one write, so a run that is
killed leaves each sample either done or untouched. This module knows samples and fields; it does
not know forms, models' insides, or where an engine has its models.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import fiftyone as fo
from genseg_hub.schema import Failure, Prediction, ReferringExample

from fiftyone_genseg import labels
from fiftyone_genseg.fields import check_expressions, check_view
from fiftyone_genseg.segmentation.engines import Engine

SKIP, OVERWRITE = "skip", "overwrite"
_CHUNK = 1000  # samples read at once


@dataclass
class Summary:
    """Counts of a run, in expressions.

    Attributes:
        total: expressions that were asked for.
        skipped: had a result already.
        statuses: how many ended as each of `labels.STATUSES`.
        reasons: error -> how many.
    """

    total: int = 0
    skipped: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        return self.skipped + sum(self.statuses.values())

    def to_dict(self) -> dict:
        return {
            "total": self.total,
            "skipped": self.skipped,
            **{status: self.statuses[status] for status in labels.STATUSES},
            "reasons": dict(self.reasons),
        }


def segment_view(
    view: fo.DatasetView | fo.Dataset,
    engine: Engine,
    checkpoint: str,
    output_field: str,
    expressions: Sequence[str] = (),
    expression_field: str | None = None,
    existing: str = SKIP,
    batch_size: int = 8,
) -> Iterator[Summary]:
    """Segment every sample of a view.

    Args:
        view: images, or the dataset itself.
        engine, checkpoint: what answers, and its (pinned) name, which is stored with the results: see `engines`.
        output_field: field of the masks; see `labels` for what is stored.
        expressions: asked of every sample. Mutually exclusive with `expression_field`.
        expression_field: string field that holds each sample's expression.
        existing: "skip" leaves an expression alone that has a result and asks failed ones again;
            "overwrite" asks again and replaces. Results of other expressions always stay.
        batch_size: expressions answered at once, and samples written at once.

    Yields:
        The running summary, once at the start and then after every write.

    Raises:
        ValueError: for arguments that cannot work, before anything is written.
    """
    if existing not in (SKIP, OVERWRITE):
        raise ValueError(f"existing must be {SKIP!r} or {OVERWRITE!r}, got {existing!r}")
    check_view(view)
    check_expressions(view, expressions, expression_field)
    dataset = view._dataset
    labels.declare_fields(dataset, output_field)
    responses_field = labels.responses_field(output_field)
    asked = list(dict.fromkeys(expression.strip() for expression in expressions if expression.strip()))
    ids = view.values("id")
    summary = Summary(total=len(ids) * (len(asked) if not expression_field else 1))
    yield summary

    def todo() -> Iterator[ReferringExample]:
        """What to ask, read in chunks so that no database cursor stays open, and without what is stored of it."""
        fields = ["id", "filepath", f"{responses_field}.expression", f"{responses_field}.status"]
        for start in range(0, len(ids), _CHUNK):
            chunk = dataset.select(ids[start : start + _CHUNK], ordered=True)
            columns = chunk.values([*fields, expression_field] if expression_field else fields)
            for sample_id, path, answered, statuses, *own in zip(*columns, strict=True):
                wanted = [own[0] or ""] if expression_field else asked
                if existing == SKIP:
                    results = zip(answered or (), statuses or (), strict=True)
                    have = {expression for expression, status in results if status != labels.FAILED}
                    left = [expression for expression in wanted if expression not in have]
                    summary.skipped += len(wanted) - len(left)
                    wanted = left
                for expression in wanted:
                    yield ReferringExample(path, expression, example_id=sample_id)

    finished: dict[str, list[tuple[str, Prediction | Failure]]] = {}

    def write() -> None:
        """Merge into what the samples hold now: other runs and people may have written since they were read."""
        if not finished:
            return
        with fo.core.collections.SaveContext(dataset, batch_size=len(finished)) as context:
            for sample in dataset.select(list(finished)):
                asked_of_it, results = zip(*finished[sample.id], strict=True)
                store(sample, output_field, checkpoint, asked_of_it, results, summary)
                context.save(sample)
        finished.clear()

    waiting = 0
    try:
        for sample_id, group in itertools.groupby(engine(todo(), batch_size), key=lambda answer: answer[0].example_id):
            answers = [(example.expression, result) for example, result in group]
            finished.setdefault(sample_id, []).extend(answers)
            waiting += len(answers)
            if waiting >= batch_size:
                write()
                waiting = 0
                yield summary
    finally:
        write()
    yield summary


def store(
    sample: fo.Sample,
    output_field: str,
    checkpoint: str,
    expressions: Sequence[str],
    results: Sequence[Prediction | Failure],
    summary: Summary,
) -> None:
    """Put results on a sample in memory, in place of earlier ones for the same expressions.

    A failure replaces the response and leaves earlier masks of its expression alone.
    """
    responses_field = labels.responses_field(output_field)
    replaced = {e for e, result in zip(expressions, results, strict=True) if isinstance(result, Prediction)}
    old = sample[output_field].detections if sample[output_field] else []
    found = [detection for detection in old if labels.attribute(detection, "expression") not in replaced]
    responses = [r for r in sample[responses_field] or [] if labels.attribute(r, "expression") not in expressions]
    for expression, result in zip(expressions, results, strict=True):
        response = labels.response_document(result, expression, checkpoint)
        responses.append(response)
        summary.statuses[response.status] += 1
        if response.error:
            summary.reasons[response.error] += 1
        if isinstance(result, Prediction):
            found += labels.detections(result, expression, checkpoint)
    sample[output_field] = fo.Detections(detections=found)
    sample[responses_field] = responses
