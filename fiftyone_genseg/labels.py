"""Masks as FiftyOne labels, and the names of the fields of a result.

Only this module, `overlays`, `cutouts` and `stored_labels` know FiftyOne's relative coordinates. `outputs` describes
the fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import fiftyone as fo
import numpy as np
from genseg_hub.errors import MaskError
from genseg_hub.schema import Prediction, Rle, decode_mask, normalize_expression

from fiftyone_genseg.cutouts import cutout, stored_mask

LABEL = "referred"  # of a mask whose expression is no class
IGNORE = "ignore"


def responses_field(field: str) -> str:
    """Return the name of the list of responses that goes with a field of masks."""
    return f"{field}_responses"


def boxes_field(field: str) -> str:
    """Return the name of the field of boxes that belongs to a field of masks."""
    return f"{field}_boxes"


def points_field(field: str) -> str:
    """Return the name of the field of points that belongs to a field of masks."""
    return f"{field}_points"


def outcome_field(field: str) -> str:
    """Return the name of the field of outcomes that belongs to a field of masks."""
    return f"{field}_outcome"


def is_detections(samples: fo.Dataset | fo.DatasetView, name: str) -> bool:
    """Return whether samples have a field of that name that holds Detections."""
    return getattr(samples.get_field(name), "document_type", None) is fo.Detections


def detection_from_mask(mask: np.ndarray, **attributes) -> fo.Detection | None:
    """Return a Detection with the mask cut to its own tight box.

    Return None for an empty mask.

    Args:
        mask: bool[H, W].
        **attributes: attributes of the Detection.
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


def detections(prediction: Prediction, **attributes: str) -> list[fo.Detection]:
    """Return one Detection per non-empty mask.

    The confidence is the segmenter's predicted IoU, and `index` the number of the instance in the response, from 1 on.
    The box and the points of the instance have the same index, see `overlays`.

    Args:
        prediction: prediction of one expression.
        **attributes: attributes of each Detection.
    """
    found = (
        detection_from_mask(mask, confidence=score, index=number, **attributes)
        for number, (mask, score) in enumerate(zip(prediction.masks, prediction.scores, strict=True), 1)
    )
    return [detection for detection in found if detection]


def names(value: str | Sequence[str] | None, expression: str) -> bool:
    """Return whether a label's attribute `expression` names an expression.

    The attribute holds one expression or a list.

    Args:
        value: as the label holds it.
        expression: normalized.
    """
    given = [value] if isinstance(value, str) else value or ()
    return any(normalize_expression(text) == expression for text in given)


def attribute(document: fo.core.odm.DynamicEmbeddedDocument, name: str):
    """Return an attribute of a label or response; None if it lacks the attribute."""
    return document.get_field(name) if document.has_field(name) else None


def expression_of(detection: fo.Detection) -> str | list[str] | None:
    """Return the attribute `expression` of a label; None if the label has none."""
    return attribute(detection, "expression")


def of_expression(detections: fo.Detections | None, expression: str) -> fo.Detections:
    """Return the labels that name an expression; all of them when none names any."""
    stored, wanted = detections.detections if detections else [], normalize_expression(expression)
    if any(expression_of(detection) is not None for detection in stored):
        stored = [detection for detection in stored if names(expression_of(detection), wanted)]
    return fo.Detections(detections=stored)


def instance_masks(detections: fo.Detections | None, size: tuple[int, int]) -> list[np.ndarray]:
    """Return the masks of Detections, bool[H, W] each.

    `size` is the (width, height) of the image in pixels.

    Raises:
        MaskError: a Detection has no mask, or a mask cannot be read.
    """
    masks = []
    for detection in detections.detections if detections else []:
        try:
            stored = stored_mask(detection)
            if stored is None:
                raise MaskError("there is none, only a box; segment or remove the detection")
            part, _ = cutout(detection.bounding_box, stored, size)
        except MaskError as error:
            raise MaskError(f"the mask of the detection {detection.id} cannot be used: {error}") from error
        masks.append(part.whole(size) if part else np.zeros((size[1], size[0]), dtype=bool))
    return masks


def union_mask(detections: fo.Detections | None, size: tuple[int, int]) -> np.ndarray:
    """Return the union of `instance_masks`: bool[H, W], all False without any."""
    union = np.zeros((size[1], size[0]), dtype=bool)
    for mask in instance_masks(detections, size):
        union |= mask
    return union
