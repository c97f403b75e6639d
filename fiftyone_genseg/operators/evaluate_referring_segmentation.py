"""Operator "Evaluate referring segmentation": from two fields of masks to a run."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.operator import RiskLevel
from genseg_hub.evaluation.metrics import POLICIES

from fiftyone_genseg import outputs
from fiftyone_genseg.evaluation.measuring import measure
from fiftyone_genseg.evaluation.request import AUTO, NONE, EvaluationRequest
from fiftyone_genseg.evaluation.usable import check_answered
from fiftyone_genseg.evaluation.writing import write
from fiftyone_genseg.fields import check_view, expression_fields
from fiftyone_genseg.operators import _forms, _progress, _results

_log = logging.getLogger(__name__)


class EvaluateReferringSegmentation(foo.Operator):
    """Evaluate masks of expressions."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Return the name of the operator and the ways to run it."""
        return _progress.config(
            "evaluate_referring_segmentation",
            "Evaluate referring segmentation",
            "Compare the masks of expressions with their ground truth: cIoU, mIoU, N-acc, failure kinds",
            "troubleshoot",
            risk_level=RiskLevel.MEDIUM,
        )

    def __call__(self, samples: fo.Dataset | fo.DatasetView, *, delegate: bool = False, **options: Any):
        """Run the operator from Python.

        Args:
            samples: a dataset or view of images.
            delegate: run it in the background, see `fiftyone delegated launch`.
            options: fields of `EvaluationRequest`; the samples' fields choose values that are left out, as in the form.

        Raises:
            ValueError: the request cannot be run.
        """
        check_view(samples)
        request = EvaluationRequest.from_params(samples.view(), {"overwrite": True, **options})
        params = request.to_params() | {"raise_errors": True}
        return foo.execute_operator(self.uri, {"view": samples.view()}, params=params, request_delegation=delegate)

    def resolve_input(self, ctx) -> types.Property:
        """Return the form."""
        view = _forms.target_view(ctx)
        masks = _forms.mask_fields(view)
        if hopeless := _forms.unusable(view) or _too_few(masks):
            return _forms.alone("Evaluate referring segmentation", hopeless)
        inputs = types.Object()
        request = EvaluationRequest.from_params(view, ctx.params)
        _forms.show_problem(inputs, request.problem(view))
        for name, label, description in (
            ("pred_field", "Predictions", "The field that Referring segment wrote, or other Detections with masks"),
            ("gt_field", "Ground truth", "Detections with masks; a sample without any has no target"),
        ):
            inputs.enum(
                name,
                masks,
                label=label,
                description=description,
                default=getattr(request, name),
                view=_forms.dropdown(masks),
            )
        inputs.str(
            "eval_key",
            label="Evaluation key",
            description="The run's name: letters, digits and underscores. Choose an earlier run to evaluate it anew",
            default=request.eval_key,
            view=_forms.suggestions([] if view is None else view.list_evaluations()),
        )
        if ctx.dataset is not None and request.eval_key in ctx.dataset.list_evaluations():
            inputs.bool(
                "overwrite",
                label=f"Overwrite the run {request.eval_key!r}",
                default=False,
                view=types.CheckboxView(),
            )
        policies = types.RadioGroup()
        for policy in POLICIES.values():
            policies.add_choice(policy.name, label=policy.name, description=policy.source)
        inputs.enum(
            "policy",
            policies.values(),
            label="Policy",
            description="The evaluator whose rule scores empty masks",
            default=EvaluationRequest.policy,
            view=policies,
        )
        inputs.int(
            "min_pixels",
            label="Smallest mask",
            description="Predictions of fewer pixels count as empty (gRefCOCO's paper says 50, its code 0)",
            default=EvaluationRequest.min_pixels,
            min=0,
        )
        automatic = _forms.automatic_expressions(request.gt_field)
        sources = _forms.dropdown([AUTO, *expression_fields(view)], {AUTO: automatic})
        inputs.enum("expression_field", sources.values(), label="Expressions", default=AUTO, view=sources)
        objects = _forms.dropdown(["", *masks], {"": "none"})
        inputs.enum(
            "objects_field",
            objects.values(),
            label="All objects",
            description="Optional: Detections of every object, labelled with its class, to count distractors",
            default="",
            view=objects,
        )
        ignored = _forms.dropdown([NONE, *masks], {NONE: "none"})
        inputs.enum(
            "ignore_field",
            ignored.values(),
            label="Ignored pixels",
            description="Optional: Detections of the pixels that count neither way, as ReasonSeg has them",
            default=request.ignored(view) or NONE,
            view=ignored,
        )
        return types.Property(inputs, view=types.View(label="Evaluate referring segmentation"))

    def execute(self, ctx) -> Iterator:
        """Run the request; see `_progress.run` for the messages."""
        return _progress.run(ctx, _evaluate(ctx), "The evaluation stopped")


def _too_few(masks: list[str]) -> str | None:
    if len(masks) >= 2:
        return None
    have = f"one field of masks, {masks[0]}" if masks else "no field of masks"
    return (
        f"There is {have}. An evaluation compares predicted masks with true ones: "
        "run Referring segment or Load predictions, keep answers in the panel Ask, or add the ground truth."
    )


def _evaluate(ctx) -> Generator[Any, None, _progress.Done]:
    view = _forms.target_view(ctx)
    request = EvaluationRequest.from_params(view, ctx.params)
    problem = request.problem(view)
    if view is None or problem:
        raise ValueError(problem)
    try:
        outputs.complete(view._dataset, request.pred_field)
    except ValueError:  # fields of others have the names; masks and responses are all that an evaluation needs
        _log.warning("the field %s keeps the form of an earlier version", request.pred_field, exc_info=True)
    count = f"{len(view):,} samples"
    measured = yield from _progress.follow(ctx, measure(view, request.config(view)), f"measuring {count}", 0.0, 0.5)
    check_answered(measured)
    results = yield from _progress.follow(ctx, write(measured, request.eval_key), f"writing {count}", 0.5, 1.0)
    return _progress.Done(
        results.describe(),
        then=(ctx.ops.reload_dataset,),
        facts={"Run": str(request.eval_key)},
        steps=(
            _results.open_panel("Open Referring evaluation", "referring_evaluation"),
            _results.open_panel("Open Failure slices", "failure_slices"),
        ),
    )
