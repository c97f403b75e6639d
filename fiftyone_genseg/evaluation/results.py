"""Results of a run: the figures over all of its expressions, or some.

The run is of FiftyOne's detection kind, so that FiftyOne's own Model Evaluation panel opens it: instances matched at
mask IoU 0.5 become its true and false positives, and the figures of referring segmentation its custom metrics.
"""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.utils.eval.detection as foud
import numpy as np
from genseg_hub.evaluation.metrics import ReferringMetrics
from genseg_hub.figures import NAMES

from fiftyone_genseg import labels, uris
from fiftyone_genseg.evaluation.slicing import kinds
from fiftyone_genseg.evaluation.table import COSTS, MATCHES, TABLE, overlap, pack, unpack
from fiftyone_genseg.fields import sample_ids

METRICS = ("ciou", "miou", "target_miou", "n_acc", "t_acc", "pr@0.5", "pr@0.7", "pr@0.9", "box_miou")


class ReferringResults(foud.DetectionResults):
    """Results of a run.

    Attributes:
        table: one row per expression, columns as in `table.TABLE`, with `iou` and `kind`.
        matches: one row per pair of instances: gt_id, pred_id ("" for no match), iou, confidence.
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
            rows,
            classes=[labels.LABEL],
            custom_metrics=custom_metrics,
            backend=backend,
        )
        lacking = {name: np.nan for name in COSTS if name not in table}  # of a run of an earlier version
        self.table = table.assign(
            **lacking, iou=ReferringMetrics(config.policy, config.min_pixels).ious(overlap(table))
        )
        self.table["kind"] = kinds.failure_kinds(self.table)

    def figures(self, rows: np.ndarray | slice = slice(None)) -> dict[str, Any]:
        """Return the figures of `ReferringMetrics.compute`.

        Args:
            rows: rows of `table`, as bool[N] or a slice; all of them by default.
        """
        metrics = ReferringMetrics(self.config.policy, self.config.min_pixels)
        metrics.add(overlap(self.table.iloc[rows] if isinstance(rows, slice) else self.table[rows]))
        return metrics.compute()

    def describe(self) -> str:
        """Return the main figures as one sentence."""
        figures = self.figures()
        known = [
            f"{NAMES[name]} {figures[name]:.3f}" for name in ("ciou", "miou", "n_acc") if figures[name] is not None
        ]
        failed = f", {figures['n_failed']} without a usable answer" if figures["n_failed"] else ""
        said = f"{', '.join(known) or 'no figures'} on {figures['n']} expressions (policy {figures['policy']}){failed}"
        counts = self.config.counts or {}
        notes = [
            f"{counts[name]} {name.replace('_', ' ')}, first {why}" for name, why in (self.config.notes or {}).items()
        ]
        return "; ".join([said, *notes])

    def __str__(self) -> str:
        return f"{self.key or 'not recorded'}: {self.describe()}"

    def in_view(self, view: fo.DatasetView | fo.Dataset) -> np.ndarray:
        """Return bool[N]: the rows of `table` whose sample is in a view."""
        return self.table["sample_id"].isin(sample_ids(view)).to_numpy()

    def metrics(self, *args, **kwargs):
        """Return FiftyOne's detection metrics and the figures.

        All of them describe the subset that `use_subset` chose, or else the whole run.
        """
        found = self.figures(self.in_view(self.samples) if self.has_subset else slice(None))
        return super().metrics(*args, **kwargs) | {name: found[name] for name in METRICS}

    def serialize(self, *args, **kwargs):
        """Return the values that FiftyOne stores and exports, ready for JSON."""
        return {
            "cls": self.cls,
            "table": pack(self.table[list(TABLE)]),
            "matches": pack(self.matches),
            "custom_metrics": self.custom_metrics,
        }

    @classmethod
    def _from_dict(cls, d, samples, config, eval_key, **kwargs):
        return cls(
            samples,
            config,
            eval_key,
            unpack(d["table"], TABLE),
            unpack(d["matches"], MATCHES),
            custom_metrics=d.get("custom_metrics"),
            **kwargs,
        )


def custom_metrics(figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return figures as FiftyOne's Model Evaluation panel lists metrics."""
    return {
        f"{uris.PLUGIN}/{name}": {
            "key": name,
            "value": figures[name],
            "label": NAMES[name],
            "lower_is_better": False,
        }
        for name in METRICS
        if figures[name] is not None
    }
