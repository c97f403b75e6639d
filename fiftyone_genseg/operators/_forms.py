"""What forms share: a problem, the choice of a checkpoint, and which referring examples are meant."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
from fiftyone.operators import types
from genseg_hub import checkpoints

from fiftyone_genseg import segmentation, training

DEFAULT_TRUTH = "ground_truth"


def show_problem(inputs: types.Object, problem: str) -> None:
    """Show why a form cannot be sent, and keep it from being sent."""
    shown = inputs.view("problem", types.Error(label=problem))
    shown.invalid = True
    shown.error_message = problem


def sentence(error: Exception) -> str:
    """What an error says, as a sentence."""
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def checkpoint_choices() -> types.AutocompleteView:
    """Known names and the checkpoints that were trained here; any other may be typed."""
    view = types.AutocompleteView(allow_user_input=True)
    for known in checkpoints.KNOWN:
        where = "on this disk" if checkpoints.is_on_disk(known.name) else "will be downloaded"
        view.add_choice(
            known.name,
            label=f"{known.name} ({known.parameters} parameters, {where})",
            description=f"needs {known.needs}",
        )
    for name, folder in training.trained().items():
        view.add_choice(str(folder), label=f"{name} (trained here)", description=str(folder))
    return view


def ask_for_examples(ctx, inputs: types.Object) -> None:
    """Ask where the true masks and the expressions are; a slice that a panel chose is given in `pairs`."""
    inputs.str("gt_field", label="Ground truth", default=DEFAULT_TRUTH)
    inputs.str(
        "expression_field",
        label="Expressions",
        description="A sample field; empty for `expression`, or else the ground truth's attribute of that name",
        required=False,
    )
    pairs = ctx.params.get("pairs")
    if pairs is not None:
        inputs.view("what", types.Notice(label=f"{len(pairs):,} expressions of the chosen slice"))


def examples_problem(ctx) -> str | None:
    """Why there can be no referring examples where the form says, as a sentence."""
    truth, expressions = ctx.params.get("gt_field") or DEFAULT_TRUTH, ctx.params.get("expression_field")
    if getattr(ctx.dataset.get_field(truth), "document_type", None) is not fo.Detections:
        return f"The ground truth field {truth!r} holds no Detections."
    if expressions and ctx.dataset.get_field(expressions) is None:
        return f"There is no field {expressions!r}."
    if ctx.params.get("pairs") is None:
        try:
            segmentation.check_view(ctx.target_view())
        except ValueError as error:
            return sentence(error)
    return None


def examples_asked_for(ctx) -> dict[str, Any]:
    """The form's answers, as the arguments of `export.examples` and `export.export`."""
    from fiftyone_genseg.checks import default_expression_field

    truth, pairs = ctx.params.get("gt_field") or DEFAULT_TRUTH, ctx.params.get("pairs")
    return {
        "view": ctx.dataset if pairs is not None else ctx.target_view(),
        "gt_field": truth,
        "expression_field": ctx.params.get("expression_field") or default_expression_field(ctx.dataset, truth),
        "pairs": None if pairs is None else {tuple(pair) for pair in pairs},
    }
