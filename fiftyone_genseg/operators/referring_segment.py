"""The operator "Referring segment": words in, masks on every image out."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from genseg_hub import checkpoints

from fiftyone_genseg.fields import string_fields
from fiftyone_genseg.operators import _forms, _progress
from fiftyone_genseg.segmentation import engines
from fiftyone_genseg.segmentation.request import (
    DEFAULT_EXPRESSION,
    FIELD,
    LOCAL,
    MAX_BATCH_SIZE,
    OVERWRITE,
    RAY,
    SKIP,
    TYPED,
    SegmentRequest,
)
from fiftyone_genseg.segmentation.run import segment_view

_DEVICES = ("auto", "cpu", "cuda", "mps")


class ReferringSegment(foo.Operator):
    """Segment what expressions refer to."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name and ways of running the operator."""
        return _progress.config(
            "referring_segment", "Referring segment", "Describe things in words and get their masks on every image"
        )

    def __call__(
        self,
        samples: fo.Dataset | fo.DatasetView,
        expressions: str | Sequence[str] | None = None,
        expression_field: str | None = None,
        *,
        delegate: bool = False,
        **options: Any,
    ):
        """Run the operator from Python.

        Args:
            samples: a dataset or view of images.
            expressions: asked of every image; a string is one expression.
            expression_field: string field with each sample's own expression, in place of `expressions`.
            delegate: run it in the background, see `fiftyone delegated launch`.
            options: other fields of `SegmentRequest`, such as `checkpoint`, `output_field` and `batch_size`.

        Raises:
            ValueError, CheckpointError, ReasonerError: the request cannot be run.
        """
        typed = (expressions,) if isinstance(expressions, str) else tuple(expressions or ())
        request = SegmentRequest(typed, expression_field, **options)
        params = request.to_params() | {"raise_errors": True}
        return foo.execute_operator(self.uri, {"view": samples.view()}, params=params, request_delegation=delegate)

    def resolve_input(self, ctx) -> types.Property:
        """Return the form."""
        inputs = types.Object()
        view = _forms.target_view(ctx)
        request, untouched = SegmentRequest.from_params(view, ctx.params), SegmentRequest.from_params(view, {})
        names = string_fields(view)
        source = types.RadioGroup()
        source.add_choice(TYPED, label="Type them")
        if names:
            source.add_choice(FIELD, label="Take them from a field")
        default = FIELD if untouched.expression_field else TYPED
        inputs.enum("source", source.values(), label="Expressions", default=default, view=source)
        if names and ctx.params.get("source", default) == FIELD:
            inputs.enum(
                "expression_field",
                names,
                label="Field",
                description="The string field that holds each sample's expression",
                default=untouched.expression_field or names[0],
                view=_forms.dropdown(names),
            )
        else:
            inputs.str(
                "expressions",
                label="What to look for",
                description="One expression per line, for example: the dog left of the bench",
                default=DEFAULT_EXPRESSION,
                view=types.TextFieldView(multiline=True, rows=3),
            )
        inputs.str(
            "checkpoint",
            label="Checkpoint",
            description="A known name, any Hub id (owner/name or owner/name@revision), or a folder",
            default=untouched.checkpoint,
            view=_forms.checkpoint_choices(),
        )
        inputs.str(
            "output_field",
            label="Output field",
            description="Masks are stored here, every response in <field>_responses",
            default=untouched.output_field,
        )
        existing = types.RadioGroup()
        existing.add_choice(SKIP, label="Keep it and skip")
        existing.add_choice(OVERWRITE, label="Ask again and overwrite")
        inputs.enum(
            "existing",
            existing.values(),
            label="Where an expression already has a result",
            default=untouched.existing,
            view=existing,
        )
        inputs.int(
            "batch_size",
            label="Batch size",
            description="Expressions answered at once",
            default=untouched.batch_size,
            min=1,
            max=MAX_BATCH_SIZE,
        )
        if importlib.util.find_spec("ray"):
            engine = types.RadioGroup()
            engine.add_choice(LOCAL, label="This process")
            engine.add_choice(RAY, label="Workers on Ray")
            inputs.enum("engine", engine.values(), label="Where it runs", default=untouched.engine, view=engine)
        if request.engine == RAY:
            inputs.int(
                "workers",
                label="Workers",
                description="Processes with a model each",
                default=untouched.workers,
                min=1,
            )
        else:
            inputs.enum("device", _DEVICES, label="Device", default=untouched.device, view=_forms.dropdown(_DEVICES))
        _forms.ask_for_server(inputs, "Empty to load the reasoner here.")
        problem = request.problem(view)
        if problem:
            _forms.show_problem(inputs, problem)
        return types.Property(inputs, view=types.View(label="Referring segment"))

    def resolve_placement(self, ctx) -> types.Placement:
        """Return the button beside the grid's other actions."""
        button = types.Button(label="Referring segment", icon="auto_fix_high", prompt=True)
        return types.Placement(types.Places.SAMPLES_GRID_SECONDARY_ACTIONS, button)

    def execute(self, ctx) -> Iterator:
        """Run the request; see `_progress.run` for the messages."""
        return _progress.run(ctx, _segment(ctx), "Referring segment stopped")


def _segment(ctx) -> Generator[Any, None, _progress.Done]:
    view = _forms.target_view(ctx)
    request = SegmentRequest.from_params(view, ctx.params)
    problem = request.problem(view)
    if view is None or problem:
        raise ValueError(problem)
    if not checkpoints.is_on_disk(request.checkpoint, with_reasoner=request.server is None):
        yield from _progress.pulling(ctx, request.checkpoint, request.server is None)
    started = time.monotonic()
    with engines.opened(request, ctx.secret(_forms.SERVER_KEY)) as engine:
        for summary in segment_view(view, request, engine):
            yield from _progress.tell(ctx, summary.share_done, summary.progress(time.monotonic() - started))
    variant = "warning" if summary.statuses["failed"] else "success"
    return _progress.Done(str(summary), variant, (ctx.ops.reload_dataset,))
