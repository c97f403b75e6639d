"""Correct answers, judge them, and keep them as ground truth.

A kept answer takes two fields, which exports, evaluations and trainings read like any ground truth: `kept` holds the
masks with their expression, and `kept_expressions` lists the expressions of the sample. An expression of the list
without a mask refers to nothing.
"""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import fiftyone as fo
from genseg_hub.images import image_size
from genseg_hub.schema import InstancePrompt, Response, normalize_expression

from fiftyone_genseg import appearance, fields, labels, overlays, responses
from fiftyone_genseg.asking.answering import sample_of
from fiftyone_genseg.database import make_durable
from fiftyone_genseg.segmentation.run import Target, store
from fiftyone_genseg.segmentation.summary import Summary
from fiftyone_genseg.statuses import NO_TARGET

if TYPE_CHECKING:
    from genseg_hub import GenSegR1

MASKS, EXPRESSIONS = fields.KEPT, fields.KEPT_EXPRESSIONS
RIGHT, WRONG = "kept", "wrong"  # verdicts of a response
_FIELDS = {
    MASKS: "Masks that a person kept as ground truth.",
    f"{MASKS}.detections.expression": "The expression that the mask answers.",
    f"{MASKS}.detections.kept_by": "Who kept the mask.",
    f"{MASKS}.detections.kept_at": "When the mask was kept (UTC).",
    EXPRESSIONS: "Expressions with kept ground truth; one without a mask refers to nothing.",
}


