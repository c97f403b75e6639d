"""The operator "Train on this view": GRPO on the referring examples of a view, in the background."""

from __future__ import annotations

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from genseg_hub import checkpoints

from fiftyone_genseg import segmentation, training
from fiftyone_genseg.operators import _checkpoints
from fiftyone_genseg.operators.evaluate_referring_segmentation import DEFAULT_TRUTH

DEFAULT_STEPS = 60
DEFAULT_RECIPE = "nano_r1_g"
ORCHESTRATOR = (
    "FiftyOne offers to run things in the background only where an orchestrator is registered, or where the App was "
    "started with FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS=true, for `fiftyone delegated launch`."
)


class TrainOnView(foo.Operator):
    """Delegated only: a run takes minutes with nano and hours with anything else. Started again under the name of a run
    that was ended, it goes on with that run's data and settings."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="train_on_view",
            label="Train on this view",
            description="Train a checkpoint with GRPO on the expressions and true masks of this view",
            dynamic=True,
            allow_immediate_execution=False,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx) -> types.Property:
        inputs = types.Object()
        inputs.str("name", label="Name", description="Of the new checkpoint", required=True)
        if not fo.config.allow_legacy_orchestrators:
            inputs.view("orchestrator", types.Warning(label=ORCHESTRATOR))
        plan = training.begun(_params(ctx)["name"])
        if plan:
            words = f"This run was not finished. It goes on from {plan.checkpoint} with its own data and {plan.recipe}."
            inputs.view("begun", types.Notice(label=words))
            return types.Property(inputs, view=types.View(label="Train on this view"))
        pairs = ctx.params.get("pairs")
        if pairs is not None:
            inputs.view("what", types.Notice(label=f"{len(pairs):,} expressions of the chosen slice"))
        inputs.str("gt_field", label="Ground truth", default=DEFAULT_TRUTH)
        inputs.str(
            "expression_field",
            label="Expressions",
            description="A sample field; empty for `expression`, or else the ground truth's attribute of that name",
            required=False,
        )
        inputs.str(
            "checkpoint", label="Checkpoint to start from", default=checkpoints.NANO, view=_checkpoints.choices()
        )
        recipes = types.AutocompleteView(allow_user_input=True)
        for name in training.recipes():
            recipes.add_choice(name, label=name)
        inputs.str(
            "recipe",
            label="Recipe",
            description="r1 rewards boxes and points, r1_g the masks that SAM 2 makes of them; or a YAML file",
            default=DEFAULT_RECIPE,
            view=recipes,
        )
        inputs.int("steps", label="Steps", default=DEFAULT_STEPS, min=1)
        inputs.str(
            "mix",
            label="Mix in",
            description="A further source, drawn from as often, so that nothing is forgotten: refscenes:4000, a folder "
            "that was exported, or a Hub dataset. May be empty",
            required=False,
        )
        inputs.str(
            "held_out",
            label="Held-out examples",
            description="They choose the best step: a source such as refscenes:val:200. Empty to hold out a fifth of "
            "this view's images",
            required=False,
        )
        problem = _problem(ctx) if ctx.params.get("name") else None
        if problem:
            prompt = inputs.view("problem", types.Error(label=problem))
            prompt.invalid = True
            prompt.error_message = problem
        inputs.view(
            "worker",
            types.Notice(label="Training runs in the background, where `fiftyone delegated launch` runs."),
        )
        return types.Property(inputs, view=types.View(label="Train on this view"))

    def execute(self, ctx) -> dict:
        params = _params(ctx)
        plan = training.begun(params["name"])
        if plan:
            folder = training.home() / plan.name
            _check_same(plan, ctx.params)
        else:
            problem = _problem(ctx)
            if problem:
                raise ValueError(problem)
            ctx.set_progress(0.0, label="collecting the examples")
            folder = training.prepare(_plan(params), _examples(ctx, params))
        outcome = training.run(folder, lambda share, label: ctx.set_progress(share, label=label))
        return {
            "checkpoint": str(outcome.checkpoint),
            "best_step": outcome.best_step,
            "before": _figures(outcome.before),
            "after": _figures(outcome.after),
        }

    def resolve_output(self, ctx) -> types.Property:
        outputs = types.Object()
        outputs.str("checkpoint", label="Checkpoint, for Referring segment and Push checkpoint to Hub")
        outputs.int("best_step", label="Best step")
        outputs.str("before", label="Held-out examples before")
        outputs.str("after", label="Held-out examples at the best step")
        return types.Property(outputs, view=types.View(label="Trained"))


def _params(ctx) -> dict:
    """Parameters with the defaults of an untouched form."""
    given = {key: value for key, value in ctx.params.items() if value is not None}
    defaults = {
        "name": "",
        "gt_field": DEFAULT_TRUTH,
        "expression_field": "",
        "checkpoint": checkpoints.NANO,
        "recipe": DEFAULT_RECIPE,
        "steps": DEFAULT_STEPS,
        "mix": "",
        "held_out": "",
    }
    params = defaults | given
    return params | {key: params[key].strip() for key in ("name", "mix", "held_out") if isinstance(params[key], str)}


def _check_same(plan: training.Plan, given: dict) -> None:
    """Raises ValueError where something else is asked for than what was begun under that name."""
    for name, begun in vars(plan).items():
        asked = given.get(name)
        if asked not in (None, "", begun) and name != "name":
            raise ValueError(
                f"the run {plan.name!r} was begun with {name} {begun!r}, not {asked!r}: give another name, or the name "
                "alone to go on"
            )


def _plan(params: dict) -> training.Plan:
    names = ("name", "checkpoint", "recipe", "steps", "mix", "held_out")
    return training.Plan(**{name: params[name] for name in names})


def _examples(ctx, params: dict) -> list:
    from fiftyone_genseg.export import examples
    from fiftyone_genseg.scoring import default_expression_field

    pairs, truth = params.get("pairs"), params["gt_field"]
    return list(
        examples(
            ctx.dataset if pairs is not None else ctx.target_view(),
            truth,
            params["expression_field"] or default_expression_field(ctx.dataset, truth),
            None if pairs is None else {tuple(pair) for pair in pairs},
        )
    )


def _problem(ctx) -> str | None:
    """Why the run cannot start, as a sentence; None when it can."""
    if ctx.dataset is None:
        return "Open a dataset first."
    params = _params(ctx)
    if getattr(ctx.dataset.get_field(params["gt_field"]), "document_type", None) is not fo.Detections:
        return f"The ground truth field {params['gt_field']!r} holds no Detections."
    expressions = params["expression_field"]
    if expressions and ctx.dataset.get_field(expressions) is None:
        return f"There is no field {expressions!r}."
    try:
        if params.get("pairs") is None:
            segmentation.check_view(ctx.target_view())
        checkpoints.check_name(str(params["checkpoint"]))
        training.check(_plan(params))
    except (ValueError, checkpoints.CheckpointError) as error:
        return f"{str(error)[0].upper()}{str(error)[1:]}."
    return None


def _figures(figures: dict) -> str:
    names = {"miou": "mIoU", "ciou": "cIoU", "n_acc": "N-acc"}
    known = [f"{label} {figures[name]:.3f}" for name, label in names.items() if figures[name] is not None]
    return f"{', '.join(known)} on {figures['n']} examples"
