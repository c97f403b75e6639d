"""Evaluating the masks of expressions: from the labels of a dataset to the results of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import numpy as np
import pandas as pd
from bson import ObjectId
from genseg_hub.evaluation.metrics import DEFAULT_POLICY, enclosing_box
from pymongo import UpdateOne

from fiftyone_genseg import fields, labels
from fiftyone_genseg.evaluation import checks, matching
from fiftyone_genseg.evaluation.config import SAMPLE_FIELDS, ReferringEvaluationConfig
from fiftyone_genseg.evaluation.reading import Reader
from fiftyone_genseg.evaluation.results import MATCHES, TABLE, ReferringResults, custom_metrics
from fiftyone_genseg.evaluation.slicing import kinds
from fiftyone_genseg.fields import holds_several
from fiftyone_genseg.labels import Cutout

_CHUNK = 500
# side -> (sample id, label id) -> verdict, counterpart, IoU
_Verdicts = dict[str, dict[tuple[str, str], tuple[str, str, float]]]


def evaluate(
    samples: fo.Dataset | fo.DatasetView,
    pred_field: str = "genseg",
    gt_field: str = "ground_truth",
    eval_key: str | None = None,
    policy: str = DEFAULT_POLICY,
    min_pixels: int = 0,
    expression_field: str | None = None,
    objects_field: str | None = None,
    ignore_field: str | None = None,
    progress: bool | None = None,
) -> ReferringResults:
    """Evaluate predicted masks of expressions against the true ones.

    Two shapes of data are understood: one sample per image and expression (`expression_field` is a
    string field), and several expressions per sample (a list of strings, or, with no such field,
    the attribute `expression` of the ground truth, a string or a list of strings). In the second
    shape a mask belongs to the expressions that its attribute names, or, where no mask of the sample
    names any, to all of them. Only a field of expressions can tell a no-target expression from one
    that nobody annotated.

    Args:
        samples: images; a view restricts the run to its samples.
        pred_field: Detections with masks. The field `<pred_field>_responses`, which "Referring
            segment" writes, tells a no-target answer from an unreadable or missing one; without it
            an existing empty field is a no-target answer.
        gt_field: Detections with masks; without any, the expression has no target.
        eval_key: name of the run; an earlier run of that name is replaced. None records nothing.
        policy, min_pixels: see `genseg_hub.metrics`.
        expression_field: by default `expression` where that exists.
        objects_field: Detections of every object in the image, labelled with its class, for the
            attribute "same_class_distractors".
        ignore_field: Detections of the pixels that are taken out of prediction and ground truth, as LISA does for
            ReasonSeg; by default the field `ignore` where there is one, "" for none.
        progress: whether to show a bar; None for FiftyOne's default.

    Returns:
        The results. With an `eval_key` each sample has `<key>_mask_iou`, `<key>_box_iou` (means over
        its expressions), `<key>_no_target_correct` and `<key>_failure` (a kind, or a list of them).

    Raises:
        ValueError: for fields that are missing or of another kind, before anything is written.
    """
    runner = Runner(
        samples, pred_field, gt_field, eval_key, policy, min_pixels, expression_field, objects_field, ignore_field
    )
    with fo.core.utils.ProgressBar(total=runner.total, progress=progress) as bar:
        for done in runner.run():
            bar.set_iteration(done)
    assert runner.results is not None
    return runner.results


@dataclass
class _Rows:
    """Columns under construction."""

    table: dict[str, list] = field(default_factory=lambda: {name: [] for name in TABLE})
    matches: dict[str, list] = field(default_factory=lambda: {name: [] for name in MATCHES})


class Runner:
    """One evaluation, step by step, so that an operator can show its progress.

    Attributes:
        total: samples. results: set when `run` is exhausted.
    """

    def __init__(
        self,
        samples,
        pred_field,
        gt_field,
        eval_key=None,
        policy=DEFAULT_POLICY,
        min_pixels=0,
        expression_field=None,
        objects_field=None,
        ignore_field=None,
    ):
        if ignore_field is None:
            ignore_field = fields.default_ignore_field(samples)
        ignore_field = ignore_field or None
        checks.check(samples, pred_field, gt_field, eval_key, expression_field, objects_field, ignore_field)
        if expression_field is None:
            expression_field = fields.default_expression_field(samples, gt_field)
        self.samples, self.eval_key = samples, eval_key
        self.config = ReferringEvaluationConfig(
            pred_field, gt_field, policy, min_pixels, expression_field, objects_field, ignore_field
        )
        self.counts: Counter[str] = Counter()
        self.results: ReferringResults | None = None
        self.total = len(samples)
        self._rows = _Rows()
        self._images: dict[str, int] = {}

    def run(self) -> Iterator[int]:
        """Yields the number of samples done. Everything is measured before anything is written: what
        goes wrong there leaves an earlier run of the same key alone.

        Raises:
            ValueError: when there are detections without masks, before anything is written.
        """
        for name in filter(None, (self.config.gt_field, self.config.pred_field, self.config.ignore_field)):
            checks.check_masks(self.samples, name)
            undeclared = self.samples._dataset.get_dynamic_field_schema(fields=name) if self.eval_key else {}
            if f"{name}.detections.{self.eval_key}" in undeclared:
                raise ValueError(f"detections in {name!r} have an attribute {self.eval_key!r}; choose another key")
        without = self.samples.exists("metadata.width", False)
        if len(without):
            without.compute_metadata(skip_failures=True, progress=False)
        ids = list(dict.fromkeys(self.samples.values("id")))
        chunks = [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]
        verdicts = []
        for number, chunk in enumerate(chunks, 1):
            verdicts.append(self._measure(chunk))
            yield number * self.total // (2 * len(chunks))
        table = pd.DataFrame(self._rows.table).astype(TABLE)
        matches = pd.DataFrame(self._rows.matches).astype(MATCHES)
        self.config.counts = dict(self.counts)
        method = self.config.build()
        results = ReferringResults(self.samples, self.config, self.eval_key, table, matches, backend=method)
        results.custom_metrics = custom_metrics(results.figures())
        self.results = results
        if self.eval_key is None:
            yield self.total
            return
        if self.eval_key in self.samples.list_evaluations():
            self.samples._dataset.delete_evaluation(self.eval_key)
        method.register_run(self.samples, self.eval_key)
        method.register_samples(self.samples, self.eval_key)
        rows = results.table.groupby("sample_id", sort=False).indices
        columns = {name: results.table[name].to_numpy() for name in ("iou", "box_iou", "target_area", "kind")}
        for number, (chunk, verdict) in enumerate(zip(chunks, verdicts, strict=True), 1):
            self._write(chunk, verdict, rows, columns)
            yield (len(chunks) + number) * self.total // (2 * len(chunks))
        method.save_run_results(self.samples, self.eval_key, results)
        method.add_fields_to_sidebar_group(self.samples, self.eval_key)

    def _measure(self, ids: list[str]) -> _Verdicts:
        """Add the rows of some samples, and tell what became of each of their labels."""
        # A view that filters labels is read as it is; any other is only a choice of samples.
        filtered = isinstance(self.samples, fo.DatasetView) and self.samples._get_filtered_fields()
        source = self.samples if filtered else self.samples._dataset
        view, config = source.select(ids, ordered=True), self.config
        reader = Reader(
            view,
            config.gt_field,
            config.pred_field,
            config.expression_field,
            config.objects_field,
            config.ignore_field,
        )
        verdicts: _Verdicts = {"gt": {}, "pred": {}}
        for number in range(len(reader.ids)):
            self._sample(reader, number, verdicts)
        return verdicts

    def _write(
        self, ids: list[str], verdicts: _Verdicts, rows: dict[str, np.ndarray], columns: dict[str, np.ndarray]
    ) -> None:
        """Store on samples and labels what was found; `rows` are the places of a sample's expressions in `columns`.

        `set_values` would send each of the fields by itself, and the database write the whole document, masks and all,
        once for each of them: this sends what belongs together at once.
        """
        key, now = self.eval_key, datetime.now(UTC).replace(tzinfo=None)
        fields = {"gt": f"{self.config.gt_field}.detections", "pred": f"{self.config.pred_field}.detections"}
        several = holds_several(self.samples, self.config.expression_field)
        view = self.samples._dataset.select(ids, ordered=True)
        writes = []
        read = view.values(["id", *(f"{path}.id" for path in fields.values())])
        for sample_id, *label_ids in zip(*read, strict=True):
            at = rows.get(sample_id)
            values: tuple[Any, ...] = (None,) * len(SAMPLE_FIELDS)
            if at is not None:
                values = _sample_values({name: column[at] for name, column in columns.items()}, several)
            said: Counter[tuple[str, str | None]] = Counter()
            for (side, path), of in zip(fields.items(), label_ids, strict=True):
                for label_id in of or ():
                    found = verdicts[side].get((sample_id, label_id), (None, None, None))
                    said[side, found[0]] += 1
                    where = {"_id": ObjectId(sample_id), f"{path}._id": ObjectId(label_id)}
                    names = (f"{path}.$.{key}{suffix}" for suffix in ("", "_id", "_iou"))
                    writes.append(UpdateOne(where, {"$set": dict(zip(names, found, strict=True))}))
            sample: dict[str, Any] = dict(zip(SAMPLE_FIELDS, values, strict=True))
            sample |= {"tp": said["pred", "tp"], "fp": said["pred", "fp"], "fn": said["gt", "fn"]}
            changed = {f"{key}_{name}": value for name, value in sample.items()} | {"last_modified_at": now}
            writes.append(UpdateOne({"_id": ObjectId(sample_id)}, {"$set": changed}))
        self.samples._dataset._bulk_write(writes, ids=[ObjectId(sample_id) for sample_id in ids])

    def _sample(self, reader: Reader, number: int, verdicts: _Verdicts) -> None:
        truth, guess = reader.gt[number], reader.pred[number]
        unreadable = truth.load_masks() | guess.load_masks()
        self.counts["unreadable_masks"] += len(unreadable)
        expressions = reader.expressions(number)
        self.counts["not_annotated"] += len(reader.asked(number) - set(expressions)) if reader.several else 0
        image = self._images.setdefault(reader.filepaths[number], len(self._images))
        for expression in expressions:
            mine = truth.of(expression) if reader.several else truth.ids
            its = guess.of(expression)
            row: dict[str, Any] = dict.fromkeys(TABLE, 0)
            row |= {"sample_id": reader.ids[number], "image": image, "expression": expression, "distractors": -1}
            try:
                if not unreadable.isdisjoint([*mine, *its]):
                    raise OSError("a mask cannot be read")
                measured, matches = self._expression(reader, number, expression, mine, its)
            except Exception:  # noqa: BLE001 - one bad sample is recorded on itself, whatever is wrong with it
                self.counts["failed_expressions"] += 1
                # Its targets could not be measured; that there are some is known.
                measured = {"status": labels.FAILED, "n_true": len(mine), "n_missed": len(mine)}
                measured["target_area"] = int(bool(mine))
                width, height = reader.size(number) or (0, 0)
                measured["image_area"] = width * height
                matches = []
            for name, value in (row | measured).items():
                self._rows.table[name].append(value)
            for gt_id, pred_id, iou in matches:
                confidence = guess.confidence.get(pred_id)
                for name, value in zip(MATCHES, (gt_id, pred_id, iou, confidence), strict=True):
                    self._rows.matches[name].append(value)
                # One object may belong to several expressions: found by one of them is found.
                for side, wrong, label_id, other in (("gt", "fn", gt_id, pred_id), ("pred", "fp", pred_id, gt_id)):
                    at = reader.ids[number], label_id
                    if label_id and verdicts[side].get(at, (wrong,))[0] == wrong:
                        verdicts[side][at] = ("tp" if other else wrong, other, iou)

    def _expression(
        self, reader: Reader, number: int, expression: str, mine: list[str], its: list[str]
    ) -> tuple[dict[str, Any], list[tuple[str, str, float]]]:
        """One expression's row, and its (true id, predicted id, IoU) with "" for no counterpart."""
        truth, guess = reader.gt[number], reader.pred[number]
        size = reader.size(number) or truth.image_size() or guess.image_size() or (0, 0)
        targets, resized = truth.cutouts(mine, size)
        found, resized_too = guess.cutouts(its, size)
        self.counts["resized_masks"] += resized + resized_too
        status = reader.status(number, expression, bool(found))
        targets, found = (self._counted(reader, number, masks, size) for masks in (targets, found))
        if status == labels.FAILED:  # masks that an earlier run left do not count
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

    def _counted(
        self, reader: Reader, number: int, masks: dict[str, Cutout], size: tuple[int, int]
    ) -> dict[str, Cutout]:
        """Masks by id without the pixels that count neither way; those of which nothing is left are gone."""
        if reader.ignored is None:
            return masks
        stored = reader.ignored[number]
        if stored.load_masks():
            raise OSError("a mask of ignored pixels cannot be read")
        ignored, _ = stored.cutouts(stored.ids, size)
        left = {i: matching.without(mask, list(ignored.values())) for i, mask in masks.items()}
        return {i: mask for i, mask in left.items() if mask is not None}


def _sample_values(
    rows: dict[str, np.ndarray], several: bool
) -> tuple[float, float | None, bool | None, str | list[str]]:
    """Values of `SAMPLE_FIELDS` by the rows of one sample."""
    targets = rows["target_area"] > 0
    box_iou = float(rows["box_iou"][targets].mean()) if targets.any() else None
    correct = None if targets.all() else bool((rows["kind"][~targets] == kinds.CORRECT).all())
    of = rows["kind"].tolist()
    return float(rows["iou"].mean()), box_iou, correct, of if several else of[0]