def declare(dataset: fo.Dataset) -> None:
    """Add the fields of kept ground truth to a dataset's schema.

    Raises:
        ValueError: a field of that name holds something else.
    """
    found, listed = dataset.get_field(MASKS), dataset.get_field(EXPRESSIONS)
    if found is not None and not labels.is_detections(dataset, MASKS):
        raise ValueError(f"the field {MASKS!r} holds something else; rename it with dataset.rename_sample_field()")
    if listed is not None and not isinstance(getattr(listed, "field", None), fo.StringField):
        raise ValueError(
            f"the field {EXPRESSIONS!r} holds something else; rename it with dataset.rename_sample_field()"
        )
    dataset.add_sample_field(MASKS, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    for name, kind in (("expression", fo.StringField), ("kept_by", fo.StringField), ("kept_at", fo.DateTimeField)):
        dataset.add_sample_field(f"{MASKS}.detections.{name}", kind)
    dataset.add_sample_field(EXPRESSIONS, fo.ListField, subfield=fo.StringField)
    if found is None:
        appearance.group(dataset, MASKS, [MASKS, EXPRESSIONS])
        appearance.colour_by_expression(dataset, [MASKS])
    appearance.describe(dataset, _FIELDS)


def keep(
    dataset: fo.Dataset, sample_id: str, field: str, expression: str, by: str | None = None, nothing: bool = False
) -> None:
    """Keep an answer as its expression's ground truth, in place of an earlier one.

    Args:
        dataset: the sample's own.
        sample_id: id of the sample.
        field: field of the answer's masks.
        expression: expression that was asked.
        by: who keeps it; None for the user of this computer.
        nothing: keep that the expression refers to nothing, with any answer.

    Raises:
        ValueError: there is no answer, or it is one that cannot be used.
    """
    declare(dataset)
    sample, expression = sample_of(dataset, sample_id), normalize_expression(expression)
    response = _response(sample, field, expression)
    found = [] if nothing else _of(sample[field] and sample[field].detections, expression)
    if not nothing and not found and labels.attribute(response, "status") != NO_TARGET:
        raise ValueError(f"the answer to {expression!r} has no mask to keep: correct it, or say that nothing is meant")
    by, now = by or getpass.getuser(), _now()
    masks = []
    for mask in found:
        attributes = {"label": mask.label, "expression": expression, "kept_by": by, "kept_at": now}
        masks.append(fo.Detection(bounding_box=mask.bounding_box, mask=mask.get_mask(), **attributes))
    others = [mask for mask in (sample[MASKS] and sample[MASKS].detections) or [] if not _about(mask, expression)]
    sample[MASKS] = fo.Detections(detections=others + masks)
    sample[EXPRESSIONS] = list(dict.fromkeys([*(sample[EXPRESSIONS] or []), expression]))
    _judge(response, WRONG if nothing and response["instances"] else RIGHT, by, now)
    sample.save()
    make_durable(dataset)


def is_kept(sample: fo.Sample, expression: str) -> bool:
    """Return whether there is kept ground truth of an expression on a sample."""
    listed = sample[EXPRESSIONS] if sample.has_field(EXPRESSIONS) else None
    return expression in (listed or ())


def forget(dataset: fo.Dataset, sample_id: str, field: str, expression: str) -> None:
    """Remove the kept answer of an expression, and the verdict.

    See `keep` for the arguments.
    """
    sample, expression = sample_of(dataset, sample_id), normalize_expression(expression)
    _forget(sample, expression)
    for response in sample[labels.responses_field(field)] or []:
        if _about(response, expression):
            _judge(response, None, None, None)
    sample.save()


def mark_wrong(dataset: fo.Dataset, sample_id: str, field: str, expression: str, by: str | None = None) -> None:
    """Note that an answer is wrong, and no longer keep it.

    Its masks get the tag "wrong". See `keep` for the arguments.

    Raises:
        ValueError: there is no answer.
    """
    sample, expression = sample_of(dataset, sample_id), normalize_expression(expression)
    _judge(_response(sample, field, expression), WRONG, by or getpass.getuser(), _now())
    for mask in _of(sample[field] and sample[field].detections, expression):
        mask.tags = list(dict.fromkeys([*mask.tags, WRONG]))
    _forget(sample, expression)
    sample.save()


def delete(dataset: fo.Dataset, sample_id: str, field: str, expression: str) -> None:
    """Remove an answer and its labels; a kept copy stays.

    See `keep` for the arguments.
    """
    sample, expression = sample_of(dataset, sample_id), normalize_expression(expression)
    boxes, points = labels.boxes_field(field), labels.points_field(field)
    for name, items in ((field, "detections"), (boxes, "detections"), (points, "keypoints")):
        if sample[name]:
            sample[name][items] = [label for label in sample[name][items] if not _about(label, expression)]
    left = [each for each in sample[labels.responses_field(field)] or [] if not _about(each, expression)]
    sample[labels.responses_field(field)] = left
    sample[labels.outcome_field(field)] = responses.outcome(each.status for each in left)
    sample.save()


def offer_boxes(dataset: fo.Dataset, field: str) -> bool:
    """Offer the boxes of a field to be dragged in FiftyOne's tab "Annotate".

    A schema that has the boxes already stays as it is. FiftyOne 1.22 has no such schema for points.

    Args:
        dataset: dataset with the field's labels declared.
        field: field of the masks.

    Returns:
        Whether the schema is new. The App reads schemas when a sample is opened.
    """
    boxes = labels.boxes_field(field)
    if boxes in (dataset.label_schemas or {}):
        return False
    dataset.update_label_schema(boxes, dataset.generate_label_schemas(boxes, scan_samples=False))
    dataset.activate_label_schemas(boxes)
    return True


def prompts_of(sample: fo.Sample, field: str, expression: str) -> list[InstancePrompt]:
    """Return the boxes and points of an answer as they are now on a sample.

    A person may have moved them.

    Args:
        sample: sample with the labels.
        field: field of the masks.
        expression: normalized.

    Returns:
        One instance prompt per `index` of the labels, in pixels of the image.

    Raises:
        genseg_hub.errors.ImageError: the image cannot be read.
    """
    size = image_size(sample.filepath)
    boxes, points = sample[labels.boxes_field(field)], sample[labels.points_field(field)]
    return overlays.prompts(
        _of(boxes and boxes.detections, expression), _of(points and points.keypoints, expression), size
    )


def segment_again(
    dataset: fo.Dataset,
    sample_id: str,
    field: str,
    expression: str,
    prompts: Sequence[InstancePrompt],
    model: GenSegR1,
    by: str | None = None,
) -> None:
    """Make the masks of an answer anew from corrected boxes and points.

    The reasoning and the checkpoint of the answer stay, and the response says who corrected it. An answer that was kept
    before stays until the new answer is kept.

    Args:
        dataset: the sample's own.
        sample_id: id of the sample.
        field: field of the masks.
        expression: expression that was asked.
        prompts: prompts in pixels of the image.
        model: model whose segmenter makes the masks; the image stays warm in it.
        by: who corrects; None for the user of this computer.

    Raises:
        ValueError: there is no answer.
        genseg_hub.errors.ImageError, genseg_hub.errors.SegmenterError: there can be no masks.
    """
    sample, expression = sample_of(dataset, sample_id), normalize_expression(expression)
    old = _response(sample, field, expression)
    response = Response("", labels.attribute(old, "reasoning") or "", tuple(prompts))
    prediction = model.segment_prompts(sample.filepath, response)
    named = {label.label for label in _of(sample[field] and sample[field].detections, expression)}
    target = Target(
        field,
        labels.attribute(old, "checkpoint") or "",
        labels.attribute(old, "options"),
        {expression: named.pop() if len(named) == 1 else expression},
    )
    store(sample, target, [expression], [prediction], Summary())
    _response(sample, field, expression)["corrected_by"] = by or getpass.getuser()
    sample.save()
    make_durable(dataset)


def _response(sample: fo.Sample, field: str, expression: str) -> fo.DynamicEmbeddedDocument:
    name = labels.responses_field(field)
    for response in (sample[name] if sample.has_field(name) else None) or []:
        if _about(response, expression):
            return response
    raise ValueError(f"{expression!r} has no answer in the field {field!r} any more: ask again")


def _forget(sample: fo.Sample, expression: str) -> None:
    """Take the kept answer of an expression off a sample in memory."""
    if is_kept(sample, expression):
        masks = (sample[MASKS] and sample[MASKS].detections) or []
        sample[MASKS] = fo.Detections(detections=[mask for mask in masks if not _about(mask, expression)])
        sample[EXPRESSIONS] = [known for known in sample[EXPRESSIONS] if known != expression]


def _judge(response: fo.DynamicEmbeddedDocument, verdict: str | None, by: str | None, at: datetime | None) -> None:
    response["verdict"], response["verdict_by"], response["verdict_at"] = verdict, by, at


def _of(stored: Sequence | None, expression: str) -> list:
    return [label for label in stored or () if _about(label, expression)]


def _about(document: fo.core.odm.DynamicEmbeddedDocument, expression: str) -> bool:
    return labels.names(labels.attribute(document, "expression"), expression)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
