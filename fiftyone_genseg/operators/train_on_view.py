"""The operator "Train on this view": GRPO on the referring examples of a view, in the background."""

from __future__ import annotations

import dataclasses
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from genseg_hub.errors import CheckpointError
from genseg_hub.evaluation.metrics import NAMES

from fiftyone_genseg import training_runs
from fiftyone_genseg.operators import _forms

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
        begun = training_runs.begun(_plan(ctx).name)
        if begun:
            words = (
                f"This run was not finished. It goes on from {begun.checkpoint} with its own data and {begun.recipe}."
            )
            inputs.view("begun", types.Notice(label=words))
            return types.Property(inputs, view=types.View(label="Train on this view"))
        _forms.ask_for_examples(ctx, inputs)
        inputs.str(
            "checkpoint",
            label="Checkpoint to start from",
            default=training_runs.Plan.checkpoint,
            view=_forms.checkpoint_choices(),
        )
        recipes = types.AutocompleteView(allow_user_input=True)
        for name in training_runs.recipes():
            recipes.add_choice(name, label=name)
        inputs.str(
            "recipe",
            label="Recipe",
            description="r1 rewards boxes and points, r1_g the masks that SAM 2 makes of them; or a YAML file",
            default=training_runs.Plan.recipe,
            view=recipes,
        )
        inputs.int("steps", label="Steps", default=training_runs.Plan.steps, min=1)
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
            _forms.show_problem(inputs, problem)
        inputs.view(
            "worker",
            types.Notice(label="Training runs in the background, where `fiftyone delegated launch` runs."),
        )
        return types.Property(inputs, view=types.View(label="Train on this view"))

    def execute(self, ctx) -> dict:
        begun = training_runs.begun(_plan(ctx).name)
        if begun:
            _check_same(begun, ctx.params)
            folder = training_runs.home() / begun.name
        else:
            problem = _problem(ctx)
            if problem:
                raise ValueError(problem)
            from fiftyone_genseg.datasets.export import examples

            ctx.set_progress(0.0, label="collecting the examples")
            folder = training_runs.prepare(_plan(ctx), list(examples(**_forms.examples_asked_for(ctx))))
        outcome = training_runs.run(folder, lambda share, label: ctx.set_progress(share, label=label))
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


def _plan(ctx) -> training_runs.Plan:
    """What the form says; what it leaves open is `Plan`'s default."""
    asked: dict[str, Any] = {"name": ""}
    for field in dataclasses.fields(training_runs.Plan):
        value = ctx.params.get(field.name)
        if value is not None:
            asked[field.name] = value.strip() if isinstance(value, str) else value
    return training_runs.Plan(**asked)


def _check_same(plan: training_runs.Plan, given: dict) -> None:
    """Raises ValueError where something else is asked for than what was begun under that name."""
    for name, begun in vars(plan).items():
        asked = given.get(name)
        if asked not in (None, "", begun) and name != "name":
            raise ValueError(
                f"the run {plan.name!r} was begun with {name} {begun!r}, not {asked!r}: give another name, or the name "
                "alone to go on"
            )


def _problem(ctx) -> str | None:
    """Why the run cannot start, as a sentence; None when it can."""
    if ctx.dataset is None:
        return "Open a dataset first."
    plan = _plan(ctx)
    try:
        _forms.check_checkpoint(plan.checkpoint)
        _forms.path(plan.recipe)
        training_runs.check(plan)
        for source in filter(None, (plan.mix, plan.held_out)):
            if source.partition(":")[0] != "refscenes":
                _forms.check_source(source, "rendered scenes (refscenes:COUNT)")
    except (ValueError, OSError, CheckpointError) as error:
        return _forms.sentence(error)
    return _forms.examples_problem(ctx)


def _figures(figures: dict) -> str:
    known = [f"{NAMES[name]} {figures[name]:.3f}" for name in ("miou", "ciou", "n_acc") if figures[name] is not None]
    return f"{', '.join(known)} on {figures['n']} examples"
