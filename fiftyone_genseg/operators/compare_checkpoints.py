"""The operator "Compare checkpoints": the same expressions asked of several checkpoints, evaluated side by side."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types
from genseg_hub import checkpoints
from genseg_hub.errors import CheckpointError
from genseg_hub.evaluation.metrics import DEFAULT_POLICY, POLICIES

from fiftyone_genseg import fields, labels, segmentation
from fiftyone_genseg.evaluation import checks, measuring
from fiftyone_genseg.operators import _forms, _progress
from fiftyone_genseg.operators.evaluate_referring_segmentation import describe
from fiftyone_genseg.panels import _runs
from fiftyone_genseg.segmentation import engines

PANEL = "referring_evaluation"
_EXPRESSION = checks.EXPRESSION


class CompareCheckpoints(foo.Operator):
    """One field of masks and one evaluation run per checkpoint, each named after it."""

    @property
    def config(self) -> foo.OperatorConfig:
        return _progress.config(
            "compare_checkpoints",
            "Compare checkpoints",
            "Segment with several checkpoints, evaluate each, and open them side by side",
        )

    def resolve_input(self, ctx) -> types.Property:
        inputs = types.Object()
        inputs.list(
            "checkpoints",
            types.String(),
            label="Checkpoints",
            description="Two or more: known names, Hub ids (owner/name or owner/name@revision), or folders",
            required=True,
            view=_forms.checkpoint_choices(),
        )
        inputs.str("gt_field", label="Ground truth", default=_forms.DEFAULT_TRUTH)
        inputs.str(
            "expression_field", label="Expressions", description="The sample field that holds them", default=_EXPRESSION
        )
        policies = types.DropdownView()
        for policy in POLICIES.values():
            policies.add_choice(policy.name, label=policy.name, description=policy.source)
        inputs.enum("policy", policies.values(), label="Policy", default=DEFAULT_POLICY, view=policies)
        inputs.int("batch_size", label="Batch size", default=8, min=1, max=512)
        inputs.str("device", label="Device", default="auto")
        _forms.ask_for_server(inputs, "Checkpoints that it serves are asked there, the others are loaded here.")
        problem = _problem(ctx)
        if problem is None:
            fields = "\n".join(f"- `{field}`: {name}" for name, field in fields_of(_asked(ctx)).items())
            inputs.md(
                f"Fields and runs; masks that are there are kept, runs are evaluated anew:\n\n{fields}", name="fields"
            )
        elif _asked(ctx):
            _forms.show_problem(inputs, problem)
        return types.Property(inputs, view=types.View(label="Compare checkpoints"))

    def execute(self, ctx) -> Iterator:
        """See `_progress.run`."""
        return _progress.run(ctx, _compare(ctx), "The comparison stopped")


def _compare(ctx) -> Generator[Any, None, _progress.Done]:
    """A checkpoint that cannot be loaded is reported at the end, and the others go on."""
    from genseg_hub.errors import ReasonerError

    problem = _problem(ctx)
    if problem:
        raise ValueError(problem)
    fields = fields_of(_asked(ctx))
    done: dict[str, str] = {}
    refused: list[str] = []
    server = _forms.server(ctx.params)
    served = (yield from _served(ctx, list(fields), server)) if server else set()
    for number, (name, field) in enumerate(fields.items()):
        try:
            done[field] = yield from _one(ctx, name, field, server if name in served else None, number, len(fields))
        except (CheckpointError, ReasonerError) as error:
            refused.append(str(error))
    if not done:
        raise ValueError("; ".join(refused))
    if not ctx.delegated:
        _runs.propose(ctx.dataset, list(done))
    return _progress.Done(
        "; ".join([*(f"{field}: {figures}" for field, figures in done.items()), *refused]),
        "warning" if refused else "success",
        (ctx.ops.reload_dataset, partial(ctx.ops.open_panel, PANEL, layout="horizontal")),
    )


def fields_of(names: list[str]) -> dict[str, str]:
    """Checkpoint -> the field of its masks, which is also the key of its run. The names are checked before."""
    fields: dict[str, str] = {}
    for name in names:
        checkpoint, segmenter = checkpoints.split_segmenter(name)
        parts = Path(os.path.abspath(Path(checkpoints.split_revision(checkpoint)[0]).expanduser())).parts
        own = parts[-2] if len(parts) > 1 and parts[-1] == "best" else parts[-1]  # a run's best checkpoint
        if segmenter:
            own += f"_{Path(checkpoints.split_revision(segmenter)[0]).name}"
        field = re.sub(r"\W+", "_", own).strip("_").lower()
        field = field if field[:1].isalpha() else f"checkpoint_{field}"
        taken = sum(other == field or re.fullmatch(rf"{field}_\d+", other) is not None for other in fields.values())
        fields[name] = f"{field}_{taken + 1}" if taken else field
    return fields


def _served(ctx, names: list[str], server: str) -> Generator[Any, None, set[str]]:
    """Those of the checkpoints that the server has.

    Raises:
        ReasonerError: it has none of them, or is not there.
    """
    from genseg_hub.errors import NotServedError
    from genseg_hub.reasoners.loading import connect

    served: set[str] = set()
    problem: NotServedError | None = None
    for name in names:
        try:
            if not checkpoints.is_on_disk(name, with_reasoner=False):
                yield from _progress.pulling(ctx, name, with_reasoner=False)
            found = checkpoints.pull(name, with_reasoner=False)
            connect(found, server, api_key=ctx.secret(_forms.SERVER_KEY))
            served.add(name)
        except NotServedError as error:
            problem = problem or error
        except CheckpointError:
            continue  # told when it is its turn
    if problem and not served:
        raise problem
    return served


def _one(ctx, name: str, field: str, server: str | None, number: int, count: int) -> Generator[Any, None, str]:
    """Segment and evaluate with one checkpoint, on a server if one is named; returns its figures as a sentence."""
    if not checkpoints.is_on_disk(name, with_reasoner=server is None):
        yield from _progress.pulling(ctx, name, with_reasoner=server is None)
    opened = engines.opened(
        engines.LOCAL,
        name,
        device=ctx.params.get("device") or "auto",
        server=server,
        api_key=ctx.secret(_forms.SERVER_KEY),
    )
    view = ctx.target_view()
    with opened as (engine, pinned):
        stored = f"{labels.responses_field(field)}.checkpoint"
        others = set(view.distinct(stored)) - {pinned} if view.get_field(stored) is not None else set()
        if others:
            raise CheckpointError(
                f"the field {field!r} has masks of {min(others)}, not of {pinned}; rename or delete it first"
            )
        for summary in segmentation.segment_view(
            view,
            engine,
            pinned,
            field,
            expression_field=ctx.params.get("expression_field") or _EXPRESSION,
            batch_size=ctx.params.get("batch_size") or 8,
        ):
            share = (number + (summary.done / summary.total if summary.total else 1.0)) / count
            yield from _progress.tell(ctx, share, f"{name}: {summary.done} of {summary.total} expressions")
    del engine
    gc.collect()  # the next one needs the memory
    runner = _runner(ctx, field)
    for _ in runner.run():
        yield from _progress.tell(ctx, (number + 1) / count, f"{name}: evaluating")
    assert runner.results is not None
    return describe(runner.results.figures()) + (" (asked on the server)" if server else "")


def _runner(ctx, field: str) -> measuring.Runner:
    return measuring.Runner(
        ctx.target_view(),
        field,
        ctx.params.get("gt_field") or _forms.DEFAULT_TRUTH,
        eval_key=field,
        policy=ctx.params.get("policy") or DEFAULT_POLICY,
        expression_field=ctx.params.get("expression_field") or _EXPRESSION,
    )


def _asked(ctx) -> list[str]:
    return list(dict.fromkeys(str(name).strip() for name in ctx.params.get("checkpoints") or [] if str(name).strip()))


def _problem(ctx) -> str | None:
    """Why the operator cannot run, as a sentence; None when it can."""
    if ctx.dataset is None:
        return "Open a dataset first."
    names = _asked(ctx)
    if len(names) < 2:
        return "Name two checkpoints or more."
    truth = ctx.params.get("gt_field") or _forms.DEFAULT_TRUTH
    try:
        view = ctx.target_view()
        fields.check_view(view)
        if not len(view):
            raise ValueError("there are no samples to segment")
        fields.check_expressions(view, [], ctx.params.get("expression_field") or _EXPRESSION)
        problem = _forms.examples_problem(ctx)
        if problem:
            return problem
        server = _forms.server(ctx.params)
        for name in names:
            _forms.check_checkpoint(name, with_reasoner=server is None)
        for name, field in fields_of(names).items():
            labels.check_fields(view, field)
            if field in ctx.dataset.list_evaluations():
                other = ctx.dataset.get_evaluation_info(field).config.pred_field
                if other != field:
                    raise ValueError(f"the run {field!r} is about the field {other!r}; rename or delete it first")
            if field == truth:
                raise ValueError(f"the field {field!r} of {name} holds the ground truth")
    except (ValueError, CheckpointError) as error:
        return _forms.sentence(error)
    return None
