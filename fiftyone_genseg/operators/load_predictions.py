"""The operator "Load predictions": masks that were predicted elsewhere, to evaluate them like any other."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from fiftyone_genseg import labels, segmentation
from fiftyone_genseg.operators import _forms, _progress
from fiftyone_genseg.operators.referring_segment import describe


class LoadPredictions(foo.Operator):
    """Read a file of predictions and store them as "Referring segment" stores its own."""

    @property
    def config(self) -> foo.OperatorConfig:
        return _progress.config(
            "load_predictions",
            "Load predictions",
            "Predictions of another system (JSON lines or COCO results) as masks, to evaluate them",
        )

    def resolve_input(self, ctx) -> types.Property:
        inputs = types.Object()
        inputs.str(
            "file",
            label="File",
            description="predictions.jsonl of `genseg benchmark` or COCO results, on the machine that runs FiftyOne",
            required=True,
        )
        inputs.str("field", label="Field of the masks", default=_field(ctx))
        inputs.str("checkpoint", label="Name of the system", description="Empty for the file's name", required=False)
        problem = _problem(ctx)
        if problem and _file(ctx):
            _forms.show_problem(inputs, problem)
        return types.Property(inputs, view=types.View(label="Load predictions"))

    def execute(self, ctx) -> Iterator:
        """See `_progress.run`."""
        return _progress.run(ctx, _load(ctx), "Nothing was loaded")


def _load(ctx) -> Generator[Any, None, _progress.Done]:
    from fiftyone_genseg.datasets.importing import add_predictions

    problem = _problem(ctx)
    if problem:
        raise ValueError(problem)
    checkpoint = str(ctx.params.get("checkpoint") or "").strip()
    summary = segmentation.Summary()
    for summary in add_predictions(ctx.target_view(), _forms.path(_file(ctx)), _field(ctx), checkpoint):
        share = summary.done / summary.total if summary.total else 1.0
        yield from _progress.tell(ctx, share, f"{summary.done} of {summary.total} expressions")
    return _progress.Done(describe(summary.to_dict()), then=(ctx.ops.reload_dataset,))


def _file(ctx) -> str:
    return str(ctx.params.get("file") or "").strip()


def _field(ctx) -> str:
    """As typed, or after the file."""
    typed = str(ctx.params.get("field") or "").strip()
    named = re.sub(r"\W+", "_", Path(_file(ctx)).stem).strip("_")
    return typed or (named if named[:1].isalpha() else "predictions")


def _problem(ctx) -> str | None:
    """Why the operator cannot run, as a sentence; None when it can."""
    if ctx.dataset is None:
        return "Open a dataset first."
    try:
        if not _forms.path(_file(ctx)).is_file():
            raise ValueError(f"there is no file {_file(ctx)!r}")
        labels.check_fields(ctx.dataset, _field(ctx))
    except ValueError as error:
        return _forms.sentence(error)
    return None
