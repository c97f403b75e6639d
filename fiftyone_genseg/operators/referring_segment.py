"""The operator "Referring segment": words in, masks on every image out."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.operator import RiskLevel
from genseg_hub import checkpoints
from genseg_hub.options import HubOptions, pick

from fiftyone_genseg import default_checkpoint
from fiftyone_genseg.fields import check_view, expression_fields
from fiftyone_genseg.operators import _forms, _progress, _results, _served_models
from fiftyone_genseg.segmentation import engines
from fiftyone_genseg.segmentation.request import (
    DEFAULT_EXPRESSION,
    FIELD,
    LOCAL,
    MAX_BATCH_SIZE,
    MODEL_OPTIONS,
    OVERWRITE,
    RAY,
    SKIP,
    TYPED,
    SegmentRequest,
)
from fiftyone_genseg.segmentation.run import segment_view


class ReferringSegment(foo.Operator):
    """Segment the instances that expressions mean."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Return the name of the operator and the ways to run it."""
        return _progress.config(
            "referring_segment",
            "Referring segment",
            "Describe things in words and get their masks on every image",
            "auto_fix_high",
            risk_level=RiskLevel.MEDIUM,
        )

    def __call__(
        self,
        samples: fo.Dataset | fo.DatasetView,
        expressions: str | Sequence[str] | None = None,
        expression_field: str | None = None,
        *,
        classes: Mapping[str, str] | None = None,
        delegate: bool = False,
        **options: Any,
    ):
        """Run the operator from Python.

        Args:
            samples: a dataset or view of images.
            expressions: asked of every image; a string is one expression.
            expression_field: field with each sample's own expression, or list of them, in place of `expressions`.
            classes: expression -> class, the label of its masks; see `SegmentRequest`.
            delegate: run it in the background, see `fiftyone delegated launch`.
            options: other fields of `SegmentRequest`, such as `checkpoint`, `output_field` and `batch_size`, and the
                names in `request.MODEL_OPTIONS`, such as `max_pixels`.

        Raises:
            ValueError, CheckpointError, ReasonerError: the request cannot be run.
        """
        check_view(samples)
        typed = (expressions,) if isinstance(expressions, str) else tuple(expressions or ())
        model_options = {name: options.pop(name) for name in MODEL_OPTIONS if name in options}
        request = SegmentRequest(typed, expression_field, classes or {}, model_options=model_options, **options)
        params = request.to_params() | {"raise_errors": True}
        return foo.execute_operator(self.uri, {"view": samples.view()}, params=params, request_delegation=delegate)

    def resolve_input(self, ctx) -> types.Property:
        """Return the form."""
        view = _forms.target_view(ctx)
        if hopeless := _forms.unusable(view):
            return _forms.alone("Referring segment", hopeless)
        inputs = types.Object()
        default = {"checkpoint": default_checkpoint.find().name}
        request = SegmentRequest.from_params(view, default | _forms.filled(ctx.params))
        untouched = SegmentRequest.from_params(view, default)
        _forms.show_problem(inputs, request.problem(view))
        if about_nano := _forms.about_nano(view, request.name):
            inputs.view("about_nano", types.Warning(label=about_nano))
        names = expression_fields(view)
        source = types.RadioGroup()
        source.add_choice(TYPED, label="Type them")
        if names:
            source.add_choice(FIELD, label="Take them from a field")
        default_source = FIELD if untouched.expression_field else TYPED
        inputs.enum("source", source.values(), label="Expressions", default=default_source, view=source)
        if names and ctx.params.get("source", default_source) == FIELD:
            inputs.enum(
                "expression_field",
                names,
                label="Field",
                description="The field that holds each sample's expression, or a list of them",
                default=untouched.expression_field or names[0],
                view=_forms.dropdown(names),
            )
        else:
            inputs.str(
                "expressions",
                label="What to look for",
                description="One expression per line, which is also the label of its masks. "
                "For another label write: the red car -> car",
                default=DEFAULT_EXPRESSION,
                view=types.TextFieldView(multiline=True, rows=3),
            )
        if request.name is not None:
            inputs.str(
                "checkpoint",
                label="Checkpoint",
                description="A known name, any Hub id (owner/name or owner/name@revision), or the absolute path of "
                "a folder",
                default=untouched.checkpoint,
                view=_forms.checkpoint_choices(),
            )
        inputs.str(
            "output_field",
            label="Output field",
            description="Masks are stored here. Fields of this name with _boxes, _points, _outcome and _responses "
            "hold the rest",
            default=untouched.output_field,
            view=_forms.suggestions(_forms.result_fields(view)),
        )
        existing = types.RadioGroup()
        existing.add_choice(SKIP, label="Keep it and skip")
        existing.add_choice(OVERWRITE, label="Ask again and overwrite")
        inputs.enum(
            "existing",
            existing.values(),
            label="If an expression already has a result",
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
            inputs.str(
                "images",
                label="Images",
                description="Source of the images for workers without this disk: /data/photos=s3://bucket/photos. "
                "Empty for the samples' paths",
                required=False,
            )
        else:
            inputs.enum(
                "device", _forms.DEVICES, label="Device", default=untouched.device, view=_forms.dropdown(_forms.DEVICES)
            )
        _forms.ask_for_server(
            inputs, "Empty to load the reasoner here. Clear the checkpoint to take the server's only model."
        )
        _served_models.ask_for_served_model(inputs, request.server)
        if request.name is None:
            _forms.ask_for_segmenter(inputs)
        _forms.ask_for_model_options(inputs, ctx.params)
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
    request = SegmentRequest.from_params(view, _forms.filled(ctx.params))
    problem = request.problem(view)
    if view is None or problem:
        raise ValueError(problem)
    options = {**request.model_options, "token": ctx.secret(_forms.HUB_TOKEN)}
    here, dialect = request.server is None, options.get("dialect")
    name = request.name
    if name is not None and not checkpoints.is_on_disk(name, here, dialect, pick(HubOptions, options)):
        yield from _progress.pulling(ctx, name, here, options)
    started = time.monotonic()
    with engines.opened(request, ctx.secret(_forms.SERVER_KEY), options["token"], keep=True) as engine:
        for summary in segment_view(view, request, engine):
            yield from _progress.tell(ctx, summary.share_done, summary.progress(time.monotonic() - started))
    told = [text for text in (summary.advice, _forms.about_nano(view, name)) if text]
    variant = "warning" if told or summary.statuses["failed"] else "success"
    return _progress.Done(
        ". ".join([str(summary), *told, *engine.notes]),
        variant,
        (ctx.ops.reload_dataset,),
        {"Masks in the field": request.output_field, "Checkpoint": engine.checkpoint},
        (_results.evaluate(request.output_field),),
    )
