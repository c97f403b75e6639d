"""Checks before an evaluation: the fields, the expressions and the key of the run."""

from __future__ import annotations

import fiftyone as fo
import fiftyone.core.odm as foo

from fiftyone_genseg import labels
from fiftyone_genseg.evaluation.config import SAMPLE_FIELDS, ReferringEvaluationConfig
from fiftyone_genseg.fields import (
    EXPRESSION,
    check_expression_field,
    check_named,
    check_view,
    default_expression_field,
    flat,
)


def check(samples: fo.Dataset | fo.DatasetView, config: ReferringEvaluationConfig, eval_key: str | None) -> None:
    """Raise ValueError, with the remedy, unless samples can be evaluated.

    Args:
        samples: images; their masks are not read, see `measuring.measure`.
        config: settings of the run.
        eval_key: name of the run; None if nothing is recorded.
    """
    pred_field, gt_field, expression_field = config.pred_field, config.gt_field, config.expression_field
    check_view(samples)
    check_current(samples, config)
    samples = flat(samples)
    if not len(samples):
        raise ValueError("there are no samples to evaluate; clear the filters")
    if pred_field == gt_field:
        # The fields of the run would overwrite each other.
        raise ValueError(
            f"the predictions and the ground truth are the same field {gt_field!r}; clone it, and name the clone as "
            f"the ground truth: dataset.clone_sample_field({gt_field!r}, 'truth')"
        )
    for role, name in (
        ("prediction", pred_field),
        ("ground truth", gt_field),
        ("objects", config.objects_field),
        ("ignore", config.ignore_field),
    ):
        if name is None and role in ("objects", "ignore"):
            continue
        if not name or not labels.is_detections(samples, name):
            found = samples.get_field_schema(embedded_doc_type=fo.Detections)
            what = "holds no Detections" if name and samples.get_field(name) else "does not exist"
            if name and getattr(samples.get_field(name), "document_type", None) is fo.Polylines:
                what += ", but Polylines: make Detections of each with its to_detections(frame_size=(width, height))"
            raise ValueError(f"the {role} field {name!r} {what}; fields of Detections: {', '.join(found) or 'none'}")
    if expression_field is None:
        expression_field = default_expression_field(samples, gt_field)
    if expression_field is not None:
        check_expression_field(samples, expression_field)
        check_named(samples, expression_field, gt_field)
    if eval_key is not None:
        _check_key(samples, eval_key, pred_field, gt_field)


def check_current(samples: fo.Dataset | fo.DatasetView, config: ReferringEvaluationConfig) -> None:
    """Raise ValueError if another process changed the fields of an evaluation.

    FiftyOne reads a dataset's schema when it loads the dataset. A field that another process renamed would seem empty.
    """
    dataset, pred_field = samples._dataset, config.pred_field
    own = (pred_field, labels.responses_field(pred_field), labels.boxes_field(pred_field), config.gt_field)
    others = (config.expression_field or EXPRESSION, config.objects_field, config.ignore_field)
    stored = foo.get_db_conn().datasets.find_one({"_id": dataset._doc.id}, {"sample_fields": True}) or {}
    present = {each["name"]: (each["ftype"], each.get("embedded_doc_type")) for each in stored.get("sample_fields", ())}
    known = {each.name: (each.ftype, each.embedded_doc_type) for each in dataset._doc.sample_fields}
    for name in filter(None, (*own, *others)):
        root = name.partition(".")[0]
        if present.get(root) != known.get(root):
            raise ValueError(
                f"another process added, changed or removed the field {root!r} of {dataset.name!r} after it was loaded "
                "here; call dataset.reload(), then evaluate again"
            )


def _check_key(samples: fo.Dataset | fo.DatasetView, eval_key: str, pred_field: str, gt_field: str) -> None:
    if not eval_key.isidentifier() or eval_key.startswith("_"):
        raise ValueError(f"the evaluation key {eval_key!r} must be a valid variable name that starts with a letter")
    existing = samples.list_evaluations()
    suffixes = ("id", "iou", "tp", "fp", "fn", *SAMPLE_FIELDS)
    for other in existing:
        if any(eval_key == f"{other}_{suffix}" or other == f"{eval_key}_{suffix}" for suffix in suffixes):
            raise ValueError(f"the key {eval_key!r} would overwrite fields of the run {other!r}; choose another")
    own = fields_of_run(samples, eval_key)
    for name in ReferringEvaluationConfig(pred_field, gt_field).build().get_fields(samples, eval_key):
        if name not in own and samples._dataset.get_field(name) is not None:
            raise ValueError(f"the run {eval_key!r} would overwrite the field {name!r}; choose another key")


def fields_of_run(samples: fo.Dataset | fo.DatasetView, eval_key: str) -> set[str]:
    """Return the fields that a run owns; none if there is no run of that name.

    Raises:
        ValueError: FiftyOne cannot tell them, because its run is about a field that is gone.
    """
    if eval_key not in samples.list_evaluations():
        return set()
    method = samples._dataset.get_evaluation_info(eval_key).config.build()
    try:
        return set(method.get_fields(samples, eval_key))
    except ValueError as error:
        raise ValueError(
            f"the run {eval_key!r} is about fields that are gone; delete the run first: {error}"
        ) from error
