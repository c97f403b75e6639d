"""Predictions as FiftyOne labels. Only this module and `cutouts` know FiftyOne's relative xywh boxes.

A result takes two fields. `<field>` is a `Detections` with one `Detection` per mask. A no-target or failed expression
has no mask, so `<field>_responses` is a list with one entry per expression that was asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import fiftyone as fo
import numpy as np
from genseg_hub.answers import MAX_MESSAGE_CHARACTERS, storable
from genseg_hub.errors import MaskError
from genseg_hub.schema import Box, Failure, Prediction, Rle, decode_mask, normalize_expression

from fiftyone_genseg.cutouts import cutout, stored_mask
from fiftyone_genseg.statuses import FAILED, NO_TARGET, SEGMENTED, UNPARSABLE

LABEL = "referred"
IGNORE = "ignore"

_FIELD_NAME = re.compile(r"[a-zA-Z]\w*")
_DETECTION_FIELDS = {
    "expression": (fo.StringField, {}),
    "checkpoint": (fo.StringField, {}),
    "points": (fo.ListField, {}),
    "prompt_box": (fo.ListField, {"subfield": fo.FloatField}),
}
_RESPONSE_FIELDS = {
    "expression": fo.StringField,
    "status": fo.StringField,
    "error": fo.StringField,
    "reasoning": fo.StringField,
    "checkpoint": fo.StringField,
    "instances": fo.IntField,
    "points_outside_box": fo.IntField,
    "dialect": fo.StringField,
    "options": fo.StringField,
    "no_target_in_words": fo.BooleanField,
    "repeated": fo.IntField,
    "cut": fo.BooleanField,
}


def responses_field(field: str) -> str:
    """Return the name of the list of responses that goes with a field of masks."""
    return f"{field}_responses"


def is_detections(samples: fo.Dataset | fo.DatasetView, name: str) -> bool:
    """Return whether samples have a field of that name that holds Detections."""
    return getattr(samples.get_field(name), "document_type", None) is fo.Detections


def check_fields(samples: fo.Dataset | fo.DatasetView, field: str) -> None:
    """Raise ValueError unless the two fields of a result can be written.

    The name must be a field name, neither field may exist with another type, and labels that were not made here are
    never written into: a field of labels without a field of responses must have the attribute `checkpoint` on each.
    """
    if not _FIELD_NAME.fullmatch(field):
        raise ValueError(f"{field!r} is not a field name: use letters, digits and underscores, starting with a letter")
    masks, responses = samples.get_field(field), samples.get_field(responses_field(field))
    if masks is not None and not is_detections(samples, field):
        raise ValueError(f"the field {field!r} already holds something else; choose another name")
    inner = getattr(responses, "field", None)
    if responses is not None and getattr(inner, "document_type", None) is not fo.DynamicEmbeddedDocument:
        raise ValueError(f"the field {responses_field(field)!r} already holds something else; choose another name")
    answered = samples.get_field(f"{responses_field(field)}.status") is not None
    if masks is not None and not answered and _holds_others(samples._dataset, field):
        raise ValueError(
            f"the field {field!r} holds labels that this plugin did not make, and they are never written into: "
            "name another output field, or rename this one with dataset.rename_sample_field()"
        )


def _holds_others(dataset: fo.Dataset, field: str) -> bool:
    """Return whether a field of Detections has one without our attribute `checkpoint`."""
    other = {f"{field}.detections": {"$elemMatch": {"checkpoint": None}}}
    return dataset._sample_collection.find_one(other, {"_id": True}) is not None


def declare_fields(dataset: fo.Dataset, field: str) -> None:
    """Add both fields and their attributes to a dataset's schema, so that the sidebar filters them.

    Raises:
        ValueError: a field of that name exists with another type.
    """
    check_fields(dataset, field)
    responses = responses_field(field)
    dataset.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    for name, (kind, options) in _DETECTION_FIELDS.items():
        dataset.add_sample_field(f"{field}.detections.{name}", kind, **options)
    dataset.add_sample_field(
        responses, fo.ListField, subfield=fo.EmbeddedDocumentField, embedded_doc_type=fo.DynamicEmbeddedDocument
    )
    for name, kind in _RESPONSE_FIELDS.items():
        dataset.add_sample_field(f"{responses}.{name}", kind)


def detection_from_mask(mask: np.ndarray, **attributes) -> fo.Detection | None:
    """Return a Detection with the mask cut to its own tight box; None for an empty mask.

    Args:
        mask: bool[H, W].
        **attributes: of the Detection.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    height, width = mask.shape
    x1, x2, y1, y2 = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    return fo.Detection(
        bounding_box=[float(x1 / width), float(y1 / height), float((x2 - x1) / width), float((y2 - y1) / height)],
        mask=mask[y1:y2, x1:x2],
        **attributes,
    )


