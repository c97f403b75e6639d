"""What answers expressions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from genseg_hub.schema import Failure, Prediction, ReferringExample

if TYPE_CHECKING:
    from genseg_hub import GenSegR1

Answer = tuple[ReferringExample, Prediction | Failure]
# Answers examples whose images are paths, so many at once. In any order, but those of a sample (with one `example_id`)
# come one after the other.
Engine = Callable[[Iterator[ReferringExample], int], Iterator[Answer]]


def in_process(model: GenSegR1) -> Engine:
    """The engine that answers here, one batch after the other."""

    def answer(examples: Iterator[ReferringExample], batch_size: int) -> Iterator[Answer]:
        ahead, behind = itertools.tee(examples)
        for result in model.segment_many(ahead, batch_size):
            yield next(behind), result

    return answer
