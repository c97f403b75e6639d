"""Panel "Compare answers": the answers of two fields on one sample.

A button opens the next sample on which they differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.categories import Categories
from fiftyone.operators.panel import Panel
from genseg_hub.errors import ImageError
from genseg_hub.images import load_image

from fiftyone_genseg import icons, messages, proposals, uris
from fiftyone_genseg.asking.answering import sample_of
from fiftyone_genseg.evaluation import differences
from fiftyone_genseg.fields import sample_ids
from fiftyone_genseg.panels import _choices, _layout, _sides

_SHOWN = 6  # expressions of a sample; each has pictures


@dataclass(frozen=True)
class _Choice:
    first: str
    second: str
    threshold: float


class SideBySidePanel(Panel):
    """Two fields on the open sample, beside each other."""

    @property
    def config(self) -> foo.PanelConfig:
        """Return how FiftyOne lists the panel."""
        return foo.PanelConfig(
            name="side_by_side",
            label="Compare answers",
            icon="compare",
            **icons.of("side_by_side"),
            category=Categories.ANALYZE,
            surfaces="grid modal",
            help_markdown=(
                "The answers of two checkpoints on the open sample, beside each other.\n\n"
                "*Next difference* goes through the view in its order. Two answers differ by their outcome, or by "
                "masks with a smaller IoU than the chosen one. Only expressions that both fields were asked count."
            ),
        )

    def on_load(self, ctx) -> None:
        """Show the open sample."""

    def on_change_current_sample(self, ctx) -> None:
        """Show the sample that was opened."""
        ctx.panel.set_data({"said": ""})

    def on_change_selected(self, ctx) -> None:
        """Show the sample that was selected in the grid."""
        ctx.panel.set_data({"said": ""})

    def on_change_dataset(self, ctx) -> None:
        """Show the fields of the new dataset."""
        ctx.panel.set_data({"said": ""})

    def gone(self, ctx) -> str | None:
        """Return None: the panel shows no run that could be deleted."""
        return None

    @_choices.event
    def choose_first(self, ctx) -> None:
        """Choose the field on the left."""
        self._choose_field(ctx, "first", "second")

    @_choices.event
    def choose_second(self, ctx) -> None:
        """Choose the field on the right."""
        self._choose_field(ctx, "second", "first")

    @_choices.event
    def choose_threshold(self, ctx) -> None:
        """Choose below which IoU two answers differ."""
        _choices.choose(ctx, threshold=float(ctx.params["value"]))

    @_choices.event
    def next_difference(self, ctx) -> None:
        """Go to the next sample of the view on which the fields differ."""
        self._search(ctx, forward=True)

    @_choices.event
    def previous_difference(self, ctx) -> None:
        """Go to the last sample before this one on which the fields differ."""
        self._search(ctx, forward=False)

    @_choices.event
    def open(self, ctx) -> None:
        """Open the sample that is selected in the grid."""
        _open(ctx, _sample_id(ctx))

    def render(self, ctx) -> types.Property:
        """Return the layout and send its content."""
        panel = types.Object()
        if ctx.dataset is None:
            return _layout.next_step(panel, "No dataset", "Open a dataset first.")
        fields = differences.answer_fields(ctx.dataset)
        if len(fields) < 2:
            advice = "Segment with two checkpoints: each writes a field of its own."
            return _layout.next_step(panel, "Nothing to compare", advice, uris.COMPARE, "Compare checkpoints")
        choice = _choice(ctx, fields)
        menus = _layout.row(panel, "menus")
        _layout.dropdown(menus, "first", "Left", fields, choice.first, self.choose_first)
        _layout.dropdown(menus, "second", "Right", fields, choice.second, self.choose_second)
        thresholds = [str(value) for value in differences.THRESHOLDS]
        label = "Masks differ below IoU"
        _layout.dropdown(menus, "threshold", label, thresholds, str(choice.threshold), self.choose_threshold)
        actions = _layout.row(panel, "actions")
        _layout.button(actions, "previous", "Previous difference", self.previous_difference)
        _layout.button(actions, "next", "Next difference", self.next_difference, variant="contained")
        sample_id = _sample_id(ctx)
        if sample_id and not ctx.current_sample:
            _layout.button(actions, "open", "Open the sample", self.open)
        panel.str("said", view=types.MarkdownView())
        try:
            if sample_id:
                self._add_sample(ctx, panel, sample_of(ctx.dataset, sample_id), choice)
            else:
                _layout.text(panel, "none", "Open a sample, select one in the grid, or go to the next difference.")
        except Exception as error:  # noqa: BLE001 - a panel shows its error instead of vanishing
            panel.view("problem", types.Error(label=messages.sentence(error)))
        return _layout.column(panel)

    def _add_sample(self, ctx, panel: types.Object, sample: fo.Sample, choice: _Choice) -> None:
        names = choice.first, choice.second
        found = differences.pairs(sample, *names)
        found.sort(key=lambda pair: not pair.differs(choice.threshold))
        if not found:
            _layout.text(panel, "none", "Neither field has an answer on this sample.")
            return
        image = None
        try:
            image = load_image(sample.filepath)
        except ImageError as error:
            panel.view("no_image", types.Warning(label=messages.sentence(error)))
        data: dict[str, Any] = {}
        for number, pair in enumerate(found[:_SHOWN]):
            heading, sides = _sides.content(sample, image, pair, names, choice.threshold)
            _sides.add(panel, number, list(sides))
            data |= {f"about_{number}": heading, f"sides_{number}": sides}
        ctx.panel.set_data(data)
        if len(found) > _SHOWN:
            _layout.text(panel, "more", f"and {len(found) - _SHOWN} more expressions without a greater difference")

    def _choose_field(self, ctx, name: str, other: str) -> None:
        choice, value = _choice(ctx, differences.answer_fields(ctx.dataset)), ctx.params["value"]
        chosen = {"first": choice.first, "second": choice.second}
        if value == chosen[other]:
            chosen[other] = chosen[name]
        _choices.choose(ctx, **chosen | {name: value})

    def _search(self, ctx, forward: bool) -> None:
        """Look for a difference, from the last click's end on the same sample."""
        choice = _choice(ctx, differences.answer_fields(ctx.dataset))
        ids = list(dict.fromkeys(sample_ids(ctx.view)))
        if not forward:
            ids.reverse()
        current = _sample_id(ctx)
        further = ids[ids.index(current) + 1 :] if current in ids else ids
        question = [choice.first, choice.second, choice.threshold, forward, current]
        last = _choices.chosen(ctx).get("search") or {}
        reached = last.get("reached") if last.get("question") == question else None
        done = further.index(reached) + 1 if reached in further else 0
        found = differences.search(
            ctx.dataset, further[done:], choice.first, choice.second, choice.threshold, differences.SECONDS
        )
        done += found.searched
        stopped = found.sample_id is None and done < len(further)
        _choices.choose(ctx, search={"question": question, "reached": further[done - 1]} if stopped else None)
        if found.sample_id is not None:
            ctx.panel.set_data({"said": ""})
            _show(ctx, found.sample_id)
            return
        where = " of the view" if current not in ids else " after this one" if forward else " before this one"
        said = f"No {'further ' if current in ids else ''}difference among {_count(len(further))}{where}."
        if stopped:
            left = f"{len(further) - done:,}"
            said = f"No difference among {_count(done)} so far, {left} are left. Press the button again to go on."
        ctx.panel.set_data({"said": said})