def ground_truth(masks: Iterable[Rle], label: str = LABEL) -> fo.Detections:
    """Return the masks of a referring example as Detections."""
    detections = (detection_from_mask(decode_mask(rle), label=label) for rle in masks)
    return fo.Detections(detections=[detection for detection in detections if detection])


def detections(prediction: Prediction, expression: str, checkpoint: str) -> list[fo.Detection]:
    """Return one Detection per non-empty mask.

    Its confidence is the segmenter's predicted IoU. Its attributes are `expression`, `checkpoint`, `points` (relative
    xy) and `prompt_box` (the reasoner's box, relative xywh; None if it gave points only). The reasoning belongs to the
    response, see `response_document`.
    """
    width, height = prediction.image_size
    found = []
    for instance, mask, score in zip(prediction.response.instances, prediction.masks, prediction.scores, strict=True):
        detection = detection_from_mask(
            mask,
            label=LABEL,
            confidence=score,
            expression=expression,
            checkpoint=checkpoint,
            points=[[x / width, y / height] for x, y in instance.points],
            prompt_box=_relative(instance.box, prediction.image_size),
        )
        if detection:
            found.append(detection)
    return found


def _relative(box: Box | None, size: tuple[int, int]) -> list[float] | None:
    """Return a box in pixels as relative xywh."""
    if box is None:
        return None
    (x1, y1, x2, y2), (width, height) = box, size
    return [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]


def response_document(
    result: Prediction | Failure, expression: str, checkpoint: str, options: str | None = None
) -> fo.DynamicEmbeddedDocument:
    """Return the response to one expression, with `status` one of `statuses.STATUSES`.

    Args:
        result: what became of the expression.
        expression: normalized.
        checkpoint: pinned name of the checkpoint that answered.
        options: the given options that change answers, such as "max_pixels=400000"; None for the defaults.
    """
    document = {
        "expression": expression,
        "checkpoint": checkpoint,
        "error": None,
        "reasoning": "",
        "instances": 0,
        "points_outside_box": 0,
        "dialect": None,
        "options": options,
        "no_target_in_words": False,
        "repeated": 0,
        "cut": False,
    }
    if isinstance(result, Failure):
        document |= {"status": FAILED, "error": storable(result.message, MAX_MESSAGE_CHARACTERS)}
    else:
        response = result.response
        document |= {
            "status": SEGMENTED if response.instances else UNPARSABLE if response.error else NO_TARGET,
            "error": response.error.value if response.error else None,
            "reasoning": response.reasoning,
            "instances": len(response.instances),
            "points_outside_box": sum(instance.points_outside_box for instance in response.instances),
            "dialect": result.dialect or None,
            "no_target_in_words": response.no_target_in_words,
            "repeated": response.repeated,
            "cut": response.cut,
        }
    return fo.DynamicEmbeddedDocument(**document)


def names(value: str | Sequence[str] | None, expression: str) -> bool:
    """Return whether a label's attribute `expression`, one or a list of them, names an expression.

    Args:
        value: as the label holds it.
        expression: normalized.
    """
    given = [value] if isinstance(value, str) else value or ()
    return any(normalize_expression(text) == expression for text in given)


def attribute(document: fo.core.odm.DynamicEmbeddedDocument, name: str):
    """Return an attribute of a label or response; None where it lacks the attribute, as labels of others may."""
    return document.get_field(name) if document.has_field(name) else None


def expression_of(detection: fo.Detection) -> str | list[str] | None:
    """Return the attribute `expression` of a label; None where the label has none."""
    return attribute(detection, "expression")


def of_expression(detections: fo.Detections | None, expression: str) -> fo.Detections:
    """Return the labels that name an expression; all of them when none names any."""
    stored, wanted = detections.detections if detections else [], normalize_expression(expression)
    if any(expression_of(detection) is not None for detection in stored):
        stored = [detection for detection in stored if names(expression_of(detection), wanted)]
    return fo.Detections(detections=stored)


def instance_masks(detections: fo.Detections | None, size: tuple[int, int]) -> list[np.ndarray]:
    """Return the masks of Detections, bool[H, W] each, on an image of `size` = (width, height).

    Raises:
        MaskError: a Detection has no mask, or a mask cannot be read.
    """
    masks = []
    for detection in detections.detections if detections else []:
        try:
            stored = stored_mask(detection)
            if stored is None:
                raise MaskError("there is none, only a box")
            part, _ = cutout(detection.bounding_box, stored, size)
        except MaskError as error:
            raise MaskError(f"the mask of the detection {detection.id} cannot be used: {error}") from error
        full = np.zeros((size[1], size[0]), dtype=bool)
        if part:
            x1, y1, x2, y2 = part.window
            full[y1:y2, x1:x2] = part.mask
        masks.append(full)
    return masks


def union_mask(detections: fo.Detections | None, size: tuple[int, int]) -> np.ndarray:
    """Return the union of `instance_masks`: bool[H, W], all False without any."""
    union = np.zeros((size[1], size[0]), dtype=bool)
    for mask in instance_masks(detections, size):
        union |= mask
    return union
