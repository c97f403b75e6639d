"""Panel "Ask": ask about the open sample, judge and correct the answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.categories import Categories
from fiftyone.operators.panel import Panel
from genseg_hub.schema import normalize_expression

from fiftyone_genseg import icons, messages, outputs, uris
from fiftyone_genseg.asking import answering, corrections, prompt_text, settings
from fiftyone_genseg.asking.answering import sample_of
from fiftyone_genseg.cards import cards
from fiftyone_genseg.fields import is_rendered
from fiftyone_genseg.labels import boxes_field
from fiftyone_genseg.panels import _answers, _choices, _editor, _layout


def _event(handler: Callable) -> Callable:
    """Wrap the handler of a user's event.

    An error becomes a notification, because the App would show nothing.
    """

    @wraps(handler)
    def handle(self, ctx):
        try:
            return handler(self, ctx)
        except Exception as error:  # noqa: BLE001 - see above
            return ctx.ops.notify(messages.sentence(error), variant="error")

    return handle


class AskPanel(Panel):
    """Questions about the sample that is open, and the answers that it has."""

    @property
    def config(self) -> foo.PanelConfig:
        """Return how FiftyOne lists the panel."""
        return foo.PanelConfig(
            name="ask_panel",
            label="Ask",
            icon="chat",
            **icons.of("ask_panel"),
            category=Categories.CURATE,
            surfaces="grid modal",
            help_markdown=(
                "Type what to look for and press Enter. The masks, boxes and points are written to the sample.\n\n"
                "*Keep* makes the answer the ground truth of its expression, in the field `kept`. *Correct* opens its "
                "boxes and points."
            ),
        )

    def execute(self, ctx) -> Any:
        """Run an event; a typed letter changes nothing that is shown."""
        letter = ctx.params.get("__method__") == "typed" and not str(ctx.params.get("value") or "").endswith("\n")
        return None if letter else super().execute(ctx)

    def on_load(self, ctx) -> None:
        """Show the answers of the open sample."""

    def on_change_current_sample(self, ctx) -> None:
        """Show the answers of the sample that was opened."""
        ctx.panel.set_data({"progress": ""})

    def on_change_selected(self, ctx) -> None:
        """Show the answers of the sample that was selected in the grid."""

    def answered(self, ctx) -> None:
        """Show the newest answer in the place of the progress."""
        ctx.panel.set_data({"progress": ""})

    @_event
    def typed(self, ctx) -> None:
        """Ask when the user presses Enter."""
        self._ask(ctx, str(ctx.params.get("value") or ""))

    @_event
    def ask(self, ctx) -> None:
        """Ask the typed expression."""
        self._ask(ctx, str((ctx.panel_state or {}).get("expression") or ""))

    @_event
    def stop(self, ctx) -> None:
        """Stop the question about this sample."""
        if not answering.stop(ctx.dataset.name, _sample_id(ctx)):
            ctx.panel.set_data({"progress": ""})

    @_event
    def keep(self, ctx) -> None:
        """Keep the answer as ground truth."""
        self._keep(ctx)

    @_event
    def nothing(self, ctx) -> None:
        """Keep as ground truth that the expression refers to nothing here."""
        self._keep(ctx, nothing=True)

    @_event
    def wrong(self, ctx) -> None:
        """Note that the answer is wrong, and open it to be corrected."""
        corrections.mark_wrong(*_answer(ctx), by=_user(ctx))
        self._open_editor(ctx)
        self._changed(ctx)

    @_event
    def forget(self, ctx) -> None:
        """Take back the kept answer and the verdict."""
        corrections.forget(*_answer(ctx))
        self._changed(ctx)

    @_event
    def delete(self, ctx) -> None:
        """Remove the answer."""
        corrections.delete(*_answer(ctx))
        self._changed(ctx)

    @_event
    def on_all(self, ctx) -> None:
        """Open "Referring segment" with the expression."""
        params = settings.load(ctx.dataset) | {"source": "typed", "expressions": ctx.params["expression"]}
        ctx.prompt(uris.SEGMENT, params=params)

    @_event
    def correct(self, ctx) -> None:
        """Open the boxes and points of the answer."""
        self._open_editor(ctx)

    @_event
    def done(self, ctx) -> None:
        """Close the editor."""
        _choices.choose(ctx, correcting=None)

    @_event
    def choose_part(self, ctx) -> None:
        """Choose the part that the arrows move."""
        _choices.choose(ctx, part=ctx.params.get("value"))

    @_event
    def choose_step(self, ctx) -> None:
        """Choose how far the arrows move."""
        _choices.choose(ctx, step=ctx.params.get("value"))

    @_event
    def move(self, ctx) -> None:
        """Move a part by a step, and segment again."""
        prompts, size = self._prompts(ctx)
        chosen = _choices.chosen(ctx)
        moved = _editor.moved(prompts, chosen.get("part"), ctx.params["direction"], chosen.get("step"), size)
        self._again(ctx, moved)

    @_event
    def add_inside(self, ctx) -> None:
        """Add a point inside the first chosen instance."""
        self._add(ctx, negative=False)

    @_event
    def add_outside(self, ctx) -> None:
        """Add a point outside the chosen instance."""
        self._add(ctx, negative=True)

    @_event
    def again(self, ctx) -> None:
        """Segment again from the boxes and points as they are on the sample.

        Anyone may have changed them.
        """
        self._again(ctx, self._prompts(ctx)[0])

    @_event
    def again_from_text(self, ctx) -> None:
        """Segment again from the numbers that are typed."""
        text = str((ctx.panel_state or {}).get("prompt") or "")
        self._again(ctx, prompt_text.read(text, self._prompts(ctx)[1]))

    def render(self, ctx) -> types.Property:
        """Return the layout: the question, its progress, and the answers of the sample."""
        panel = types.Object()
        sample_id = _sample_id(ctx)
        if ctx.dataset is None or not sample_id:
            hint = "Open a sample, or select one in the grid." if ctx.dataset is not None else "Open a dataset first."
            _layout.text(panel, "hint", "Ask about a sample", hint)
            return _layout.column(panel)
        request = settings.request_for(ctx.dataset)
        if ctx.current_sample:
            view = types.TextFieldView(multiline=True, rows=1, placeholder="the dog left of the bench, then Enter")
            panel.str("expression", label="What to look for", view=view, on_change=self.typed)
        row = _layout.row(panel, "question")
        if ctx.current_sample:
            _layout.button(row, "ask", "Ask", self.ask, variant="contained")
            _layout.button(row, "stop", "Stop", self.stop)
        else:
            params = {"sample_id": sample_id}
            _layout.button(row, "ask", "Ask", uris.ASK, variant="contained", prompt=True, params=params)
        _layout.button(row, "settings", "Settings", uris.ASK_SETTINGS, prompt=True)
        model = request.served_model or request.checkpoint or "the server's model"
        place = f" on {request.server}" if request.server else ""
        _layout.text(panel, "model", f"Asks {model}{place}, writes to {request.output_field}")
        if request.name == "nano" and not is_rendered(ctx.dataset):
            panel.view("about_nano", types.Warning(label=f"{messages.NANO_IN_A_FORM}: press Settings"))
        panel.str("progress", view=types.MarkdownView())
        try:
            outputs.complete(ctx.dataset, request.output_field)
            sample = sample_of(ctx.dataset, sample_id)
            self._add_answers(ctx, panel, sample, request.output_field)
        except Exception as error:  # noqa: BLE001 - a panel shows its error instead of vanishing
            panel.view("problem", types.Error(label=messages.sentence(error)))
        return _layout.column(panel)

    def _add_answers(self, ctx, panel: types.Object, sample: fo.Sample, field: str) -> None:
        correcting = _choices.chosen(ctx).get("correcting")
        answers = cards(sample, field)[::-1]
        if not answers:
            _layout.text(panel, "none", "Nothing was asked of this sample yet.")
        for number, card in enumerate(answers[: _answers.SHOWN]):
            kept = corrections.is_kept(sample, card.expression)
            keeping = [("forget", "Take back", self.forget)] if kept or card.verdict else []
            if not kept or not card.verdict:  # corrected since it was kept
                keeping = [("keep", "Keep", self.keep), ("nothing", "Nothing is meant", self.nothing), *keeping]
            buttons = [
                *keeping,
                ("wrong", "Wrong", self.wrong),
                ("correct", "Correct", self.correct),
                ("all", "Ask on all", self.on_all),
                ("delete", "Delete", self.delete),
            ]
            _answers.add_card(panel, number, card, buttons)
            if card.expression == correcting:
                prompts = corrections.prompts_of(sample, field, normalize_expression(card.expression))
                _editor.add(panel, self, prompts, _choices.chosen(ctx), typing=bool(ctx.current_sample))
        if len(answers) > _answers.SHOWN:
            _layout.text(panel, "more", f"and {len(answers) - _answers.SHOWN} earlier answers")

    def _ask(self, ctx, text: str) -> None:
        expression = normalize_expression(text)
        if not expression:
            return
        ctx.panel.set_state("expression", "")
        ctx.panel.set_data({"progress": f"**{messages.plain(expression)}**: starting ..."})
        params = {"panel_id": ctx.panel.id, "sample_id": _sample_id(ctx), "expression": expression}
        ctx.trigger(uris.ASK, params)

    def _keep(self, ctx, nothing: bool = False) -> None:
        new = ctx.dataset.get_field(corrections.MASKS) is None
        corrections.keep(*_answer(ctx), by=_user(ctx), nothing=nothing)
        if new:
            ctx.trigger(uris.SHOW_FIELD, {"field": corrections.MASKS, "panel_id": ctx.panel.id})
        self._changed(ctx)

    def _open_editor(self, ctx) -> None:
        new = corrections.offer_boxes(ctx.dataset, _field(ctx))
        _choices.choose(ctx, correcting=normalize_expression(ctx.params["expression"]), part=None)
        prompts, _ = self._prompts(ctx)
        self._write_numbers(ctx, prompts)
        if new and ctx.current_sample:
            ctx.trigger(uris.SHOW_FIELD, {"field": boxes_field(_field(ctx)), "panel_id": ctx.panel.id})

    def _write_numbers(self, ctx, prompts: list) -> None:
        """Show boxes and points as numbers.

        The numbers are not in the panel's state. If the panel stands beside the grid, a change of its state would clear
        the filters.
        """
        if ctx.current_sample:
            ctx.panel.set_state("prompt", prompt_text.write(prompts))

    def _prompts(self, ctx) -> tuple[list, tuple[int, int]]:
        """Return the boxes and points that are corrected, and the size of the image."""
        sample, field = sample_of(ctx.dataset, _sample_id(ctx)), _field(ctx)
        expression = str(_choices.chosen(ctx).get("correcting") or "")
        return corrections.prompts_of(sample, field, expression), corrections.image_size(sample.filepath)

    def _add(self, ctx, negative: bool) -> None:
        prompts, size = self._prompts(ctx)
        self._again(ctx, _editor.with_point(prompts, _choices.chosen(ctx).get("part"), negative, size))

    def _again(self, ctx, prompts: list) -> None:
        expression = str(_choices.chosen(ctx).get("correcting") or "")
        secrets = ctx.secret("OPENAI_API_KEY"), ctx.secret("HF_TOKEN")
        request = settings.request_for(ctx.dataset, expression)
        with answering.warm_model(request, *secrets) as model:
            corrections.segment_again(ctx.dataset, _sample_id(ctx), _field(ctx), expression, prompts, model, _user(ctx))
        self._write_numbers(ctx, prompts)
        self._changed(ctx)

    def _changed(self, ctx) -> None:
        """Show the sample as it is now."""
        sample = sample_of(ctx.dataset, _sample_id(ctx))
        ctx.trigger(uris.SHOW_SAMPLE, {"sample": answering.as_app_reads(sample)})


def _sample_id(ctx) -> str:
    """Return the open sample, or the sample that is selected in the grid; "" for none."""
    selected = list(ctx.selected or [])
    return str(ctx.current_sample or (selected[0] if len(selected) == 1 else ""))


def _field(ctx) -> str:
    return settings.request_for(ctx.dataset).output_field


def _answer(ctx) -> tuple[fo.Dataset, str, str, str]:
    """Return dataset, sample, field and expression of the pressed button's answer."""
    return ctx.dataset, _sample_id(ctx), _field(ctx), str(ctx.params["expression"])


def _user(ctx) -> str | None:
    """Return the name of the App's user; None if the App knows none."""
    user = getattr(ctx, "user", None)
    return getattr(user, "name", None) or getattr(user, "email", None)
