"""Which referring examples of a view are meant, by an export or a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo

from fiftyone_genseg import fields, labels
from fiftyone_genseg.messages import sentence


@dataclass(frozen=True)
class ExamplesRequest:
    """A choice of referring examples.

    Attributes:
        gt_field: Detections with the true masks.
        expression_field: sample field of the expressions; None for `expression` where it exists, else for the true
            Detections' attribute of that name.
        pairs: (sample id, expression) of the slice that a panel chose; None for all expressions of a view.
    """

    gt_field: str = fields.GROUND_TRUTH
    expression_field: str | None = None
    pairs: frozenset[tuple[str, str]] | None = None

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> ExamplesRequest:
        """Read a form; missing and empty values mean the defaults."""
        pairs = params.get("pairs")
        return cls(
            params.get("gt_field") or cls.gt_field,
            params.get("expression_field") or cls.expression_field,
            None if pairs is None else frozenset((sample_id, expression) for sample_id, expression in pairs),
        )

    def problem(self, samples: fo.DatasetView) -> str | None:
        """Return why there can be no such examples, as a sentence; None when there can."""
        if not labels.is_detections(samples, self.gt_field):
            return f"The ground truth field {self.gt_field!r} holds no Detections."
        if self.expression_field and samples.get_field(self.expression_field) is None:
            return f"There is no field {self.expression_field!r}."
        try:
            fields.check_view(self.source(samples))
            fields.check_named(samples, self.arguments(samples)["expression_field"], self.gt_field)
        except ValueError as error:
            return sentence(error)
        return None

    def source(self, samples: fo.DatasetView) -> fo.Dataset | fo.DatasetView:
        """Return the samples to read: the view, or the whole dataset where a slice says which samples are meant."""
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
