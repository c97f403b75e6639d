"""The operator "Export referring examples": samples of a dataset as a training set on disk."""

from __future__ import annotations

from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types

from fiftyone_genseg.operators.evaluate_referring_segmentation import DEFAULT_TRUTH


class ExportReferringExamples(foo.Operator):
    """Write expressions, images and true masks as a `datasets` folder, which training reads."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="export_referring_examples",
            label="Export referring examples",
            description="Save expressions with their images and true masks as a training set",
            dynamic=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx) -> types.Property:
        inputs = types.Object()
        inputs.str(
            "folder",
            label="Folder",
            description="A new or empty folder on the machine that runs FiftyOne",
            required=True,
        )
        inputs.str("gt_field", label="Ground truth", default=DEFAULT_TRUTH)
        inputs.str(
            "expression_field",
            label="Expressions",
            description="A sample field; empty for `expression`, or else the ground truth's attribute of that name",
            required=False,
        )
        pairs = ctx.params.get("pairs")
        if pairs is not None:
            inputs.view("what", types.Notice(label=f"{len(pairs):,} expressions of the chosen slice"))
        problem = _problem(ctx)
        if problem and ctx.params.get("folder"):
            prompt = inputs.view("problem", types.Error(label=problem))
            prompt.invalid = True
            prompt.error_message = problem
        return types.Property(inputs, view=types.View(label="Export referring examples"))

    def execute(self, ctx) -> dict:
        problem = _problem(ctx)
        if problem:
            raise ValueError(problem)
        from fiftyone_genseg.export import export
        from fiftyone_genseg.scoring import default_expression_field

        params = ctx.params
        truth = params.get("gt_field") or DEFAULT_TRUTH
        pairs = params.get("pairs")
        count = export(
            ctx.dataset if pairs is not None else ctx.target_view(),
            Path(params["folder"]).expanduser(),
            truth,
            params.get("expression_field") or default_expression_field(ctx.dataset, truth),
            None if pairs is None else {tuple(pair) for pair in pairs},
        )
        return {"examples": count, "folder": params["folder"]}

    def resolve_output(self, ctx) -> types.Property:
        outputs = types.Object()
        outputs.int("examples", label="Examples written")
        outputs.str("folder", label="Folder")
        return types.Property(outputs, view=types.View(label="Exported"))


def _problem(ctx) -> str | None:
    if ctx.dataset is None:
        return "Open a dataset first."
    folder = str(ctx.params.get("folder") or "").strip()
    if not folder:
        return "Name a folder to write to."
    path = Path(folder).expanduser()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        return f"{folder} exists and is not an empty folder."
    truth = ctx.params.get("gt_field") or DEFAULT_TRUTH
    if getattr(ctx.dataset.get_field(truth), "document_type", None) is not fo.Detections:
        return f"The ground truth field {truth!r} holds no Detections."
    return None
