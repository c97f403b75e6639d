"""The operator "Referring segment": words in, masks on every image out."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Generator, Iterator
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from genseg_hub import checkpoints
from genseg_hub.checkpoints.catalog import NANO
from genseg_hub.errors import CheckpointError

from fiftyone_genseg import labels, segmentation
from fiftyone_genseg.fields import check_expressions, check_view, string_fields
from fiftyone_genseg.operators import _forms, _progress
from fiftyone_genseg.segmentation import engines

DEFAULT_FIELD = "genseg"
DEFAULT_EXPRESSION = "the main object"
_DEVICES = ("auto", "cpu", "cuda", "mps")


class ReferringSegment(foo.Operator):
    """Segment what expressions refer to. The form and `execute` validate with the same function."""

    @property
    def config(self) -> foo.OperatorConfig:
        return _progress.config(
            "referring_segment", "Referring segment", "Describe things in words and get their masks on every image"
        )

    def __call__(
        self,
        samples: fo.Dataset | fo.DatasetView,
        expressions: str | list[str] | None = None,
        expression_field: str | None = None,
        checkpoint: str = NANO,
        output_field: str = DEFAULT_FIELD,
        existing: str = segmentation.SKIP,
        batch_size: int = 8,
        device: str = "auto",
        engine: str = engines.LOCAL,
        workers: int = 2,
        server: str | None = None,
        delegate: bool = False,
    ):
        """Run the operator from Python: see `segmentation.segment_view` and `engines.opened` for the arguments."""
        typed = [expressions] if isinstance(expressions, str) else expressions or []
        params = {
            "source": "field" if expression_field else "typed",
            "expressions": "\n".join(" ".join(e.split()) for e in typed),
            "raise_errors": True,
            "expression_field": expression_field,
            "checkpoint": checkpoint,
            "output_field": output_field,
            "existing": existing,
            "batch_size": batch_size,
            "device": device,
            "engine": engine,
            "workers": workers,
            "server": server,
        }
        return foo.execute_operator(self.uri, {"view": samples.view()}, params=params, request_delegation=delegate)

    def resolve_input(self, ctx) -> types.Property:
        inputs = types.Object()
        view = ctx.target_view() if ctx.dataset is not None else None
        fields = string_fields(view)
        has_field = bool(fields)
        source_choices = types.RadioGroup()
        source_choices.add_choice("typed", label="Type them")
        if has_field:
            source_choices.add_choice("field", label="Take them from a field")
        default_source = _defaults(view)["source"]
        inputs.enum("source", source_choices.values(), label="Expressions", default=default_source, view=source_choices)
        if ctx.params.get("source", default_source) == "field" and has_field:
            inputs.enum(
                "expression_field",
                fields,
                label="Field",
                description="The string field that holds each sample's expression",
                default=_defaults(view)["expression_field"],
                view=_forms.dropdown(fields),
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
            default=NANO,
            view=_forms.checkpoint_choices(),
        )
        inputs.str(
            "output_field",
            label="Output field",
            description="Masks are stored here, every response in <field>_responses",
            default=DEFAULT_FIELD,
        )
        existing = types.RadioGroup()
        existing.add_choice(segmentation.SKIP, label="Keep it and skip")
        existing.add_choice(segmentation.OVERWRITE, label="Ask again and overwrite")
        inputs.enum(
            "existing",
            existing.values(),
            label="Where an expression already has a result",
            default=segmentation.SKIP,
            view=existing,
        )
        inputs.int(
            "batch_size", label="Batch size", description="Expressions answered at once", default=8, min=1, max=512
        )
        if importlib.util.find_spec("ray"):
            engine = types.RadioGroup()
            engine.add_choice(engines.LOCAL, label="This process")
            engine.add_choice(engines.RAY, label="Workers on Ray")
            inputs.enum("engine", engine.values(), label="Where it runs", default=engines.LOCAL, view=engine)
        if ctx.params.get("engine") == engines.RAY:
            inputs.int("workers", label="Workers", description="Processes with a model each", default=2, min=1)
        else:
            inputs.enum("device", _DEVICES, label="Device", default="auto", view=_forms.dropdown(_DEVICES))
        _forms.ask_for_server(inputs, "Empty to load the reasoner here.")
        problem = _problem(view, ctx.params)
        if problem:
            _forms.show_problem(inputs, problem)
        return types.Property(inputs, view=types.View(label="Referring segment"))

    def resolve_placement(self, ctx) -> types.Placement:
        button = types.Button(label="Referring segment", icon="auto_fix_high", prompt=True)
        return types.Placement(types.Places.SAMPLES_GRID_SECONDARY_ACTIONS, button)

    def execute(self, ctx) -> Iterator:
        """See `_progress.run`."""
        return _progress.run(ctx, _segment(ctx), "Referring segment stopped")


def _segment(ctx) -> Generator[Any, None, _progress.Done]:
    view, params = _checked(ctx)
    with_reasoner = _forms.server(params) is None
    if not checkpoints.is_on_disk(params["checkpoint"], with_reasoner):
        yield from _progress.pulling(ctx, params["checkpoint"], with_reasoner)
    started, summary = time.monotonic(), segmentation.Summary()
    for summary in _run(view, params, ctx.secret(_forms.SERVER_KEY)):
        yield from _progress.tell(ctx, *_share_and_rate(summary, time.monotonic() - started))
    variant = "warning" if summary.statuses["failed"] else "success"
    return _progress.Done(describe(summary.to_dict()), variant, (ctx.ops.reload_dataset,))


def _checked(ctx) -> tuple[fo.DatasetView, dict]:
    """The view and all parameters; raises ValueError where the operator cannot run."""
    view = ctx.target_view() if ctx.dataset is not None else None
    problem = _problem(view, ctx.params)
    if problem:
        raise ValueError(problem)
    return view, _filled(view, ctx.params)


def _run(view: fo.DatasetView, params: dict, api_key: str | None) -> Iterator[segmentation.Summary]:
    by_field, name, server = params["source"] == "field", params["engine"], _forms.server(params)
    # A form that was filled before Ray was chosen still sends the device.
    device = params["device"] if name == engines.LOCAL else "auto"
    opened = engines.opened(
        name, params["checkpoint"], device=device, workers=params["workers"], server=server, api_key=api_key
    )
    with opened as (engine, checkpoint):
        yield from segmentation.segment_view(
            view,
            engine,
            checkpoint,
            params["output_field"],
            expressions=() if by_field else params["expressions"].split("\n"),
            expression_field=params["expression_field"] if by_field else None,
            existing=params["existing"],
            batch_size=params["batch_size"],
        )


def _share_and_rate(summary: segmentation.Summary, seconds: float) -> tuple[float, str]:
    """The share that is done, and a sentence."""
    share = summary.done / summary.total if summary.total else 1.0
    computed = summary.done - summary.skipped
    label = f"{summary.done} of {summary.total} expressions"
    if computed:
        rate = computed / seconds
        left = (summary.total - summary.done) / rate
        label += f", {rate:.1f} per second, {int(left // 60)}:{int(left % 60):02d} left"
    return share, label


def describe(summary: dict) -> str:
    """One sentence on what a run did.

    Args:
        summary: `segmentation.Summary.to_dict()`.
    """
    parts = [f"{summary['segmented']} segmented", f"{summary['no_target']} no-target"]
    if summary["unparsable"]:
        parts.append(f"{summary['unparsable']} unparsable")
    if summary["failed"]:
        parts.append(f"{summary['failed']} failed")
    if summary["skipped"]:
        parts.append(f"{summary['skipped']} skipped")
    worst = sorted(summary["reasons"].items(), key=lambda item: -item[1])[:3]
    why = f" ({'; '.join(f'{count} x {reason}' for reason, count in worst)})" if worst else ""
    return ", ".join(parts) + why


def _defaults(view) -> dict:
    """What an untouched form means."""
    fields = string_fields(view)
    preferred = "expression" if "expression" in fields else None
    return {
        "source": "field" if preferred else "typed",
        "expressions": DEFAULT_EXPRESSION,
        "expression_field": preferred or (fields[0] if fields else None),
        "checkpoint": NANO,
        "output_field": DEFAULT_FIELD,
        "existing": segmentation.SKIP,
        "batch_size": 8,
        "device": "auto",
        "engine": engines.LOCAL,
        "workers": 2,
    }


def _filled(view, raw: dict) -> dict:
    """Parameters with the defaults of an untouched form; expressions that are given are meant."""
    given = {key: value for key, value in raw.items() if value is not None}
    if "source" not in given and given.get("expressions"):
        given["source"] = "typed"
    return _defaults(view) | given


def _problem(view, raw: dict) -> str | None:
    """Why the operator cannot run with these parameters, as a sentence; None when it can."""
    if view is None:
        return "Open a dataset first."
    if not len(view):
        return "There are no samples to segment."
    params = _filled(view, raw)
    by_field = params["source"] == "field"
    try:
        check_view(view)
        lines = [line for line in str(params["expressions"]).split("\n") if line.strip()]
        check_expressions(view, [] if by_field else lines, params["expression_field"] if by_field else None)
    except ValueError as error:
        return _forms.sentence(error)
    if not isinstance(params["batch_size"], int) or not 1 <= params["batch_size"] <= 512:
        return f"The batch size must be between 1 and 512, not {params['batch_size']}."
    if params["existing"] not in (segmentation.SKIP, segmentation.OVERWRITE):
        return f"Where a result exists, choose skip or overwrite, not {params['existing']!r}."
    if params["engine"] not in engines.NAMES:
        return f"It runs on {' or '.join(engines.NAMES)}, not on {params['engine']!r}."
    if params["engine"] == engines.RAY and (not isinstance(params["workers"], int) or params["workers"] < 1):
        return f"There must be at least one worker, not {params['workers']}."
    try:
        labels.check_fields(view, str(params["output_field"]))
        server = _forms.server(params)
        if server and params["engine"] == engines.RAY:
            raise ValueError(engines.WORKERS_HAVE_NO_SERVER)
        _forms.check_checkpoint(str(params["checkpoint"]), with_reasoner=server is None)
    except (ValueError, CheckpointError) as error:
        return _forms.sentence(error)
    return None
