"""The operator "Tag a failure slice", which the panel "Failure slices" opens."""

from __future__ import annotations

import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.operator import RiskLevel

from fiftyone_genseg import icons
from fiftyone_genseg.fields import every_image

_TAG = "failure-slice"


class TagFailureSlice(foo.Operator):
    """Tag the samples of a slice."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Return the name of the operator."""
        return foo.OperatorConfig(
            name="tag_failure_slice",
            label="Tag a failure slice",
            description="Tag the samples of a slice that a panel chose",
            icon="sell",
            **icons.of("tag_failure_slice"),
            unlisted=True,
            risk_level=RiskLevel.LOW,
        )

    def resolve_input(self, ctx) -> types.Property:
        """Return the form."""
        inputs = types.Object()
        tags = types.AutocompleteView(allow_user_input=True)
        for tag in dict.fromkeys([_TAG, *ctx.dataset.distinct("tags")]):
            tags.add_choice(tag, label=tag)
        count = len(ctx.params.get("samples") or [])
        description = f"For {count:,} samples: {ctx.params.get('slice')}"
        inputs.str("tag", label="Tag", description=description, default=_TAG, view=tags)
        return types.Property(inputs, view=types.PromptView(label="Tag samples", submit_button_label="Tag"))

    def execute(self, ctx) -> None:
        """Tag the samples."""
        tag, samples = str(ctx.params.get("tag") or "").strip() or _TAG, ctx.params.get("samples") or []
        every_image(ctx.dataset).select(samples).tag_samples(tag)
        ctx.ops.notify(f"Tagged {len(samples):,} samples with {tag!r}.", variant="success")
        ctx.ops.reload_dataset()