def _choice(ctx, fields: list[str]) -> _Choice:
    """Return the user's choice, else the fields compared last, else the newest two."""
    chosen, compared = _choices.chosen(ctx), proposals.compared(ctx)
    pair = next(
        two
        for two in ([chosen.get("first"), chosen.get("second")], compared[:2], fields[-2:])
        if len(two) == 2 and all(name in fields for name in two)
    )
    return _Choice(str(pair[0]), str(pair[1]), chosen.get("threshold") or differences.THRESHOLDS[0])


def _sample_id(ctx) -> str:
    """Return the open sample, or the sample that is selected in the grid; "" for none."""
    selected = list(ctx.selected or [])
    return str(ctx.current_sample or (selected[0] if len(selected) == 1 else ""))


def _show(ctx, sample_id: str) -> None:
    """Open a sample if another one is open, else select it in the grid.

    The panel stands beside the grid in the second case.
    """
    if ctx.current_sample:
        _open(ctx, sample_id)
    else:
        ctx.ops.set_selected_samples([sample_id])


def _open(ctx, sample_id: str) -> None:
    group_field = ctx.dataset.group_field
    group = sample_of(ctx.dataset, sample_id)[group_field].id if group_field else None
    ctx.ops.open_sample(id=sample_id, group_id=group)


def _count(number: int) -> str:
    return f"{number:,} sample{'' if number == 1 else 's'}"
