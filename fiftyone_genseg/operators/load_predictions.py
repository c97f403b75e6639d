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
from fiftyone.operators.operator import RiskLevel

from fiftyone_genseg import outputs
from fiftyone_genseg.messages import sentence
from fiftyone_genseg.operators import _forms, _progress, _results
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
        """Read a form; without a field, the file's name gives the field's.

        Args:
            params: the form's values by name. Missing values, and None, mean the defaults.
        """
        file, field, checkpoint = (_forms.text_of(params.get(name)) for name in ("file", "field", "checkpoint"))
        named = re.sub(r"\W+", "_", Path(file).stem).strip("_")
        return cls(file, field or (named if named[:1].isalpha() else "predictions"), checkpoint)

    def problem(self, dataset: fo.Dataset | None) -> str | None:
        """Return why the request cannot be run, as a sentence; None when it can."""
        if dataset is None:
            return "Open a dataset first."
        if not self.file:
            return "Choose a file of predictions."
        try:
            if not _forms.path(self.file).is_file():
                raise ValueError(f"there is no file {self.file!r}; check the path")
            outputs.check_fields(dataset, self.field)
        except ValueError as error:
            return sentence(error)
        return None


class LoadPredictions(foo.Operator):
    """Read a file of predictions and store them as "Referring segment" stores its own."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Return the name of the operator and the ways to run it."""
        return _progress.config(
            "load_predictions",
            "Load predictions",
            "Predictions of another system (JSON lines or COCO results) as masks, to evaluate them",
            "upload_file",
            risk_level=RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx) -> types.Property:
        """Return the form."""
        request = LoadPredictionsRequest.from_params(ctx.params)
        if hopeless := _forms.unusable(_forms.target_view(ctx)):
            return _forms.alone("Load predictions", hopeless)
        inputs = types.Object()
        _forms.show_problem(inputs, request.problem(ctx.dataset), untouched=not request.file)
        described = "predictions.jsonl of `genseg benchmark` or COCO results, on the machine that runs FiftyOne"
        _forms.ask_for_path(ctx, inputs, "file", "File", described, folder=False)
        inputs.str("field", label="Field of the masks", default=request.field)
        inputs.str("checkpoint", label="Name of the system", description="Empty for the file's name", required=False)
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
    return _progress.Done(
        str(summary),
        then=(ctx.ops.reload_dataset,),
        facts={"Masks in the field": request.field},
        steps=(_results.evaluate(request.field),),
    )
