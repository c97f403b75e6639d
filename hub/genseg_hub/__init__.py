"""The model of GenSeg-R1 as it lives on the Hugging Face Hub: pull it, run it, score it.

Knows neither FiftyOne nor TRL. Importing this package is cheap: torch loads with `GenSegR1`.
"""

from typing import TYPE_CHECKING

from genseg_hub.schema import Failure, InstancePrompt, Prediction, ReferringExample, Response, ResponseError

if TYPE_CHECKING:
    from genseg_hub.pipeline import GenSegR1

__all__ = ["Failure", "GenSegR1", "InstancePrompt", "Prediction", "ReferringExample", "Response", "ResponseError"]


def __getattr__(name: str):
    if name == "GenSegR1":
        from genseg_hub.pipeline import GenSegR1

        return GenSegR1
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
