"""The operator "Export referring examples": samples as a training set on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.operator import RiskLevel

from fiftyone_genseg import history, icons
from fiftyone_genseg.datasets.request import NO_TRUTH, ExamplesRequest
from fiftyone_genseg.messages import sentence
from fiftyone_genseg.operators import _forms


class ExportReferringExamples(foo.Operator):
    """Write expressions, images and true masks as a `datasets` folder for training."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Return the name of the operator and the ways to run it."""
        return foo.OperatorConfig(
            name="export_referring_examples",
            label="Export referring examples",
            description="Save expressions with their images and true masks as a training set",
            icon="save_alt",
            **icons.of("export_referring_examples"),
            risk_level=RiskLevel.MEDIUM,
            dynamic=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx) -> types.Property:
        """Return the form."""
        view = _forms.target_view(ctx)
        if hopeless := _forms.unusable(view) or _no_truth(view, ctx.params):
            return _forms.alone("Export referring examples", hopeless)
        inputs = types.Object()
        _forms.show_problem(inputs, problem(ctx), untouched=not _folder(ctx))
        described = "A new or empty folder on the machine that runs FiftyOne: choose one, or type its path"
        _forms.ask_for_path(ctx, inputs, "folder", "Folder", described, folder=True)
        _forms.ask_for_examples(ctx, inputs)
        return types.Property(inputs, view=types.View(label="Export referring examples"))

    def execute(self, ctx) -> dict:
        """Export, and return the number of examples, the folder, and what was left out."""
        from fiftyone_genseg.datasets.export import export
        from fiftyone_genseg.datasets.unusable import Unusable

        with history.recorded(ctx, "Export referring examples") as run:
            said = problem(ctx)
            if said:
                raise ValueError(said)
            folder = _forms.path(_folder(ctx))
            view = _forms.target_view(ctx)
            arguments, unusable = ExamplesRequest.from_params(view, ctx.params).arguments(view), Unusable()
            count = export(folder=folder, unusable=unusable, **arguments)
            left_out = unusable.report(count + unusable.total())
            run.end(history.DONE, f"{count:,} examples in {folder}. {left_out}".strip())
        return {"examples": count, "folder": str(folder), "left_out": left_out}

    def resolve_output(self, ctx) -> types.Property:
        """Describe the result of `execute`."""
        outputs = types.Object()
        outputs.int("examples", label="Examples written")
        outputs.str("folder", label="Folder")
        left_out = (ctx.results or {}).get("left_out")
        if left_out:
            outputs.view("not_written", types.Warning(label="Left out", description=left_out))
        return types.Property(outputs, view=types.View(label="Exported"))


def problem(ctx) -> str | None:
    """Return why the operator cannot run, as a sentence; None when it can."""
    if ctx.dataset is None:
        return "Open a dataset first."
    if not _folder(ctx):
        return "Choose a folder to write to."
    try:
        _forms.check_new_folder(_forms.path(_folder(ctx)))
    except (ValueError, OSError) as error:
        return sentence(error)
    view = _forms.target_view(ctx)
    return ExamplesRequest.from_params(view, ctx.params).problem(view)


def _no_truth(view: fo.DatasetView | None, params: Mapping[str, Any]) -> str | None:
    lacking = view is not None and ExamplesRequest.from_params(view, params).lacks_truth(view)
    return NO_TRUTH if lacking else None


def _folder(ctx) -> str:
    return _forms.text_of(ctx.params.get("folder"))
