"""Operator "Compare checkpoints": several answer and are evaluated side by side."""

from __future__ import annotations

import dataclasses
import gc
import os
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.operator import RiskLevel
from genseg_hub import checkpoints
from genseg_hub.errors import CheckpointError, NotServedError, ReasonerError
from genseg_hub.evaluation.metrics import POLICIES
from genseg_hub.options import OF_WEIGHTS, HubOptions, ServerOptions, pick

from fiftyone_genseg import labels, proposals
from fiftyone_genseg.evaluation.measuring import measure
from fiftyone_genseg.evaluation.request import EvaluationRequest
from fiftyone_genseg.evaluation.writing import write
from fiftyone_genseg.fields import EXPRESSION, check_named, expression_fields
from fiftyone_genseg.messages import sentence
from fiftyone_genseg.operators import _forms, _progress, _results, _served_models
from fiftyone_genseg.segmentation import engines
from fiftyone_genseg.segmentation.request import MAX_BATCH_SIZE, MODEL_OPTIONS, SegmentRequest
from fiftyone_genseg.segmentation.run import segment_view

PANEL = "referring_evaluation"


@dataclass(frozen=True)
class ComparisonRequest:
    """A request to segment and evaluate with several checkpoints.

    Attributes:
        checkpoints: names, each once.
        gt_field, policy: see `EvaluationRequest`.
        expression_field, batch_size, device: see `SegmentRequest`.
        server: address of a server; checkpoints that it serves are asked there, the others are loaded here.
        served_models: names of models on the server that are no checkpoints; they are compared like checkpoints.
        segmenter: segmenter of the served models; None for SAM 2.1 large.
        model_options: options of all checkpoints, see `SegmentRequest`; options of the weights are left out for served
            models.
    """

    checkpoints: tuple[str, ...] = ()
    gt_field: str = EvaluationRequest.gt_field
    policy: str = EvaluationRequest.policy
    expression_field: str = EXPRESSION
    batch_size: int = SegmentRequest.batch_size
    device: str = SegmentRequest.device
    server: str | None = None
    served_models: tuple[str, ...] = ()
    segmenter: str | None = None
    model_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> ComparisonRequest:
        """Read a form; missing and empty values mean the defaults."""
        given = {name: params[name] for name in cls.__dataclass_fields__ if params.get(name)}
        for name in ("checkpoints", "served_models"):
            names = dict.fromkeys(str(one).strip() for one in given.pop(name, ()))
            given[name] = tuple(one for one in names if one)
        for name in ("server", "segmenter"):
            given[name] = str(given.get(name) or "").strip() or None
        if given["server"] is None:
            given |= {"served_models": (), "segmenter": None}  # of a form whose address was taken out again
        given["model_options"] = {name: params[name] for name in MODEL_OPTIONS if params.get(name)}
        return cls(**given)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the checkpoints and the served models."""
        return self.checkpoints + self.served_models

    @property
    def fields(self) -> dict[str, str]:
        """Return checkpoint or served model -> the field of its masks.

        The field's name is also the key of its run.

        Raises:
            CheckpointError: a name that can be no checkpoint.
        """
        fields: dict[str, str] = {}
        for name in self.names:
            own = name.rpartition("/")[2] if name in self.served_models else _own_name(name)
            field = re.sub(r"\W+", "_", own).strip("_").lower()
            field = field if field[:1].isalpha() else f"checkpoint_{field}"
            taken = sum(other == field or re.fullmatch(rf"{field}_\d+", other) is not None for other in fields.values())
            fields[name] = f"{field}_{taken + 1}" if taken else field
        return fields

    def segmentation(self, name: str, field: str, served: bool) -> SegmentRequest:
        """Return the request to segment with one of the checkpoints or served models.

        Args:
            name: one of `names`.
            field: field of its masks.
            served: whether the server has it.
        """
        which: dict[str, Any] = {"checkpoint": name}
        if name in self.served_models:
            which = {"served_model": name, "segmenter": self.segmenter}
        others = OF_WEIGHTS if served else tuple(ServerOptions.__dataclass_fields__)
        if name in self.checkpoints and checkpoints.is_sam3(name):  # it has no reasoner
            others, served = tuple(set(MODEL_OPTIONS) - set(HubOptions.__dataclass_fields__)), False
        return SegmentRequest(
            expression_field=self.expression_field,
            **which,
            output_field=field,
            batch_size=self.batch_size,
            device=self.device,
            server=self.server if served else None,
            model_options={name: value for name, value in self.model_options.items() if name not in others},
        )

    def evaluation(self, field: str) -> EvaluationRequest:
        """Return the request to evaluate one of the fields, in place of an earlier run."""
        return EvaluationRequest(field, self.gt_field, field, self.policy, expression_field=self.expression_field)

    def problem(self, samples: fo.DatasetView | None) -> str | None:
        """Return why the request cannot be run, as a sentence; None when it can."""
        if samples is None:
            return "Open a dataset first."
        if len(self.names) < 2:
            return "Name two checkpoints or more." + (" Models of the server count." if self.server else "")
        if twice := set(self.checkpoints) & set(self.served_models):
            return f"{min(twice)!r} is named as a checkpoint and as a model of the server: take it out of one list."
        if not labels.is_detections(samples, self.gt_field):
            return f"The ground truth field {self.gt_field!r} holds no Detections: choose another."
        try:
            if not len(samples):
                raise ValueError("there are no samples to segment; clear the filters")
            for name in self.checkpoints:  # before a field is named after one that is none
                dialect = None if checkpoints.is_sam3(name) else self.model_options.get("dialect")
                checkpoints.check_available(name, self.server is None, dialect)
            for name, field in self.fields.items():
                self.segmentation(name, field, served=self.server is not None).check(samples)
                self._check_run(samples, name, field)
            check_named(samples, self.expression_field, self.gt_field)
        except (ValueError, CheckpointError) as error:
            return sentence(error)
        return None

    def _check_run(self, samples: fo.DatasetView, name: str, field: str) -> None:
        if field == self.gt_field:
            raise ValueError(f"the field {field!r} of {name} holds the ground truth; rename the ground truth")
        if field in samples.list_evaluations():
            other = samples._dataset.get_evaluation_info(field).config.pred_field
            if other != field:
                raise ValueError(f"the run {field!r} is about the field {other!r}; rename or delete it first")


def _own_name(checkpoint: str) -> str:
    """Return the end of a checkpoint's Hub id or folder, with its segmenter."""
    reasoner, segmenter = checkpoints.split_segmenter(checkpoint)
    parts = Path(os.path.abspath(Path(checkpoints.split_revision(reasoner)[0]).expanduser())).parts
    own = parts[-2] if len(parts) > 1 and parts[-1] == "best" else parts[-1]  # a run's best checkpoint
    if not segmenter:
        return own
    segmenter, agent = checkpoints.split_agent(segmenter)
    return f"{own}{'_agent' if agent else ''}_{Path(checkpoints.split_revision(segmenter)[0]).name}"


