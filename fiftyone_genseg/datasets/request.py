"""Choose the referring examples of a view, for an export or a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo

from fiftyone_genseg import fields, labels
from fiftyone_genseg.messages import sentence

KEPT, FIELD = "kept", "field"  # a form's choice of examples
NO_TRUTH = (
    "There is no ground truth in this view. To make some, open a sample, ask in the panel Ask, and press Keep at the "
    "answers that are right. Or add true masks as a field of Detections."
)


@dataclass(frozen=True)
class ExamplesRequest:
    """A choice of referring examples.

    Attributes:
        gt_field: Detections with the true masks.
        expression_field: sample field of the expressions; None for `kept_expressions` if the true masks are kept
            answers. Else None stands for `expression` if it exists, else for the true Detections' attribute of that
            name.
        pairs: (sample id, expression) of the slice that a panel chose; None for all expressions of a view.
    """

    gt_field: str = fields.GROUND_TRUTH
    expression_field: str | None = None
    pairs: frozenset[tuple[str, str]] | None = None

    @classmethod
    def from_params(cls, samples: fo.Dataset | fo.DatasetView | None, params: Mapping[str, Any]) -> ExamplesRequest:
        """Read a form.

        Args:
            samples: the samples of the form; None for no dataset.
            params: the form's values by name. `examples` is "kept" or "field". Without it, a given field of true masks
                or expressions is meant. Else kept answers are meant, else the first field of true masks.
        """
        given = {name: params.get(name) or None for name in ("gt_field", "expression_field")}
        source = params.get("examples") or (FIELD if any(given.values()) or not fields.count_kept(samples)[0] else KEPT)
        if source == KEPT:
            given = {"gt_field": fields.KEPT, "expression_field": fields.KEPT_EXPRESSIONS}
        gt_field = given["gt_field"] or next(iter(fields.truth_fields(samples)), cls.gt_field)
        pairs = params.get("pairs")
        chosen = None if pairs is None else frozenset((sample_id, expression) for sample_id, expression in pairs)
        return cls(gt_field, given["expression_field"], chosen)

    def lacks_truth(self, samples: fo.DatasetView) -> bool:
        """Return whether neither this field nor any other holds ground truth."""
        if self.gt_field == fields.KEPT and fields.count_kept(samples)[0]:
            return False
        has_own = labels.is_detections(samples, self.gt_field) and self.gt_field != fields.KEPT
        return not has_own and not fields.truth_fields(samples)

    def problem(self, samples: fo.DatasetView) -> str | None:
        """Return why there can be no such examples, as a sentence; None when there can."""
        if self.lacks_truth(samples):
            return NO_TRUTH
        if self.gt_field == fields.KEPT and not fields.count_kept(self.source(samples))[0]:
            return (
                "Nothing was kept in this view: press Keep at answers in the panel Ask, or choose a ground truth field."
            )
        if not labels.is_detections(samples, self.gt_field):
            return f"The ground truth field {self.gt_field!r} holds no Detections: choose another."
        if self.expression_field and samples.get_field(self.expression_field) is None:
            return f"There is no field {self.expression_field!r}: choose another."
        try:
            fields.check_view(self.source(samples))
            fields.check_named(samples, self.arguments(samples)["expression_field"], self.gt_field)
        except ValueError as error:
            return sentence(error)
        return None

    def source(self, samples: fo.DatasetView) -> fo.Dataset | fo.DatasetView:
        """Return the samples to read: the view, or the whole dataset for a slice.

        A slice names its samples itself.
        """
        return samples if self.pairs is None else fields.every_image(samples._dataset)

    def arguments(self, samples: fo.DatasetView) -> dict[str, Any]:
        """Return the arguments of `export.examples` and `export.export`.

        Raises:
            ValueError: there are no expressions.
        """
        return {
            "view": self.source(samples),
            "gt_field": self.gt_field,
            "expression_field": self.expression_field
            or fields.default_expression_field(samples._dataset, self.gt_field),
            "pairs": self.pairs,
        }
