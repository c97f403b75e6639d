"""Operator "Release the model": free the memory of the last run's model."""

from __future__ import annotations

import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.operator import RiskLevel

from fiftyone_genseg import icons
from fiftyone_genseg.segmentation.engines import resident


class ReleaseModel(foo.Operator):
    """Release the model that the App keeps in memory for the next run."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Return the name of the operator."""
        return foo.OperatorConfig(
            name="release_model",
            label="Release the model",
            description="Free the memory of the model that the App keeps for the next run",
            icon="memory",
            **icons.of("release_model"),
            risk_level=RiskLevel.LOW,
        )

    def execute(self, ctx) -> dict[str, str | None]:
        """Release the model, and say which it was."""
        name = resident.release()
        message = f"{name} is no longer in memory." if name else "No model is in memory."
        ctx.ops.notify(message, variant="success" if name else "info")
        return {"released": name, "message": message}

    def resolve_output(self, ctx) -> types.Property:
        """Return a sentence about the released model."""
        outputs = types.Object()
        outputs.str("message", label="Result")
        return types.Property(outputs)