class CompareCheckpoints(foo.Operator):
    """One field of masks and one evaluation run per checkpoint, each named after it."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Return the name of the operator and the ways to run it."""
        return _progress.config(
            "compare_checkpoints",
            "Compare checkpoints",
            "Segment with several checkpoints, evaluate each, and open them side by side",
            "compare",
            risk_level=RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx) -> types.Property:
        """Return the form."""
        view = _forms.target_view(ctx)
        if hopeless := _forms.unusable(view):
            return _forms.alone("Compare checkpoints", hopeless)
        inputs = types.Object()
        request = ComparisonRequest.from_params(ctx.params)
        problem = request.problem(view)
        _forms.show_problem(inputs, problem, untouched=not request.names)
        inputs.list(
            "checkpoints",
            types.String(),
            label="Checkpoints",
            description="Two or more: known names, Hub ids (owner/name or owner/name@revision), or folders",
            required=not request.served_models,
            view=_forms.checkpoint_choices(),
        )
        _forms.ask_for_truth(inputs, view)
        names = expression_fields(view) or [ComparisonRequest.expression_field]
        inputs.enum(
            "expression_field",
            names,
            label="Expressions",
            description="The sample field that holds the expressions",
            default=request.expression_field if request.expression_field in names else names[0],
            view=_forms.dropdown(names),
        )
        policies = types.DropdownView()
        for policy in POLICIES.values():
            policies.add_choice(policy.name, label=policy.name, description=policy.source)
        inputs.enum("policy", policies.values(), label="Policy", default=ComparisonRequest.policy, view=policies)
        inputs.int("batch_size", label="Batch size", default=ComparisonRequest.batch_size, min=1, max=MAX_BATCH_SIZE)
        devices = _forms.dropdown(_forms.DEVICES)
        inputs.enum("device", devices.values(), label="Device", default=ComparisonRequest.device, view=devices)
        _forms.ask_for_server(inputs, "Checkpoints that it serves are asked there; all others are loaded here.")
        _served_models.ask_for_served_models(inputs, request.server)
        if request.served_models:
            _forms.ask_for_segmenter(inputs, "For the models of the server.")
        _forms.ask_for_model_options(inputs, ctx.params)
        if problem is None:
            fields = "\n".join(f"- `{field}`: {name}" for name, field in request.fields.items())
            inputs.md(
                f"Fields and their runs; existing masks are kept, runs are evaluated anew:\n\n{fields}", name="fields"
            )
        return types.Property(inputs, view=types.View(label="Compare checkpoints"))

    def execute(self, ctx) -> Iterator:
        """Run the request; see `_progress.run` for the messages."""
        return _progress.run(ctx, _compare(ctx), "The comparison stopped")


