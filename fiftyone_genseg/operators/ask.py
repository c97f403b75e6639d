"""Operator "Ask about a sample".

The answer appears in the panel "Ask" while it is generated.
"""

from __future__ import annotations

from collections.abc import Iterator

import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.operator import RiskLevel
from genseg_hub import checkpoints
from genseg_hub.errors import CheckpointError, ReasonerError
from genseg_hub.options import HubOptions, pick

from fiftyone_genseg import icons, messages, uris
from fiftyone_genseg.asking import answering, settings
from fiftyone_genseg.fields import every_image
from fiftyone_genseg.operators import _forms
from fiftyone_genseg.segmentation.request import SegmentRequest


class Ask(foo.Operator):
    """Ask one expression of one sample. The panel "Ask" sends its questions here."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Return the name of the operator and the way to run it."""
        return foo.OperatorConfig(
            name="ask",
            label="Ask about a sample",
            description="Segment what an expression refers to in the open or the selected sample",
            icon="chat",
            **icons.of("ask"),
            risk_level=RiskLevel.MEDIUM,
            dynamic=True,
            execute_as_generator=True,
        )

    def resolve_input(self, ctx) -> types.Property:
        """Return the form: the expression."""
        inputs = types.Object()
        if problem := _problem(ctx):
            _forms.show_problem(inputs, problem)
        else:
            inputs.str(
                "expression",
                label="What to look for",
                description="For example: the dog left of the bench",
                required=True,
            )
        return types.Property(inputs, view=types.PromptView(label="Ask about a sample", submit_button_label="Ask"))

    def execute(self, ctx) -> Iterator:
        """Ask, and show the thought, then boxes and points, then the masks."""
        refusal, is_asked = "", False
        try:
            if problem := _problem(ctx):
                raise ValueError(problem)
            request = settings.request_for(ctx.dataset, str(ctx.params.get("expression") or ""))
            if refused := request.problem(every_image(ctx.dataset).select(_sample_id(ctx))):
                raise ValueError(refused)
            _check_on_disk(request)
            api_key, token = ctx.secret(_forms.SERVER_KEY), ctx.secret(_forms.HUB_TOKEN)
            yield from _tell(ctx, "Loading the model, if it is not in memory yet ...")
            for state in answering.ask(ctx.dataset, _sample_id(ctx), request, api_key, token):
                is_asked = True
                if state.new_field:
                    yield ctx.trigger(uris.SHOW_FIELD, {"field": request.output_field, "panel_id": ctx.panel_id})
                elif state.stored:
                    if state.failure:
                        yield ctx.ops.notify(f"There is no answer: {state.failure}", variant="error")
                    yield _show(ctx, answering.sample_of(ctx.dataset, _sample_id(ctx)))
                elif state.preview:
                    yield _show(ctx, state.preview)
                    yield from _tell(ctx, "Segmenting ...", state.progress.reasoning)
                else:
                    words = "Thinking ..." if state.progress.reasoning or not state.progress.text else "Answering ..."
                    yield from _tell(ctx, words, state.progress.reasoning)
        except (ValueError, CheckpointError, ReasonerError) as error:
            refusal = messages.sentence(error)
        except Exception as error:  # noqa: BLE001  nothing leaves a generator but messages
            refusal = f"The question could not be asked: {error}"
        if refusal:
            yield ctx.ops.notify(refusal, variant="error")
            yield from _tell(ctx, messages.plain(refusal))  # stays, because a notice is gone after seconds
        elif ctx.panel_id and is_asked:  # an event that came twice asks nothing, and must not clear the progress
            yield ctx.trigger(f"{uris.ASK_PANEL}#answered", {"panel_id": ctx.panel_id})


def _check_on_disk(request: SegmentRequest) -> None:
    """Raise CheckpointError for a checkpoint that would be downloaded first.

    A question downloads nothing, because the panel could not show the progress of the download.
    """
    options = request.model_options
    here = request.server is None
    if request.name and not checkpoints.is_on_disk(
        request.name, here, options.get("dialect"), pick(HubOptions, options)
    ):
        raise CheckpointError(f'{request.name} is not on this disk: run "Pull checkpoint" first')


def _show(ctx, sample):
    """Return the message that shows a sample in the App as it is now, saved or not."""
    return ctx.trigger(uris.SHOW_SAMPLE, {"sample": answering.as_app_reads(sample)})


def _tell(ctx, words: str, thought: str = "") -> Iterator:
    """Show in the panel how far the question is."""
    if ctx.panel_id:
        said = f"> {messages.plain(thought)}" if thought else ""
        yield ctx.ops.patch_panel_data({"progress": f"{words}\n\n{said}"})


def _sample_id(ctx) -> str:
    return str(ctx.params.get("sample_id") or ctx.current_sample or next(iter(ctx.selected), ""))


def _problem(ctx) -> str:
    """Return why no question can be asked; "" when one can."""
    if ctx.dataset is None:
        return "Open a dataset first."
    return "" if _sample_id(ctx) else "Open a sample, or select one in the grid."
