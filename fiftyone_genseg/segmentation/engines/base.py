"""Base of engines, which answer a stream of examples with one checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from genseg_hub.schema import Failure, Prediction, ReferringExample

EngineResult = tuple[ReferringExample, Prediction | Failure]


@dataclass(frozen=True)
class Engine:
    """An opened engine.

    Attributes:
        answer: takes examples whose images are paths, and how many of them the reasoner answers at once. It gives the
            results in any order. The results of one sample (one `example_id`) follow each other.
        checkpoint: pinned name of the checkpoint that answers, which is stored with each result.
        notes: how its dialect, or its model on a server, was found, if that may surprise.
    """

    answer: Callable[[Iterator[ReferringExample], int], Iterator[EngineResult]]
    checkpoint: str
    notes: tuple[str, ...] = ()
