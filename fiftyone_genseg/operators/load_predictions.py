"""The operator "Load predictions": masks of another system, to evaluate them."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types

from fiftyone_genseg import labels
from fiftyone_genseg.messages import sentence
from fiftyone_genseg.operators import _forms, _progress
from fiftyone_genseg.segmentation.summary import Summary


@dataclass(frozen=True)
class LoadPredictionsRequest:
    """A request to load predictions.

    Attributes:
        file: path as typed; see `importing.add_predictions` for the contents.
        field: field of the masks.
        checkpoint: name of the system; "" for the file's name.
    """

    file: str
    field: str
    checkpoint: str

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> LoadPredictionsRequest:
        """Read a form. Without a field, the file gives the name of the field.

        Args:
            params: the form's values by name. Missing values, and None, mean the defaults.
        """
        file, field, checkpoint = (str(params.get(name) or "").strip() for name in ("file", "field", "checkpoint"))
        named = re.sub(r"\W+", "_", Path(file).stem).strip("_")
        return cls(file, field or (named if named[:1].isalpha() else "predictions"), checkpoint)

    def problem(self, dataset: fo.Dataset | None) -> str | None:
        """Return why the request cannot be run, as a sentence; None when it can."""
        if dataset is None:
            return "Open a dataset first."
        try:
            if not _forms.path(self.file).is_file():
                raise ValueError(f"there is no file {self.file!r}")
            labels.check_fields(dataset, self.field)
        except ValueError as error:
            return sentence(error)
        return None


class LoadPredictions(foo.Operator):
    """Read a file of predictions and store them as "Referring segment" stores its own."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name and ways of running the operator."""
        return _progress.config(
            "load_predictions",
            "Load predictions",
            "Predictions of another system (JSON lines or COCO results) as masks, to evaluate them",
        )

    def resolve_input(self, ctx) -> types.Property:
        """Return the form."""
        request = LoadPredictionsRequest.from_params(ctx.params)
        inputs = types.Object()
        inputs.str(
            "file",
            label="File",
            description="predictions.jsonl of `genseg benchmark` or COCO results, on the machine that runs FiftyOne",
            required=True,
        )
        inputs.str("field", label="Field of the masks", default=request.field)
        inputs.str("checkpoint", label="Name of the system", description="Empty for the file's name", required=False)
        problem = request.problem(ctx.dataset)
        if problem and request.file:
            _forms.show_problem(inputs, problem)
        return types.Property(inputs, view=types.View(label="Load predictions"))

    def execute(self, ctx) -> Iterator:
        """See `_progress.run`."""
        return _progress.run(ctx, _load(ctx), "Nothing was loaded")


def _load(ctx) -> Generator[Any, None, _progress.Done]:
    from fiftyone_genseg.datasets.importing import add_predictions

    request = LoadPredictionsRequest.from_params(ctx.params)
    view, problem = _forms.target_view(ctx), request.problem(ctx.dataset)
    if view is None or problem:
        raise ValueError(problem)
    summary = Summary()
    for summary in add_predictions(view, _forms.path(request.file), request.field, request.checkpoint):
        yield from _progress.tell(ctx, summary.share_done, f"{summary.done} of {summary.total} expressions")
    return _progress.Done(str(summary), then=(ctx.ops.reload_dataset,))
