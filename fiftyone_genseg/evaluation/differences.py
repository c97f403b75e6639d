"""Find where two fields answer differently: on one sample, or among many."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
from bson import ObjectId
from genseg_hub.errors import MaskError
from genseg_hub.schema import normalize_expression

from fiftyone_genseg import labels
from fiftyone_genseg.cards import Card, cards
from fiftyone_genseg.cutouts import Cutout, cutout, stored_mask
from fiftyone_genseg.evaluation.matching import compare
from fiftyone_genseg.fields import EXPRESSION, GROUND_TRUTH, every_image, expressions_of
from fiftyone_genseg.sizes import size_of
from fiftyone_genseg.statuses import SEGMENTED, in_words
from fiftyone_genseg.stored_labels import read_labels

THRESHOLDS = (0.9, 0.75, 0.5)  # mask IoUs below which two answers differ; the first is the default
SECONDS = 5.0  # of one search
_BATCH = 100  # samples read at once


@dataclass(frozen=True)
class Pair:
    """The answers of two fields to one expression of a sample.

    Attributes:
        expression: the expression that was asked, normalized.
        first: the answer of the first field; None if the field was not asked.
        second: the answer of the second field; None if the field was not asked.
        iou: mask IoU of the unions of the instances; None unless both fields have masks.
        problem: why the masks cannot be compared; "" for no problem.
    """

    expression: str
    first: Card | None
    second: Card | None
    iou: float | None = None
    problem: str = ""

    def differs(self, threshold: float) -> bool:
        """Return whether the outcomes differ, or the mask IoU is below a threshold.

        Answers that only one field has tell nothing about a difference. Masks that cannot be compared count as
        different, because a search must not pass them over in silence.
        """
        if self.first is None or self.second is None:
            return False
        if self.first.outcome != self.second.outcome or self.problem:
            return True
        return self.iou is not None and self.iou < threshold


@dataclass(frozen=True)
class Found:
    """The end of a search.

    Attributes:
        sample_id: id of the first sample on which the fields differ; None for no such sample.
        searched: number of samples that were compared, the found one included.
    """

    sample_id: str | None
    searched: int


def answer_fields(dataset: fo.Dataset) -> list[str]:
    """Return the fields of masks that have responses, the oldest field first."""
    names = dataset.get_field_schema(embedded_doc_type=fo.Detections)
    return [name for name in names if dataset.get_field(f"{labels.responses_field(name)}.status") is not None]


def pairs(sample: fo.Sample, first: str, second: str) -> list[Pair]:
    """Return the answers of two fields to each expression that either field was asked.

    Args:
        sample: has both fields and their responses.
        first: field of masks.
        second: another field of masks.
    """
    of_first, of_second = _by_expression(sample, first), _by_expression(sample, second)
    found = []
    for expression in of_first | of_second:
        a, b = of_first.get(expression), of_second.get(expression)
        iou, problem = None, ""
        if a and b and a.outcome == b.outcome == in_words(SEGMENTED):
            try:
                iou = mask_iou(sample, sample[first], sample[second], expression)
            except MaskError as error:
                problem = str(error)
        found.append(Pair(expression, a, b, iou, problem))
    return found


def truth_of(sample: fo.Sample, expression: str) -> fo.Detections | None:
    """Return the true masks of an expression; None if the sample does not tell them.

    Args:
        sample: sample of any dataset.
        expression: normalized.
    """
    truth = sample[GROUND_TRUTH] if sample.has_field(GROUND_TRUTH) else None
    if not isinstance(truth, fo.Detections):
        return None
    value = sample[EXPRESSION] if sample.has_field(EXPRESSION) else None
    known = expressions_of(value, several=not isinstance(value, str))
    if all(labels.expression_of(mask) is None for mask in truth.detections):
        return truth if known == [expression] else None
    named = labels.of_expression(truth, expression)
    return named if named.detections or expression in known else None


def mask_iou(sample: fo.Sample, first: fo.Detections | None, second: fo.Detections | None, expression: str) -> float:
    """Return the IoU of the unions of two sides' masks, 1 if both are empty.

    Raises:
        MaskError: a mask cannot be read, or nothing says how large the image is.
    """
    metadata = sample.metadata
    size = _size(sample.filepath, getattr(metadata, "width", None), getattr(metadata, "height", None))
    return _iou(*(_cutouts(labels.of_expression(side, expression), size) for side in (first, second)))


def search(
    dataset: fo.Dataset, ids: Sequence[str], first: str, second: str, threshold: float, seconds: float = SECONDS
) -> Found:
    """Return the first of some samples on which two fields differ, see `Pair.differs`.

    The search stops after some seconds, so that a large dataset does not block the App. The caller goes on with the
    samples that were not searched. Masks are read only if the outcomes are equal.

    Args:
        dataset: dataset of the samples.
        ids: ids of the samples, in the order of the search.
        first: field of masks.
        second: another field of masks.
        threshold: mask IoU below which two answers differ.
        seconds: seconds after which no further samples are read.
    """
    end = time.monotonic() + seconds
    searched = 0
    while searched < len(ids) and (not searched or time.monotonic() < end):
        batch = ids[searched : searched + _BATCH]
        found = _first_of(dataset, batch, first, second, threshold)
        if found is not None:
            return Found(found, searched + batch.index(found) + 1)
        searched += len(batch)
    return Found(None, searched)


def _first_of(dataset: fo.Dataset, ids: Sequence[str], first: str, second: str, threshold: float) -> str | None:
    """Return the first of a few samples on which two fields differ."""
    names = [labels.responses_field(first), labels.responses_field(second)]
    wanted = {f"{name}.{attribute}": True for name in names for attribute in ("expression", "status")}
    query = {"_id": {"$in": [ObjectId(i) for i in ids]}}
    stored = {str(document["_id"]): document for document in dataset._sample_collection.find(query, wanted)}
    differs, with_masks = None, {}
    for i in ids:
        a, b = (_statuses(stored.get(i, {}), name) for name in names)
        both = [expression for expression in a if expression in b]
        if any(a[expression] != b[expression] for expression in both):
            differs = i
            break
        if segmented := [expression for expression in both if a[expression] == SEGMENTED]:
            with_masks[i] = segmented
    return _first_by_masks(dataset, with_masks, first, second, threshold) or differs


def _first_by_masks(
    dataset: fo.Dataset, expressions: Mapping[str, Sequence[str]], first: str, second: str, threshold: float
) -> str | None:
    """Return the first of a few samples whose masks differ, or cannot be compared.

    Labels are read as columns, because documents take five times as long.

    Args:
        dataset: dataset of the samples.
        expressions: sample -> the expressions that both fields segmented.
        first: field of masks.
        second: another field of masks.
        threshold: mask IoU below which masks differ.
    """
    if not expressions:
        return None
    view = every_image(dataset).select(list(expressions))
    columns = view.values(["id", "filepath", "metadata.width", "metadata.height"])
    sides = read_labels(view, first), read_labels(view, second)
    rows = {i: (image, pair) for i, *image, pair in zip(*columns, zip(*sides, strict=True), strict=True)}
    for i, asked in expressions.items():
        if i not in rows:
            continue
        image, pair = rows[i]
        try:
            size = _size(*image)
            ious = [_iou(*(side.cutouts(side.of(text), size)[0].values() for side in pair)) for text in asked]
        except MaskError:
            return i
        if min(ious) < threshold:
            return i
    return None


def _statuses(stored: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return expression -> status of a sample's stored responses."""
    responses = stored.get(name) or ()
    return {normalize_expression(each.get("expression") or ""): each.get("status") or "" for each in responses}


def _by_expression(sample: fo.Sample, field: str) -> dict[str, Card]:
    return {normalize_expression(card.expression): card for card in cards(sample, field)}


def _size(file: str, width: int | None, height: int | None) -> tuple[int, int]:
    size = size_of(file, width, height)
    if size is None:
        raise MaskError(f"the size of the image {file} is not known, because the file cannot be read; mend its path")
    return size


def _iou(first: Iterable[Cutout], second: Iterable[Cutout]) -> float:
    """Return the IoU of the unions of two sides' masks; 1 if both are empty."""
    measured = compare(list(first), list(second))
    union = measured.target_area + measured.prediction_area - measured.intersection
    return measured.intersection / union if union else 1.0


def _cutouts(found: fo.Detections, size: tuple[int, int]) -> list[Cutout]:
    """Return the non-empty masks, each as pixels of the image."""
    parts = []
    for detection in found.detections:
        stored = stored_mask(detection)
        if stored is None:
            raise MaskError(f"the detection {detection.id} has no mask, only a box; segment or remove it")
        part, _ = cutout(detection.bounding_box, stored, size)
        if part:
            parts.append(part)
    return parts
