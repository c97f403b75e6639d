"""The engine in this process; its reasoner is loaded here, or answers on a server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from genseg_hub import GenSegR1
from genseg_hub.schema import ReferringExample

from fiftyone_genseg.segmentation.engines.base import Engine, EngineResult


def local_engine(model: GenSegR1) -> Engine:
    """Return the engine that answers with a loaded model, one batch after the other."""

    def answer(examples: Iterator[ReferringExample], batch_size: int) -> Iterator[EngineResult]:
        ahead, behind = itertools.tee(examples)
        for result in model.segment_many(ahead, batch_size):
            yield next(behind), result

    checkpoint = model.checkpoint
    choice = getattr(model.reasoner, "choice", None)
    notes = [checkpoint.note] if checkpoint and checkpoint.note else []
    if choice and choice.why:
        notes.append(f"asked {choice.model.name}: {choice.why}")
    return Engine(answer, checkpoint.pinned if checkpoint else "a model without a checkpoint", tuple(notes))
