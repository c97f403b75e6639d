"""The operator "Evaluate referring segmentation": masks against ground truth, as a FiftyOne evaluation run."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from genseg_hub.evaluation.metrics import DEFAULT_POLICY, NAMES, POLICIES

from fiftyone_genseg.fields import default_ignore_field
from fiftyone_genseg.labels import IGNORE
from fiftyone_genseg.operators import _forms, _progress
from fiftyone_genseg.operators._forms import DEFAULT_TRUTH
from fiftyone_genseg.operators.referring_segment import DEFAULT_FIELD

_AUTO = "where the expressions are"
_NONE = " "  # an empty choice would mean the default


class EvaluateReferringSegmentation(foo.Operator):
    """Evaluate masks of expressions. The form and `execute` validate with the same function."""

    @property
    def config(self) -> foo.OperatorConfig:
        return _progress.config(
            "evaluate_referring_segmentation",
            "Evaluate referring segmentation",
            "Compare the masks of expressions with their ground truth: cIoU, mIoU, N-acc, failure kinds",
        )

    def __call__(
        self,
        samples: fo.Dataset | fo.DatasetView,
        pred_field: str = DEFAULT_FIELD,
        gt_field: str = DEFAULT_TRUTH,
        eval_key: str | None = None,
        policy: str = DEFAULT_POLICY,
        min_pixels: int = 0,
        expression_field: str | None = None,
        objects_field: str | None = None,
        ignore_field: str | None = None,
        delegate: bool = False,
    ):
        """Run the operator from Python; `fiftyone_genseg.evaluate` says what the arguments mean."""
        params = {
            "pred_field": pred_field,
            "gt_field": gt_field,
            "eval_key": eval_key,
            "policy": policy,
            "min_pixels": min_pixels,
            "expression_field": expression_field,
            "objects_field": objects_field,
            "ignore_field": ignore_field,
            "overwrite": True,
            "raise_errors": True,
        }
        return foo.execute_operator(self.uri, {"view": samples.view()}, params=params, request_delegation=delegate)

    def resolve_input(self, ctx) -> types.Property:
        inputs = types.Object()
        view = ctx.target_view() if ctx.dataset is not None else None
        params = _filled(view, ctx.params)
        fields = _detections(view)
        for name, label, description in (
            ("pred_field", "Predictions", "The field that Referring segment wrote, or other Detections with masks"),
            ("gt_field", "Ground truth", "Detections with masks; a sample without any has no target"),
        ):
            inputs.enum(
                name,
                fields,
                label=label,
                description=description,
                default=params[name],
                view=_forms.dropdown(fields),
            )
        inputs.str(
            "eval_key",
            label="Evaluation key",
            description="The run's name: letters, digits and underscores",
            default=params["eval_key"],
        )
        if ctx.dataset is not None and params["eval_key"] in ctx.dataset.list_evaluations():
            inputs.bool(
                "overwrite",
                label=f"Overwrite the run {params['eval_key']!r}",
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
            description="Whose evaluator decides what an empty mask is worth",
            default=DEFAULT_POLICY,
            view=policies,
        )
        inputs.int(
            "min_pixels",
            label="Smallest mask",
            description="Predictions of fewer pixels count as empty (gRefCOCO's paper says 50, its code 0)",
            default=0,
            min=0,
        )
        automatic = "the field `expression`, else the ground truth's attribute `expression`"
        sources = _forms.dropdown([_AUTO, *_expressions(view)], {_AUTO: automatic})
        inputs.enum("expression_field", sources.values(), label="Expressions", default=_AUTO, view=sources)
        objects = _forms.dropdown(["", *fields], {"": "none"})
        inputs.enum(
            "objects_field",
            objects.values(),
            label="All objects",
            description="Optional: Detections of every object, labelled with its class, to count distractors",
            default="",
            view=objects,
        )
        ignored = _forms.dropdown([_NONE, *fields], {_NONE: "none"})
        inputs.enum(
            "ignore_field",
            ignored.values(),
            label="Ignored pixels",
            description="Optional: Detections of the pixels that count neither way, as ReasonSeg has them",
            default=params["ignore_field"] or _NONE,
            view=ignored,
        )
        problem = _problem(view, ctx.params)
        if problem:
            _forms.show_problem(inputs, problem)
        return types.Property(inputs, view=types.View(label="Evaluate referring segmentation"))

    def execute(self, ctx) -> Iterator:
        """See `_progress.run`."""
        return _progress.run(ctx, _evaluate(ctx), "The evaluation stopped")


def _evaluate(ctx) -> Generator[Any, None, _progress.Done]:
    view = ctx.target_view() if ctx.dataset is not None else None
    problem = _problem(view, ctx.params)
    if problem:
        raise ValueError(problem)
    runner = _runner(view, ctx.params)
    for done in runner.run():
        yield from _progress.tell(ctx, done / runner.total, f"{done} of {runner.total} samples")
    return _progress.Done(describe(runner.results.figures()), then=(ctx.ops.reload_dataset,))


def describe(figures: dict) -> str:
    """One sentence on a run."""
    known = [f"{NAMES[name]} {figures[name]:.3f}" for name in ("ciou", "miou", "n_acc") if figures[name] is not None]
    failed = f", {figures['n_failed']} without a usable answer" if figures["n_failed"] else ""
    return f"{', '.join(known)} on {figures['n']} expressions (policy {figures['policy']}){failed}"


def _detections(view) -> list[str]:
    return [] if view is None else list(view.get_field_schema(embedded_doc_type=fo.Detections))


def _expressions(view) -> list[str]:
    if view is None:
        return []
    schema = view.get_field_schema(ftype=(fo.StringField, fo.ListField))
    kinds = {name: field.field if isinstance(field, fo.ListField) else field for name, field in schema.items()}
    return [
        name for name, kind in kinds.items() if isinstance(kind, fo.StringField) and name not in ("filepath", "tags")
    ]


def _filled(view, raw: dict) -> dict:
    """Parameters with the defaults of an untouched form."""
    fields = _detections(view)
    predicted = [name for name in fields if view.get_field(f"{name}_responses") is not None]
    pred_field = (
        raw.get("pred_field")
        or (predicted + [f for f in fields if f not in (DEFAULT_TRUTH, IGNORE)] + [DEFAULT_FIELD])[0]
    )
    others = [name for name in fields if name != pred_field]
    truth = DEFAULT_TRUTH if DEFAULT_TRUTH in others or not others else others[0]
    given = {key: value for key, value in raw.items() if value not in (None, "")}
    if given.get("expression_field") == _AUTO:
        del given["expression_field"]
    if given.get("ignore_field") == _NONE:
        given["ignore_field"] = ""
    defaults = {
        "pred_field": pred_field,
        "gt_field": truth,
        "eval_key": f"eval_{pred_field}",
        "policy": DEFAULT_POLICY,
        "min_pixels": 0,
        "expression_field": None,
        "objects_field": None,
        "ignore_field": default_ignore_field(view),
        "overwrite": False,
    }
    return defaults | given


def _runner(view, raw: dict):
    from fiftyone_genseg.evaluation.measuring import Runner

    params = _filled(view, raw)
    names = (
        "pred_field",
        "gt_field",
        "eval_key",
        "policy",
        "min_pixels",
        "expression_field",
        "objects_field",
        "ignore_field",
    )
    return Runner(view, **{name: params[name] for name in names})


def _problem(view, raw: dict) -> str | None:
    """Why the operator cannot run with these parameters, as a sentence; None when it can."""
    if view is None:
        return "Open a dataset first."
    params = _filled(view, raw)
    if not isinstance(params["min_pixels"], int) or params["min_pixels"] < 0:
        return f"The smallest mask must have 0 pixels or more, not {params['min_pixels']}."
    try:
        _runner(view, raw)
    except ValueError as error:
        return _forms.sentence(error)
    if params["eval_key"] in view._dataset.list_evaluations() and not params["overwrite"]:
        return f"There is a run {params['eval_key']!r} already: tick overwrite, or choose another key."
    return None
