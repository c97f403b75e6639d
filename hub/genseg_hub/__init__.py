"""Pull, run and score checkpoints of GenSeg-R1, and publish them on the Hub.

The package knows neither FiftyOne nor TRL. Importing it is cheap, because torch loads with `GenSegR1`.
"""

from typing import TYPE_CHECKING

from genseg_hub.schema import Failure, InstancePrompt, Prediction, Progress, ReferringExample, Response, ResponseError

if TYPE_CHECKING:
    from genseg_hub.pipeline import GenSegR1

__all__ = [
    "Failure",
    "GenSegR1",
    "InstancePrompt",
    "Prediction",
    "Progress",
    "ReferringExample",
    "Response",
    "ResponseError",
]


def __getattr__(name: str):
    if name == "GenSegR1":
        from genseg_hub.pipeline import GenSegR1

        return GenSegR1
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