def _compare(ctx) -> Generator[Any, None, _progress.Done]:
    """Compare the checkpoints that load, and report the others at the end."""
    request = ComparisonRequest.from_params(ctx.params)
    view = _forms.target_view(ctx)
    problem = request.problem(view)
    if view is None or problem:
        raise ValueError(problem)
    done: dict[str, str] = {}
    warnings: list[str] = []
    served = {*(yield from _served(ctx, request)), *request.served_models} if request.server else set()
    for number, (name, field) in enumerate(request.fields.items()):
        try:
            done[field], advice = yield from _one(ctx, view, request, name, field, name in served, number)
            warnings += [f"{field}: {advice}"] if advice else []
        except (CheckpointError, ReasonerError) as error:
            warnings.append(str(error))
    if not done:
        raise ValueError("; ".join(warnings))
    if not ctx.delegated:
        proposals.propose(ctx, list(done))
        proposals.propose_fields(ctx, list(done))
    return _progress.Done(
        "; ".join([*(f"{field}: {figures}" for field, figures in done.items()), *warnings]),
        "warning" if warnings else "success",
        (ctx.ops.reload_dataset, partial(ctx.ops.open_panel, PANEL, layout="horizontal")),
        done,
        (
            _results.open_panel("Compare answers", "side_by_side"),
            _results.open_panel("Open Failure slices", "failure_slices"),
        ),
    )


def _served(ctx, request: ComparisonRequest) -> Generator[Any, None, set[str]]:
    """Return the names of the checkpoints that the server has.

    Raises:
        ReasonerError: it has none of them and none of the served models are asked, or it is not there.
    """
    from genseg_hub.reasoners.loading import connect

    options = {**request.model_options, "token": ctx.secret(_forms.HUB_TOKEN)}
    dialect, hub = options.get("dialect"), pick(HubOptions, options)
    served: set[str] = set()
    problem: NotServedError | None = None
    for name in request.checkpoints:
        if checkpoints.is_sam3(name):
            continue
        try:
            if not checkpoints.is_on_disk(name, False, dialect, hub):
                yield from _progress.pulling(ctx, name, False, options)
            found = checkpoints.pull(name, with_reasoner=False, dialect=dialect, options=hub)
            connect(found, str(request.server), api_key=ctx.secret(_forms.SERVER_KEY))
            served.add(name)
        except NotServedError as error:
            problem = problem or error
        except CheckpointError:
            continue  # told when it is its turn
    if problem and not served and not request.served_models:
        raise problem
    return served


def _check_origin(view: fo.DatasetView, field: str, checkpoint: str, options: str | None) -> None:
    """Raise CheckpointError if a field has results of another checkpoint or options."""
    responses = labels.responses_field(field)
    if view.get_field(f"{responses}.checkpoint") is None:
        return
    others = set(view.distinct(f"{responses}.checkpoint")) - {checkpoint}
    if others:
        raise CheckpointError(
            f"the field {field!r} has masks of {min(others)}, not of {checkpoint}; rename or delete it first"
        )
    if view.get_field(f"{responses}.options") is not None:
        stored = {value for values in view.values(f"{responses}.options") for value in values or ()}
        if stored - {options}:
            raise CheckpointError(
                f"the field {field!r} has masks that were made with other options "
                f"({', '.join(str(value or 'the defaults') for value in stored)}); rename or delete it first"
            )


def _one(
    ctx, view: fo.DatasetView, request: ComparisonRequest, name: str, field: str, served: bool, number: int
) -> Generator[Any, None, tuple[str, str]]:
    """Segment and evaluate with one of `names`.

    Return its figures as a sentence, and `Summary.advice`.
    """
    count = len(request.names)
    asked = request.segmentation(name, field, served)
    options = {**asked.model_options, "token": ctx.secret(_forms.HUB_TOKEN)}
    is_checkpoint, hub = asked.name is not None, pick(HubOptions, options)
    if is_checkpoint and not checkpoints.is_on_disk(name, not served, options.get("dialect"), hub):
        yield from _progress.pulling(ctx, name, not served, options)
    with engines.opened(asked, ctx.secret(_forms.SERVER_KEY), options["token"]) as engine:
        _check_origin(view, field, engine.checkpoint, asked.options_in_words)
        for summary in segment_view(view, asked, engine):
            share = (number + summary.share_done) / count
            yield from _progress.tell(ctx, share, f"{name}: {summary.done} of {summary.total} expressions")
    if summary.all_failed:
        raise ReasonerError(f"{name} segmented nothing: {summary}")
    del engine
    gc.collect()  # the next one needs the memory
    evaluation = request.evaluation(field)
    end = (number + 1) / count
    measured = yield from _progress.follow(ctx, measure(view, evaluation.config(view)), f"{name}: evaluating", end, end)
    results = yield from _progress.follow(ctx, write(measured, field), f"{name}: writing", end, end)
    return results.describe() + (" (asked on the server)" if served else ""), summary.advice
