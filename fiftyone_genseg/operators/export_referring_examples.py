"""The operator "Export referring examples": samples as a training set on disk."""

from __future__ import annotations

import fiftyone.operators as foo
from fiftyone.operators import types

from fiftyone_genseg.datasets.request import ExamplesRequest
from fiftyone_genseg.messages import sentence
from fiftyone_genseg.operators import _forms


class ExportReferringExamples(foo.Operator):
    """Write expressions, images and true masks as a `datasets` folder for training."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name and ways of running the operator."""
        return foo.OperatorConfig(
            name="export_referring_examples",
            label="Export referring examples",
            description="Save expressions with their images and true masks as a training set",
            dynamic=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx) -> types.Property:
        """Return the form."""
        inputs = types.Object()
        inputs.str(
            "folder",
            label="Folder",
            description="A new or empty folder on the machine that runs FiftyOne",
            required=True,
        )
        _forms.ask_for_examples(ctx, inputs)
        said = problem(ctx)
        if said and _folder(ctx):
            _forms.show_problem(inputs, said)
        return types.Property(inputs, view=types.View(label="Export referring examples"))

    def execute(self, ctx) -> dict:
        """Export, and return the number of examples and the folder."""
        said = problem(ctx)
        if said:
            raise ValueError(said)
        from fiftyone_genseg.datasets.export import export

        folder = _forms.path(_folder(ctx))
        count = export(folder=folder, **ExamplesRequest.from_params(ctx.params).arguments(_forms.target_view(ctx)))
        return {"examples": count, "folder": str(folder)}

    def resolve_output(self, ctx) -> types.Property:
        """Describe the result of `execute`."""
        outputs = types.Object()
        outputs.int("examples", label="Examples written")
        outputs.str("folder", label="Folder")
        return types.Property(outputs, view=types.View(label="Exported"))


def problem(ctx) -> str | None:
    """Return why the operator cannot run, as a sentence; None when it can."""
    if ctx.dataset is None:
        return "Open a dataset first."
    if not _folder(ctx):
        return "Name a folder to write to."
    try:
        _forms.check_new_folder(_forms.path(_folder(ctx)))
    except (ValueError, OSError) as error:
        return sentence(error)
    return ExamplesRequest.from_params(ctx.params).problem(_forms.target_view(ctx))


def _folder(ctx) -> str:
    return str(ctx.params.get("folder") or "").strip()
