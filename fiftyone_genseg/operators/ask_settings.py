"""Operator "Settings of Ask": the model and the output field of a dataset."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.operator import RiskLevel

from fiftyone_genseg import icons, uris
from fiftyone_genseg.asking import settings
from fiftyone_genseg.operators import _forms, _served_models

_PROBE = "something"  # an expression, to check the rest of a request


class AskSettings(foo.Operator):
    """Choose the model that answers in the panel "Ask"."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Return the name of the operator."""
        return foo.OperatorConfig(
            name="ask_settings",
            label="Settings of Ask",
            description='Choose the model that answers in the panel "Ask", and the field of its answers',
            icon="tune",
            **icons.of("ask_settings"),
            risk_level=RiskLevel.LOW,
            dynamic=True,
        )

    def resolve_input(self, ctx) -> types.Property:
        """Return the form."""
        inputs = types.Object()
        form = types.Property(inputs, view=types.PromptView(label="Settings of Ask", submit_button_label="Keep"))
        if ctx.dataset is None:
            _forms.show_problem(inputs, "Open a dataset first.")
            return form
        kept = settings.load(ctx.dataset)
        params: dict[str, Any] = kept | _forms.filled(ctx.params)
        if problem := _problem(ctx, params):
            _forms.show_problem(inputs, problem)
        inputs.str(
            "checkpoint",
            label="Checkpoint",
            description="A known name, any Hub id, or the absolute path of a folder. Clear it to take the "
            "model of the server",
            default=kept.get("checkpoint"),
            required=False,
            view=_forms.checkpoint_choices(),
        )
        _forms.ask_for_server(inputs, "Empty to load the reasoner here.", kept.get("server"))
        _served_models.ask_for_served_model(inputs, params.get("server"), kept.get("served_model"))
        inputs.str(
            "segmenter",
            label="Segmenter",
            description="A Hub id such as facebook/sam2.1-hiera-tiny, or the absolute path of a folder. Empty for "
            "the checkpoint's own",
            default=kept.get("segmenter"),
            required=False,
        )
        inputs.str("output_field", label="Output field", default=kept.get("output_field", "genseg"))
        _forms.ask_for_model_options(inputs, params)
        return form

    def execute(self, ctx) -> dict[str, str]:
        """Keep the settings."""
        if ctx.dataset is None:
            raise ValueError("Open a dataset first.")
        params = _forms.filled(ctx.params)
        if problem := _problem(ctx, params):
            raise ValueError(problem)
        settings.save(ctx.dataset, params)
        if ctx.panel_id:
            ctx.trigger(f"{uris.ASK_PANEL}#answered", {"panel_id": ctx.panel_id})
        ctx.ops.notify("Questions are asked with these settings from now on.", variant="success")
        return {}


def _problem(ctx, params: dict[str, Any]) -> str | None:
    request = settings.SegmentRequest.from_params(None, {**params, "source": "typed", "expressions": _PROBE})
    return request.problem(ctx.dataset)
