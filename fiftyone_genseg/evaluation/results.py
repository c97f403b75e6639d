"""Referring segmentation as a FiftyOne evaluation run: listed, loaded, renamed and deleted like any other.

The run is of FiftyOne's detection kind, so that its own Model Evaluation panel opens it: instances
matched at mask IoU 0.5 become its true and false positives, and the figures of referring
segmentation its custom metrics. What the project's own panels need is `ReferringResults.table`.

Classes of a run are stored by their import path and must stay importable as `fiftyone_genseg.evaluation`.
"""

from __future__ import annotations

import io
from typing import Any

import fiftyone as fo
import fiftyone.utils.eval.detection as foud
import numpy as np
import pandas as pd
from genseg_hub.evaluation.metrics import NAMES, Overlap, ReferringMetrics

from fiftyone_genseg import labels
from fiftyone_genseg.evaluation.slicing import kinds

METRICS = ("ciou", "miou", "target_miou", "n_acc", "t_acc", "pr@0.5", "pr@0.7", "pr@0.9", "box_miou")
# One row per expression. Positions are shares of the image; -1 distractors means unknown.
TABLE = {
    "sample_id": "str",
    "image": "int32",
    "expression": "str",
    "status": "category",
    "intersection": "int64",
    "target_area": "int64",
    "prediction_area": "int64",
    "image_area": "int64",
    "box_iou": "float32",
    "n_true": "int32",
    "n_predicted": "int32",
    "n_missed": "int32",
    "n_extra": "int32",
    "target_x": "float32",
    "target_y": "float32",
    "distractors": "int32",
}
MATCHES = {"gt_id": "str", "pred_id": "str", "iou": "float32", "confidence": "float32"}


class ReferringResults(foud.DetectionResults):
    """What a run found.

    Attributes:
        table: one row per expression, columns as in `TABLE` plus `iou` and `kind`.
        matches: one row per pair of instances: gt_id, pred_id ("" for none), iou, confidence.
    """

    __module__ = "fiftyone_genseg.evaluation"  # the path that FiftyOne stores

    def __init__(self, samples, config, eval_key, table, matches, custom_metrics=None, backend=None):
        self.matches = matches
        rows = [
            (labels.LABEL if gt else None, labels.LABEL if pred else None, iou, confidence, gt or None, pred or None)
            for gt, pred, iou, confidence in zip(
                matches["gt_id"],
                matches["pred_id"],
                matches["iou"].tolist(),
                matches["confidence"].astype(object).where(matches["confidence"].notna(), None),
                strict=True,
            )
        ]
        super().__init__(
            samples,
            config,
            eval_key,
            list(rows),
            classes=[labels.LABEL],
            custom_metrics=custom_metrics,
            backend=backend,
        )
        self.table = table.assign(iou=ReferringMetrics(config.policy, config.min_pixels).ious(overlap(table)))
        self.table["kind"] = kinds.failure_kinds(self.table)

    def figures(self, rows: np.ndarray | slice = slice(None)) -> dict[str, Any]:
        """`ReferringMetrics.compute` over all expressions or the rows of `table` that are given."""
        metrics = ReferringMetrics(self.config.policy, self.config.min_pixels)
        metrics.add(overlap(self.table.iloc[rows] if isinstance(rows, slice) else self.table[rows]))
        return metrics.compute()

    def in_view(self, view: fo.DatasetView | fo.Dataset) -> np.ndarray:
        """bool[N]: the rows of `table` whose sample is in a view."""
        ids = view.values("sample_id" if view._is_patches else "id")
        return self.table["sample_id"].isin(ids).to_numpy()

    def metrics(self, *args, **kwargs):
        """FiftyOne's detection metrics of the matched instances, then the figures of referring
        segmentation, all of the subset that `use_subset` chose."""
        found = self.figures(self.in_view(self.samples) if self.has_subset else slice(None))
        return super().metrics(*args, **kwargs) | {name: found[name] for name in METRICS}

    def serialize(self, *args, **kwargs):
        return {
            "cls": self.cls,
            "table": _pack(self.table[list(TABLE)]),
            "matches": _pack(self.matches),
            "custom_metrics": self.custom_metrics,
        }

    @classmethod
    def _from_dict(cls, d, samples, config, eval_key, **kwargs):
        return cls(
            samples,
            config,
            eval_key,
            _unpack(d["table"], TABLE),
            _unpack(d["matches"], MATCHES),
            custom_metrics=d.get("custom_metrics"),
            **kwargs,
        )


def overlap(table: pd.DataFrame) -> Overlap:
    """The columns that the metrics need."""
    unread = (table["status"] == labels.UNPARSABLE) & (table["prediction_area"] == 0)
    answered = ~(unread | table["status"].isin([labels.FAILED, kinds.MISSING]))
    columns = {name: table[name].to_numpy() for name in Overlap._fields if name != "answered"}
    return Overlap(**columns, answered=answered.to_numpy())


_IDS = ("sample_id", "gt_id", "pred_id")


def _pack(frame: pd.DataFrame) -> bytes:
    """Parquet, with object ids as 12 bytes."""
    frame = frame.copy()
    for name in frame.columns.intersection(_IDS):
        frame[name] = [bytes.fromhex(value) for value in frame[name]]
    buffer = io.BytesIO()
    plain = [name for name in frame.columns if name in _IDS or pd.api.types.is_float_dtype(frame[name])]
    frame.to_parquet(
        buffer,
        index=False,
        compression="zstd",
        compression_level=9,
        use_dictionary=[name for name in frame.columns if name not in plain],
    )
    return buffer.getvalue()


def _unpack(data: bytes, columns: dict[str, str]) -> pd.DataFrame:
    frame = pd.read_parquet(io.BytesIO(data))
    for name in frame.columns.intersection(_IDS):
        frame[name] = [value.hex() for value in frame[name]]
    return frame.astype({name: kind for name, kind in columns.items() if name in frame})


def custom_metrics(figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures in the form in which FiftyOne's panel lists metrics."""
    return {
        f"@fiftyone-genseg/genseg/{name}": {
            "key": name,
            "value": figures[name],
            "label": NAMES[name],
            "lower_is_better": False,
        }
        for name in METRICS
        if figures[name] is not None
    }
