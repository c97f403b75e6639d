"""The operator "Push checkpoint to Hub": publish a trained checkpoint."""

from __future__ import annotations

import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.operator import RiskLevel
from genseg_hub.checkpoints import readable_size
from genseg_hub.errors import PublishError
from genseg_hub.publishing import publish

from fiftyone_genseg import history, icons
from fiftyone_genseg.messages import sentence
from fiftyone_genseg.operators import _forms

TOKEN = "HF_TOKEN"


class PushCheckpoint(foo.Operator):
    """Publish a checkpoint folder. The form shows the files that a dry run lists.

    The token is a secret of the plugin, or else the token of `hf auth login`.
    """

    @property
    def config(self) -> foo.OperatorConfig:
        """Return the name of the operator and the ways to run it."""
        return foo.OperatorConfig(
            name="push_checkpoint",
            label="Push checkpoint to Hub",
            description="Publish a trained checkpoint with its model card on the Hugging Face Hub",
            icon="cloud_upload",
            **icons.of("push_checkpoint"),
            risk_level=RiskLevel.HIGH,
            dynamic=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx) -> types.Property:
        """Return the form, with the files to send."""
        inputs = types.Object()
        preview = _preview(ctx, inputs)
        inputs.str(
            "folder",
            label="Checkpoint",
            description="Trained here, or the absolute path of a folder on the machine that runs FiftyOne",
            required=True,
            view=_forms.trained_choices(),
        )
        inputs.str("repo_id", label="Repository", description="owner/name; created if missing", required=True)
        inputs.bool("private", label="Private", default=False)
        inputs.str("revision", label="Branch", description="Empty for main; created if missing", required=False)
        if preview:
            inputs.md(preview, name="preview")
        return types.Property(inputs, view=types.View(label="Push checkpoint to Hub"))

    def execute(self, ctx) -> dict:
        """Publish the folder; return its page, the commit, and whether the push made it."""
        with history.recorded(ctx, "Push checkpoint to Hub") as run:
            published = _push(ctx, token=ctx.secrets[TOKEN])
            run.end(history.DONE, f"{published.url}, commit {published.commit}")
        return {"url": published.url, "commit": published.commit, "changed": published.changed}

    def resolve_output(self, ctx) -> types.Property:
        """Describe the result of `execute`."""
        outputs = types.Object()
        outputs.str("url", label="Published at")
        outputs.str("commit", label="Commit")
        outputs.bool("changed", label="The push made this commit (else the Hub had the same content)")
        return types.Property(outputs, view=types.View(label="Published"))


def _preview(ctx, inputs: types.Object) -> str:
    """Return the files to send, "" if they are not known: then the form says why."""
    if not (ctx.params.get("folder") and ctx.params.get("repo_id")):
        _forms.show_problem(inputs, "Choose a checkpoint and name a repository.", untouched=True)
        return ""
    try:
        planned = _push(ctx, dry_run=True)
    except (PublishError, ValueError, OSError) as error:
        _forms.show_problem(inputs, sentence(error))
        return ""
    files = "\n".join(f"- `{path}` {readable_size(size)}" for path, size in planned.files)
    total = readable_size(sum(size for _, size in planned.files))
    return f"{len(planned.files)} files, {total}, to {planned.url}\n\n{files}"


def _push(ctx, **options) -> publish.Push:
    return publish.push(
        _forms.path(str(ctx.params.get("folder") or "").strip()),
        str(ctx.params.get("repo_id") or "").strip(),
        private=bool(ctx.params.get("private")),
        revision=str(ctx.params.get("revision") or "").strip() or None,
        **options,
    )
