"""Measure the masks of expressions against the true masks.

Labels go in, tables come out, and nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import fiftyone as fo
import pandas as pd
from genseg_hub.errors import MaskError
from genseg_hub.evaluation.metrics import enclosing_box

from fiftyone_genseg.cutouts import Cutout
from fiftyone_genseg.evaluation import matching
from fiftyone_genseg.evaluation.config import ReferringEvaluationConfig
from fiftyone_genseg.evaluation.reading import Reader
from fiftyone_genseg.evaluation.table import MATCHES, TABLE
from fiftyone_genseg.fields import every_image, only_chooses
from fiftyone_genseg.statuses import FAILED

CHUNK = 500  # samples read, or written, at once
# Names of counts. An expression with a bad true mask is left out, one with a bad predicted mask has failed.
UNREADABLE_TRUE, UNREADABLE_PREDICTED = "unreadable_true_masks", "unreadable_predicted_masks"
LEFT_OUT, FAILED_ONES = "left_out_expressions", "failed_expressions"


@dataclass(frozen=True)
class Verdict:
    """Verdict on one label.

    Attributes:
        eval: "tp", "fp" or "fn", as FiftyOne names them.
        match: id of the label's match on the other side; "" for no match.
        iou: mask IoU of the two, 0 for no match.
    """

    eval: str
    match: str
    iou: float


# side ("gt" or "pred") -> (sample id, label id) -> verdict
Verdicts = dict[str, dict[tuple[str, str], Verdict]]


@dataclass(frozen=True, eq=False)
class Measured:
    """Result of an evaluation.

    Attributes:
        samples: the collection that was measured.
        ids: ids of its samples.
        config: settings, with `counts` of oddities.
        table: one row per expression, columns as in `table.TABLE`.
        matches: one row per pair of instances, columns as in `table.MATCHES`.
        verdicts: the verdict on each label.
    """

    samples: fo.Dataset | fo.DatasetView
    ids: list[str]
    config: ReferringEvaluationConfig
    table: pd.DataFrame
    matches: pd.DataFrame
    verdicts: Verdicts


def measure(
    samples: fo.Dataset | fo.DatasetView, config: ReferringEvaluationConfig
) -> Generator[float, None, Measured]:
    """Measure every expression of some samples.

    Args:
        samples: images; a view that hides or changes labels is measured as it shows them. An expression whose true
            masks are all hidden is left out and counted.
        config: see `EvaluationRequest.config`.

    Yields:
        The share of the samples that is done, in (0, 1].

    Returns:
        The tables; nothing is written.

    Raises:
        ValueError: a detection has no mask, or no expression has a ground truth that can be read. A detection without a
            mask ends the work as soon as it is read. The view changes labels and shows a sample twice, or shows other
            samples each time.
    """
    measurement = _Measurement(config)
    shown = samples.values("id")
    ids = list(dict.fromkeys(shown))
    stored, chooses = every_image(samples._dataset), only_chooses(samples)
    if not chooses and len(ids) < len(shown):
        raise ValueError("the view shows a sample twice, and its labels may differ: choose a view that shows each once")
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        own = stored.select(chunk, ordered=True)
        reader = Reader(own, config) if chooses else Reader(samples.select(chunk, ordered=True), config, own)
        if reader.ids != chunk:
            raise ValueError(
                "the view shows other samples each time that it is read: take its samples as a view of their own, "
                'dataset.select(view.values("id"))'
            )
        measurement.add(reader)
        yield min(1.0, (start + CHUNK) / len(ids))
    return measurement.finish(samples, ids)


@dataclass
class _Measurement:
    """Tables under construction."""

    config: ReferringEvaluationConfig
    counts: Counter[str] = field(default_factory=Counter)
    notes: dict[str, str] = field(default_factory=dict)  # name of a count -> its first reason
    rows: list[dict[str, Any]] = field(default_factory=list)
    matches: list[dict[str, Any]] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)  # file -> number
    verdicts: Verdicts = field(default_factory=lambda: {"gt": {}, "pred": {}})

    def finish(self, samples: fo.Dataset | fo.DatasetView, ids: list[str]) -> Measured:
        self.config.counts, self.config.notes = dict(self.counts), self.notes
        if self.counts[LEFT_OUT] and not self.rows:
            raise ValueError(f"none of the {self.counts[LEFT_OUT]} expressions can be measured: {self.notes[LEFT_OUT]}")
        table = pd.DataFrame(self.rows, columns=list(TABLE)).astype(TABLE)
        matches = pd.DataFrame(self.matches, columns=list(MATCHES)).astype(MATCHES)
        return Measured(samples, ids, self.config, table, matches, self.verdicts)

    def add(self, reader: Reader) -> None:
        reader.check_masks()
        for number in range(len(reader.ids)):
            self._add_sample(reader, number)

    def _add_sample(self, reader: Reader, number: int) -> None:
        truth, guess = reader.gt[number], reader.pred[number]
        self.counts[UNREADABLE_TRUE] += len(truth.load_masks())
        self.counts[UNREADABLE_PREDICTED] += len(guess.load_masks())
        expressions = reader.expressions(number)
        self.counts["not_annotated"] += len(reader.asked(number) - set(expressions)) if reader.several else 0
        image = self.images.setdefault(reader.filepaths[number], len(self.images))
        size = reader.size(number) or truth.image_size() or guess.image_size() or (0, 0)
        for expression in expressions:
            row: dict[str, Any] = dict.fromkeys(TABLE, 0)
            row |= {"sample_id": reader.ids[number], "image": image, "expression": expression, "distractors": -1}
            row |= reader.costs(number, expression)
            try:
                targets, ignored = self._targets(reader, number, expression, size)
            except Exception as error:  # noqa: BLE001 - one bad sample is recorded on itself, whatever is wrong with it
                self._note(LEFT_OUT, f"the ground truth of {expression!r} on sample {reader.ids[number]}: {error}")
                continue
            try:
                measured, matches = self._measure(reader, number, expression, targets, ignored, size)
            except Exception as error:  # noqa: BLE001 - as above
                self._note(FAILED_ONES, f"the prediction of {expression!r} on sample {reader.ids[number]}: {error}")
                measured, matches = _failed(size, targets)
            self.rows.append(row | measured)
            for gt_id, pred_id, iou in matches:
                confidence = guess.confidence.get(pred_id)
                self.matches.append({"gt_id": gt_id, "pred_id": pred_id, "iou": iou, "confidence": confidence})
                self._judge("gt", "fn", reader.ids[number], gt_id, pred_id, iou)
                self._judge("pred", "fp", reader.ids[number], pred_id, gt_id, iou)

    def _note(self, name: str, reason: str) -> None:
        """Count an oddity, and keep its first reason."""
        self.counts[name] += 1
        self.notes.setdefault(name, reason)

    def _judge(self, side: str, wrong: str, sample_id: str, label_id: str, match: str, iou: float) -> None:
        """Set a label's verdict.

        A label may belong to several expressions: one match is enough to be found.
        """
        known = self.verdicts[side].get((sample_id, label_id))
        if label_id and (known is None or known.eval == wrong):
            self.verdicts[side][sample_id, label_id] = Verdict("tp" if match else wrong, match, iou)

    def _targets(
        self, reader: Reader, number: int, expression: str, size: tuple[int, int]
    ) -> tuple[dict[str, Cutout], list[Cutout]]:
        """Return an expression's true masks by id, and the pixels that were ignored.

        The masks do not contain the ignored pixels.

        Raises:
            MaskError: the ground truth cannot be used, which is no fault of the prediction.
        """
        ids = reader.true_ids(number, expression)
        found, resized = reader.gt[number].cutouts(ids, size)
        if ids and not found:
            raise MaskError("its masks are empty or lie outside the image")
        self.counts["resized_masks"] += resized
        ignored: dict[str, Cutout] = {}
        if reader.ignored is not None:
            stored = reader.ignored[number]
            ignored, _ = stored.cutouts(stored.ids, size)
        return _without(found, list(ignored.values())), list(ignored.values())

    def _measure(
        self,
        reader: Reader,
        number: int,
        expression: str,
        targets: dict[str, Cutout],
        ignored: list[Cutout],
        size: tuple[int, int],
    ) -> tuple[dict[str, Any], list[tuple[str, str, float]]]:
        """Return one expression's row, and its matches.

        A match is (true id, predicted id, IoU), with "" for no match.
        """
        guess = reader.pred[number]
        found, resized = guess.cutouts(guess.of(expression), size)
        self.counts["resized_masks"] += resized
        status = reader.status(number, expression, bool(found))
        found = _without(found, ignored)
        if status == FAILED:  # masks that an earlier run left do not count
            found = {}
        target_ids, found_ids = list(targets), list(found)
        boxes = [guess.box(i, size) for i in found_ids]
        result = matching.compare(list(targets.values()), list(found.values()), boxes)
        if 0 < result.prediction_area < self.config.min_pixels:
            found_ids = []
            result = matching.compare(list(targets.values()), [])
        box = enclosing_box(mask.box for mask in targets.values()) if targets else (0.0, 0.0, 0.0, 0.0)
        row = {
            "status": status,
            "intersection": result.intersection,
            "target_area": result.target_area,
            "prediction_area": result.prediction_area,
            "image_area": size[0] * size[1],
            "box_iou": result.box_iou,
            "n_true": len(target_ids),
            "n_predicted": len(found_ids),
            "n_missed": result.n_missed,
            "n_extra": result.n_extra,
            "target_x": (box[0] + box[2]) / 2 / max(1, size[0]),
            "target_y": (box[1] + box[3]) / 2 / max(1, size[1]),
            "distractors": reader.distractors(number, target_ids),
        }
        return row, [
            (target_ids[t] if t is not None else "", found_ids[p] if p is not None else "", iou)
            for t, p, iou in result.pairs
        ]


def _failed(size: tuple[int, int], targets: dict[str, Cutout]) -> tuple[dict[str, Any], list[tuple[str, str, float]]]:
    """Return the row of an unmeasurable expression, and its true masks, unmatched."""
    result = matching.compare(list(targets.values()), [])
    row = {
        "status": FAILED,
        "n_true": len(targets),
        "n_missed": result.n_missed,
        "target_area": result.target_area,
        "image_area": size[0] * size[1],
    }
    return row, [(target_id, "", 0.0) for target_id in targets]


def _without(masks: dict[str, Cutout], ignored: list[Cutout]) -> dict[str, Cutout]:
    """Return masks by id without the pixels that count neither way.

    Masks of which nothing is left are dropped.
    """
    left = {i: matching.without(mask, ignored) for i, mask in masks.items()}
    return {i: mask for i, mask in left.items() if mask is not None}
