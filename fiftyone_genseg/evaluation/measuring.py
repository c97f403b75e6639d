"""Measuring the masks of expressions against the true ones: labels in, tables out. Nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import fiftyone as fo
import pandas as pd
from genseg_hub.evaluation.metrics import enclosing_box

from fiftyone_genseg.evaluation import checks, matching
from fiftyone_genseg.evaluation.config import ReferringEvaluationConfig
from fiftyone_genseg.evaluation.reading import Reader
from fiftyone_genseg.evaluation.table import MATCHES, TABLE
from fiftyone_genseg.labels import Cutout
from fiftyone_genseg.statuses import FAILED

CHUNK = 500  # samples read, or written, at once


@dataclass(frozen=True)
class Verdict:
    """What became of one label.

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
    """What an evaluation measured.

    Attributes:
        samples: the collection that was measured.
        ids: of its samples.
        config: settings, with `counts` of what was odd.
        table: one row per expression, columns as in `table.TABLE`.
        matches: one row per pair of instances, columns as in `table.MATCHES`.
        verdicts: what became of each label.
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
        samples: images; a view that filters labels is measured without the labels that it hides.
        config: see `EvaluationRequest.config`.

    Yields:
        The share of the samples that is done, in (0, 1].

    Returns:
        The tables; nothing is written.

    Raises:
        ValueError: there are detections without masks.
    """
    for name in filter(None, (config.gt_field, config.pred_field, config.ignore_field)):
        checks.check_masks(samples, name)
    measurement = _Measurement(config)
    ids = list(dict.fromkeys(samples.values("id")))
    # A view that filters labels is read as it is. Any other view is only a choice of samples.
    filtered = isinstance(samples, fo.DatasetView) and samples._get_filtered_fields()
    source = samples if filtered else samples._dataset
    for start in range(0, len(ids), CHUNK):
        measurement.add(Reader(source.select(ids[start : start + CHUNK], ordered=True), config))
        yield min(1.0, (start + CHUNK) / len(ids))
    return measurement.finish(samples, ids)


@dataclass
class _Measurement:
    """Tables under construction."""

    config: ReferringEvaluationConfig
    counts: Counter[str] = field(default_factory=Counter)
    rows: list[dict[str, Any]] = field(default_factory=list)
    matches: list[dict[str, Any]] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)  # file -> number
    verdicts: Verdicts = field(default_factory=lambda: {"gt": {}, "pred": {}})

    def finish(self, samples: fo.Dataset | fo.DatasetView, ids: list[str]) -> Measured:
        self.config.counts = dict(self.counts)
        table = pd.DataFrame(self.rows, columns=list(TABLE)).astype(TABLE)
        matches = pd.DataFrame(self.matches, columns=list(MATCHES)).astype(MATCHES)
        return Measured(samples, ids, self.config, table, matches, self.verdicts)

    def add(self, reader: Reader) -> None:
        for number in range(len(reader.ids)):
            self._add_sample(reader, number)

    def _add_sample(self, reader: Reader, number: int) -> None:
        truth, guess = reader.gt[number], reader.pred[number]
        unreadable = truth.load_masks() | guess.load_masks()
        self.counts["unreadable_masks"] += len(unreadable)
        expressions = reader.expressions(number)
        self.counts["not_annotated"] += len(reader.asked(number) - set(expressions)) if reader.several else 0
        image = self.images.setdefault(reader.filepaths[number], len(self.images))
        for expression in expressions:
            mine = truth.of(expression) if reader.several else truth.ids
            its = guess.of(expression)
            row: dict[str, Any] = dict.fromkeys(TABLE, 0)
            row |= {"sample_id": reader.ids[number], "image": image, "expression": expression, "distractors": -1}
            try:
                if not unreadable.isdisjoint([*mine, *its]):
                    raise OSError("a mask cannot be read")
                measured, matches = self._measure(reader, number, expression, mine, its)
            except Exception:  # noqa: BLE001 - one bad sample is recorded on itself, whatever is wrong with it
                self.counts["failed_expressions"] += 1
                measured, matches = _failed(reader, number, len(mine)), []
            self.rows.append(row | measured)
            for gt_id, pred_id, iou in matches:
                confidence = guess.confidence.get(pred_id)
                self.matches.append({"gt_id": gt_id, "pred_id": pred_id, "iou": iou, "confidence": confidence})
                self._judge("gt", "fn", reader.ids[number], gt_id, pred_id, iou)
                self._judge("pred", "fp", reader.ids[number], pred_id, gt_id, iou)

    def _judge(self, side: str, wrong: str, sample_id: str, label_id: str, match: str, iou: float) -> None:
        """Set a label's verdict. A label may belong to several expressions: one match is enough to be found."""
        known = self.verdicts[side].get((sample_id, label_id))
        if label_id and (known is None or known.eval == wrong):
            self.verdicts[side][sample_id, label_id] = Verdict("tp" if match else wrong, match, iou)

    def _measure(
        self, reader: Reader, number: int, expression: str, mine: list[str], its: list[str]
    ) -> tuple[dict[str, Any], list[tuple[str, str, float]]]:
        """Return one expression's row, and (true id, predicted id, IoU) of its matches with "" for no match."""
        truth, guess = reader.gt[number], reader.pred[number]
        size = reader.size(number) or truth.image_size() or guess.image_size() or (0, 0)
        targets, resized = truth.cutouts(mine, size)
        found, resized_too = guess.cutouts(its, size)
        self.counts["resized_masks"] += resized + resized_too
        status = reader.status(number, expression, bool(found))
        targets, found = (_without_ignored(reader, number, masks, size) for masks in (targets, found))
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


def _failed(reader: Reader, number: int, n_true: int) -> dict[str, Any]:
    """Return the row of an expression that cannot be measured; that it has targets is known."""
    width, height = reader.size(number) or (0, 0)
    return {
        "status": FAILED,
        "n_true": n_true,
        "n_missed": n_true,
        "target_area": int(n_true > 0),
        "image_area": width * height,
    }


def _without_ignored(reader: Reader, number: int, masks: dict[str, Cutout], size: tuple[int, int]) -> dict[str, Cutout]:
    """Return masks by id without the pixels that count neither way; a mask of which nothing is left is gone."""
    if reader.ignored is None:
        return masks
    stored = reader.ignored[number]
    if stored.load_masks():
        raise OSError("a mask of ignored pixels cannot be read")
    ignored, _ = stored.cutouts(stored.ids, size)
    left = {i: matching.without(mask, list(ignored.values())) for i, mask in masks.items()}
    return {i: mask for i, mask in left.items() if mask is not None}
