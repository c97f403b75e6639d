"""The operator "Pull checkpoint": download a checkpoint and check it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.operator import RiskLevel
from genseg_hub import checkpoints
from genseg_hub.checkpoints.catalog import EMBEDDED, KNOWN
from genseg_hub.errors import CheckpointError

from fiftyone_genseg.messages import sentence
from fiftyone_genseg.operators import _forms, _progress


class PullCheckpoint(foo.Operator):
    """Download the missing files of a checkpoint, and compare checksums.

    The form says how large the files are and where they go.
    """

    @property
    def config(self) -> foo.OperatorConfig:
        """Return the name of the operator and the ways to run it."""
        return _progress.config(
            "pull_checkpoint",
            "Pull checkpoint",
            "Download the newest commit of a checkpoint from the Hugging Face Hub and compare its checksums",
            "cloud_download",
            risk_level=RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx) -> types.Property:
        """Return the form, with the size of the download."""
        inputs = types.Object()
        name = _name(ctx)
        if not name:
            _forms.show_problem(inputs, "Choose a checkpoint, or type the name of another.", untouched=True)
        else:
            try:
                inputs.view("plan", types.Notice(label=str(checkpoints.plan(name, newest=True))))
            except CheckpointError as error:
                _forms.show_problem(inputs, sentence(error))
        inputs.str(
            "checkpoint",
            label="Checkpoint",
            description="owner/name or owner/name@revision",
            required=True,
            view=_forms.suggestions(known.name for known in KNOWN if known.name not in EMBEDDED),
        )
        return types.Property(inputs, view=types.View(label="Pull checkpoint"))

    def execute(self, ctx) -> Iterator:
        """See `_progress.run`."""
        return _progress.run(ctx, _pull(ctx), "Nothing was pulled")


def _pull(ctx) -> Generator[Any, None, _progress.Done]:
    checkpoint = yield from _progress.pulling(ctx, _name(ctx), newest=True)
    compared = checkpoints.verify(checkpoint)
    return _progress.Done(
        f"{checkpoint.pinned} is in {checkpoint.reasoner}, checksums of {compared} files agree with the Hub's"
    )


def _name(ctx) -> str:
    return str(ctx.params.get("checkpoint") or "").strip()
