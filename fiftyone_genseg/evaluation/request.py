"""Request of an evaluation: its defaults, and the checks that refuse it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
from genseg_hub.evaluation.metrics import DEFAULT_POLICY

from fiftyone_genseg import fields, labels
from fiftyone_genseg.evaluation import checks
from fiftyone_genseg.evaluation.config import ReferringEvaluationConfig
from fiftyone_genseg.messages import sentence
from fiftyone_genseg.segmentation.request import SegmentRequest

# Choices of a form that stand for no value; an empty choice would mean the default.
AUTO, NONE = "where the expressions are", " "


@dataclass(frozen=True)
class EvaluationRequest:
    """A request to evaluate predicted masks of expressions against the true ones.

    Attributes:
        pred_field: Detections with masks.
        gt_field: Detections with masks; without any, the expression has no target.
        eval_key: name of the run; None records nothing.
        policy: rule for empty masks, see `genseg_hub.evaluation.metrics`.
        min_pixels: predictions of fewer pixels count as empty.
        expression_field: sample field of the expressions; None for `kept_expressions` if the true masks are kept
            answers. Else None stands for `expression` if it exists, else for the true Detections' attribute of that
            name.
        objects_field: Detections of every object, labelled with its class; None for no such field.
        ignore_field: Detections of the pixels that count neither way; None for `ignore` if it exists, "" for no such
            field.
        overwrite: whether an earlier run of that name is replaced.
    """

    pred_field: str = SegmentRequest.output_field
    gt_field: str = fields.GROUND_TRUTH
    eval_key: str | None = None
    policy: str = DEFAULT_POLICY
    min_pixels: int = 0
    expression_field: str | None = None
    objects_field: str | None = None
    ignore_field: str | None = None
    overwrite: bool = True

    @classmethod
    def from_params(cls, samples: fo.Dataset | fo.DatasetView | None, params: Mapping[str, Any]) -> EvaluationRequest:
        """Read a form.

        Args:
            samples: the samples of the form. Their fields decide the meaning of an untouched form; None for no dataset.
            params: the form's values by name; missing and empty values mean the defaults. A form overwrites an earlier
                run only if it says so.
        """
        given = {name: params[name] for name in cls.__dataclass_fields__ if params.get(name) not in (None, "")}
        if given.get("expression_field") == AUTO:
            del given["expression_field"]
        if given.get("ignore_field") == NONE:
            given["ignore_field"] = ""
        masks, truths = fields.mask_fields(samples), fields.truth_fields(samples)
        answers = [name for name in masks if samples and samples.get_field(labels.responses_field(name)) is not None]
        others = [name for name in masks if name not in (cls.gt_field, fields.KEPT, labels.IGNORE)]
        pred_field = given.setdefault("pred_field", next(iter([*answers, *others]), cls.pred_field))
        rest = [name for name in (cls.gt_field, fields.KEPT, *truths, *masks) if name in masks and name != pred_field]
        given.setdefault("gt_field", rest[0] if rest else cls.gt_field)
        given.setdefault("eval_key", f"eval_{pred_field}")
        given.setdefault("overwrite", False)
        return cls(**given)

    def to_params(self) -> dict[str, Any]:
        """Return the form's values that `from_params` reads as this request."""
        params = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return params | {"ignore_field": NONE if self.ignore_field == "" else self.ignore_field}

    def ignored(self, samples: fo.Dataset | fo.DatasetView | None) -> str | None:
        """Return the field of the ignored pixels, None for no such field."""
        if self.ignore_field is None and samples is not None:
            return fields.default_ignore_field(samples) or None
        return self.ignore_field or None

    def config(self, samples: fo.Dataset | fo.DatasetView) -> ReferringEvaluationConfig:
        """Return the settings of the run, with the fields that the samples have.

        Raises:
            ValueError: for samples, fields or values that cannot be evaluated. Masks are not read.
        """
        if not isinstance(self.min_pixels, int) or self.min_pixels < 0:
            raise ValueError(f"the smallest mask must have 0 pixels or more, not {self.min_pixels}")
        names = (self.expression_field, self.objects_field or None, self.ignored(samples))
        config = ReferringEvaluationConfig(self.pred_field, self.gt_field, self.policy, self.min_pixels, *names)
        checks.check(samples, config, self.eval_key)
        if config.expression_field is None:
            config.expression_field = fields.default_expression_field(samples, self.gt_field)
        return config

    def problem(self, samples: fo.Dataset | fo.DatasetView | None) -> str | None:
        """Return why the request cannot be run, as a sentence; None when it can."""
        if samples is None:
            return "Open a dataset first."
        try:
            self.config(samples)
        except ValueError as error:
            return sentence(error)
        if self.eval_key in samples.list_evaluations() and not self.overwrite:
            return f"There is a run {self.eval_key!r} already: tick overwrite, or choose another key."
        return None
