"""Settings of an evaluation run, and the fields that the run owns."""

from __future__ import annotations

import fiftyone.core.fields as fof
import fiftyone.core.odm as foo
import fiftyone.utils.eval.detection as foud
from genseg_hub.evaluation.metrics import DEFAULT_POLICY, get_policy

from fiftyone_genseg import appearance
from fiftyone_genseg.evaluation import matching
from fiftyone_genseg.fields import holds_several
from fiftyone_genseg.labels import is_detections

SAMPLE_FIELDS = ("mask_iou", "box_iou", "no_target_correct", "failure")
_DESCRIPTIONS = {
    "mask_iou": "IoU of the union of the masks, mean over the sample's expressions.",
    "box_iou": "IoU of the box around all instances, mean over the sample's expressions with a target.",
    "no_target_correct": "Whether all expressions without a target got no mask.",
    "failure": "The failure kind of the sample's expression, or of each of its expressions; `correct` for none.",
    "tp": "Number of predicted masks that match a true mask.",
    "fp": "Number of predicted masks without a match.",
    "fn": "Number of true masks without a match.",
}
_LABEL_DESCRIPTIONS = {
    "": "Whether the mask has a match (tp), or not (fp for a prediction, fn for a true mask).",
    "_id": "The label that matches this label.",
    "_iou": "Mask IoU with the label that matches this label.",
}


class ReferringEvaluationConfig(foud.DetectionEvaluationConfig):
    """Settings of a run, stored with it.

    Args:
        pred_field: Detections with the predicted masks.
        gt_field: Detections with the true masks.
        policy: rule for empty masks, see `genseg_hub.evaluation.metrics`.
        min_pixels: predictions of fewer pixels count as empty.
        expression_field: sample field with the expression, or with the list of expressions; None when the true
            Detections name them in an attribute `expression`.
        objects_field: Detections of all objects of the image, for distractors; optional.
        ignore_field: Detections of the pixels that count neither way; optional.
        counts: oddities that the run met, by name; filled by the run.
        notes: name of a count -> the first reason for it; filled by the run.
        fields_written: whether the fields on samples and labels are all written; filled by the run. False means that
            the process was killed: evaluate again.
        iou, classwise, kwargs: arguments of FiftyOne's detection evaluation.

    Raises:
        ValueError: there is no such policy.
    """

    __module__ = "fiftyone_genseg.evaluation"  # the path that FiftyOne stores

    def __init__(
        self,
        pred_field,
        gt_field,
        policy=DEFAULT_POLICY,
        min_pixels=0,
        expression_field=None,
        objects_field=None,
        ignore_field=None,
        counts=None,
        fields_written=True,
        notes=None,
        iou=matching.MATCH_IOU,
        classwise=False,
        **kwargs,
    ):
        super().__init__(pred_field, gt_field, iou=iou, classwise=classwise, **kwargs)
        self.policy = get_policy(policy).name
        self.min_pixels = min_pixels
        self.expression_field = expression_field
        self.objects_field = objects_field
        self.ignore_field = ignore_field
        self.counts = counts
        self.notes = notes
        self.fields_written = fields_written

    @property
    def method(self):
        """Return the name by which FiftyOne lists runs of this kind."""
        return "referring"


class ReferringEvaluation(foud.DetectionEvaluation):
    """A run: its fields, and how they are declared, renamed and removed."""

    __module__ = "fiftyone_genseg.evaluation"  # the path that FiftyOne stores

    def register_samples(self, samples, eval_key, dynamic=True):
        """Declare the fields of a run, with their descriptions."""
        if eval_key is not None:
            iou, box_iou, correct, failure = SAMPLE_FIELDS
            kinds: dict[str, dict] = {name: {"ftype": fof.IntField} for name in ("tp", "fp", "fn")}
            kinds |= {name: {"ftype": fof.FloatField} for name in (iou, box_iou)}
            kinds[correct] = {"ftype": fof.BooleanField}
            kinds[failure] = {"ftype": fof.StringField}
            if holds_several(samples, self.config.expression_field):
                kinds[failure] = {"ftype": fof.ListField, "subfield": fof.StringField}
            wanted = {}
            for name, kind in kinds.items():
                path, words = f"{eval_key}_{name}", f"{eval_key}: {_DESCRIPTIONS[name]}"
                wanted[path] = foo.create_field(path, description=words, **kind)
            for field in (self.config.pred_field, self.config.gt_field):
                for suffix, words in _LABEL_DESCRIPTIONS.items():
                    name, ftype = f"{eval_key}{suffix}", fof.FloatField if suffix == "_iou" else fof.StringField
                    path = f"{field}.detections.{name}"
                    wanted[path] = foo.create_field(name, ftype, description=f"{eval_key}: {words}")
            appearance.declare(samples._dataset, wanted)
            appearance.describe(samples._dataset, {path: str(field.description) for path, field in wanted.items()})
        super().register_samples(samples, eval_key, dynamic=dynamic)

    def get_fields(self, samples, eval_key, include_custom_metrics=True):
        """Return the names of a run's fields.

        Fields of labels that were deleted or renamed are left out.
        """
        fields = [f"{eval_key}_{name}" for name in (*SAMPLE_FIELDS, "tp", "fp", "fn")]
        for name in (self.config.pred_field, self.config.gt_field):
            if is_detections(samples, name):
                fields += [f"{name}.detections.{eval_key}{suffix}" for suffix in ("", "_id", "_iou")]
        return fields

    def cleanup(self, samples, eval_key):
        """Remove the fields of a run."""
        samples._dataset.delete_sample_fields([f"{eval_key}_{name}" for name in SAMPLE_FIELDS], error_level=1)
        super().cleanup(samples, eval_key)
