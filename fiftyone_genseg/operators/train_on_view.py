"""Operator "Train on this view": run GRPO on a view's examples in the background."""

from __future__ import annotations

from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.operator import RiskLevel
from genseg_hub.figures import NAMES

from fiftyone_genseg import history, icons, training_runs
from fiftyone_genseg.datasets.request import NO_TRUTH, ExamplesRequest
from fiftyone_genseg.operators import _forms
from fiftyone_genseg.training_runs import Plan

ORCHESTRATOR = (
    "FiftyOne runs operators in the background only if an orchestrator is registered, or if the App was started "
    "with FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS=true, for `fiftyone delegated launch`."
)


class TrainOnView(foo.Operator):
    """Train a checkpoint on a view and keep it for the other operators.

    The operator is delegated only, because a run takes minutes with nano and hours with any other checkpoint. Under the
    name of a run that was ended, it resumes with that run's data and settings.
    """

    @property
    def config(self) -> foo.OperatorConfig:
        """Return the name of the operator and the ways to run it."""
        return foo.OperatorConfig(
            name="train_on_view",
            label="Train on this view",
            description="Train a checkpoint with GRPO on the expressions and true masks of this view",
            icon="model_training",
            **icons.of("train_on_view"),
            risk_level=RiskLevel.HIGH,
            dynamic=True,
            allow_immediate_execution=False,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx) -> types.Property:
        """Return the form; for a run that was ended it asks for the name alone."""
        plan = Plan.from_params(ctx.params)
        view = _forms.target_view(ctx)
        if hopeless := _forms.unusable(view):
            return _forms.alone("Train on this view", hopeless)
        inputs = types.Object()
        begun = training_runs.begun(plan.name)
        examples = ExamplesRequest.from_params(view, ctx.params)
        lacking = not begun and examples.lacks_truth(view)
        if lacking:
            _forms.show_problem(inputs, NO_TRUTH)
        elif not plan.name:
            _forms.show_problem(inputs, "Name the new checkpoint.", untouched=True)
        elif not begun:
            _forms.show_problem(inputs, plan.problem(ctx.dataset) or examples.problem(view))
        inputs.str("name", label="Name", description="Name of the new checkpoint", required=True)
        if lacking:
            return types.Property(inputs, view=types.View(label="Train on this view"))
        if not fo.config.allow_legacy_orchestrators:
            inputs.view("orchestrator", types.Warning(label=ORCHESTRATOR))
        if begun:
            notice = (
                f"This run is not finished. It goes on from {begun.checkpoint} with its own data and {begun.recipe}."
            )
            inputs.view("begun", types.Notice(label=notice))
            return types.Property(inputs, view=types.View(label="Train on this view"))
        _forms.ask_for_examples(ctx, inputs)
        inputs.str(
            "checkpoint",
            label="Checkpoint to start from",
            default=Plan.checkpoint,
            view=_forms.checkpoint_choices(),
        )
        recipes = types.AutocompleteView(allow_user_input=True)
        for name in training_runs.recipes():
            recipes.add_choice(name, label=name)
        inputs.str(
            "recipe",
            label="Recipe",
            description="r1 rewards boxes and points; r1_g rewards SAM 2's masks. A YAML file can be typed, too",
            default=Plan.recipe,
            view=recipes,
        )
        inputs.int("steps", label="Steps", default=Plan.steps, min=1)
        inputs.str(
            "mix",
            label="Mix in",
            description="A further source, drawn from as often as the view, so that the checkpoint forgets less: "
            "refscenes:4000, an exported folder, or a Hub dataset. Optional",
            required=False,
        )
        inputs.str(
            "held_out",
            label="Held-out examples",
            description="Examples that choose the best step: a source such as refscenes:val:200. Empty to hold out a "
            "fifth of this view's images",
            required=False,
        )
        inputs.view(
            "worker",
            types.Notice(label="Training runs in the background, where `fiftyone delegated launch` runs."),
        )
        return types.Property(inputs, view=types.View(label="Train on this view"))

    def execute(self, ctx) -> dict:
        """Train or resume, and return the checkpoint with its figures before and after."""
        with history.recorded(ctx, "Train on this view") as run:

            def told(share: float, label: str) -> None:
                run.progress(label)
                ctx.set_progress(share, label=label)

            outcome = training_runs.run(_prepared(ctx, told), told)
            result = {
                "checkpoint": str(outcome.checkpoint),
                "best_step": outcome.best_step,
                "before": _figures(outcome.before),
                "after": _figures(outcome.after),
            }
            run.end(history.DONE, f"{outcome.checkpoint}: {result['before']} before, {result['after']} after")
        return result

    def resolve_output(self, ctx) -> types.Property:
        """Return the view of the result."""
        outputs = types.Object()
        outputs.str("checkpoint", label="Checkpoint, for Referring segment and Push checkpoint to Hub")
        outputs.int("best_step", label="Best step")
        outputs.str("before", label="Held-out examples before")
        outputs.str("after", label="Held-out examples at the best step")
        return types.Property(outputs, view=types.View(label="Trained"))


def _prepared(ctx, told: training_runs.Progress) -> Path:
    """Return a new folder with the view's examples, or the folder of an ended run."""
    plan = Plan.from_params(ctx.params)
    begun = training_runs.begun(plan.name)
    if begun:
        begun.check_resumed(ctx.params)
        return training_runs.home() / begun.name
    view = _forms.target_view(ctx)
    request = ExamplesRequest.from_params(view, ctx.params)
    problem = plan.problem(ctx.dataset) or request.problem(view)
    if problem:
        raise ValueError(problem)
    from fiftyone_genseg.datasets.export import examples

    told(0.0, "collecting the examples")
    return training_runs.prepare(plan, list(examples(**request.arguments(view))))


def _figures(figures: dict) -> str:
    known = [f"{NAMES[name]} {figures[name]:.3f}" for name in ("miou", "ciou", "n_acc") if figures[name] is not None]
    return f"{', '.join(known)} on {figures['n']} examples"
