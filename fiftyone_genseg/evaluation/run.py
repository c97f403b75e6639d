"""An evaluation from Python: checked, measured, written."""

from __future__ import annotations

import fiftyone as fo

from fiftyone_genseg.evaluation.measuring import measure
from fiftyone_genseg.evaluation.request import EvaluationRequest
from fiftyone_genseg.evaluation.results import ReferringResults
from fiftyone_genseg.evaluation.writing import write
from fiftyone_genseg.fields import flat


def evaluate(
    samples: fo.Dataset | fo.DatasetView,
    pred_field: str = EvaluationRequest.pred_field,
    gt_field: str = EvaluationRequest.gt_field,
    eval_key: str | None = EvaluationRequest.eval_key,
    policy: str = EvaluationRequest.policy,
    min_pixels: int = EvaluationRequest.min_pixels,
    expression_field: str | None = EvaluationRequest.expression_field,
    objects_field: str | None = EvaluationRequest.objects_field,
    ignore_field: str | None = EvaluationRequest.ignore_field,
    progress: bool | None = None,
) -> ReferringResults:
    """Evaluate predicted masks of expressions against the true ones.

    Two shapes of data are understood: one sample per image and expression, and several expressions per sample. In the
    first shape `expression_field` is a string field. In the second shape it is a list of strings. Without such a field
    the ground truth has an attribute `expression`, a string or a list of strings. A mask then belongs to the
    expressions that its attribute names. If no mask of the sample names any, each belongs to all of them. Only a field
    of expressions can tell a no-target expression from an expression that nobody annotated.

    Args:
        samples: images; a view restricts the run to its samples.
        pred_field: Detections with masks. The field `<pred_field>_responses`, which "Referring segment" writes, tells a
            no-target answer from an unreadable or missing one. Without it an existing empty field is a no-target
            answer.
        gt_field: Detections with masks; without any, the expression has no target.
        eval_key: name of the run, in place of an earlier run of that name. None writes nothing.
        policy: rule for empty masks, see `genseg_hub.evaluation.metrics`.
        min_pixels: predictions of fewer pixels count as empty.
        expression_field: sample field of the expressions; by default `expression` if that exists.
        objects_field: Detections of every object in the image, labelled with its class, for the attribute
            "same_class_distractors".
        ignore_field: Detections of the pixels that are taken out of prediction and ground truth, as LISA does for
            ReasonSeg; by default the field `ignore` if there is one, "" for none.
        progress: whether to show a bar; None for FiftyOne's default.

    Returns:
        The results. With an `eval_key` each sample has `<key>_mask_iou`, `<key>_box_iou` (means over its expressions),
        `<key>_no_target_correct` and `<key>_failure` (a kind, or a list of kinds).

    Raises:
        ValueError: for fields that are missing or of another kind, before anything is written.
    """
    request = EvaluationRequest(
        pred_field, gt_field, eval_key, policy, min_pixels, expression_field, objects_field, ignore_field
    )
    config = request.config(samples)
    samples = flat(samples)
    count = len(samples)
    with fo.core.utils.ProgressBar(total=2 * count, progress=progress) as bar:
        measured = _followed(measure(samples, config), bar, 0, count)
        return _followed(write(measured, eval_key), bar, count, count)


def _followed(steps, bar, start: int, count: int):
    """Exhaust a generator of shares, showing them on a bar, and return its result."""
    while True:
        try:
            bar.set_iteration(start + round(next(steps) * count))
        except StopIteration as stop:
            return stop.value
