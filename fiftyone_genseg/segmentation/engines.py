"""What answers expressions: the model in this process, its reasoner here or on a server, or workers on Ray."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from genseg_hub.schema import Failure, Prediction, ReferringExample

if TYPE_CHECKING:
    from genseg_hub import GenSegR1

LOCAL, RAY = "local", "ray"
NAMES = (LOCAL, RAY)
WORKERS_HAVE_NO_SERVER = "workers on Ray have the reasoner themselves; leave the server out, or run in this process"

EngineResult = tuple[ReferringExample, Prediction | Failure]
# Answers examples whose images are paths, so many at once. In any order, but those of a sample (with one `example_id`)
# come one after the other.
Engine = Callable[[Iterator[ReferringExample], int], Iterator[EngineResult]]


@contextmanager
def opened(
    name: str,
    checkpoint: str,
    revision: str | None = None,
    device: str = "auto",
    workers: int = 2,
    gpus_per_worker: float | None = None,
    address: str | None = None,
    server: str | None = None,
    api_key: str | None = None,
) -> Iterator[tuple[Engine, str]]:
    """The engine and the pinned name of its checkpoint.

    Args:
        name: one of NAMES.
        checkpoint, revision: see `GenSegR1.from_pretrained`.
        device: of the model in this process; workers have the devices that Ray gives them.
        workers, gpus_per_worker, address: see `ray_engine.engine`.
        server: address of the server that has the reasoner of the model in this process.
        api_key: of the server; None for OPENAI_API_KEY.

    Raises:
        ValueError: for a name that is none, a device or a server for workers, or an address that is none.
        CheckpointError, ReasonerError: as `GenSegR1.from_pretrained`.
        ray_engine.RayError: as `ray_engine.engine`.
    """
    if name == LOCAL:
        from genseg_hub import GenSegR1

        options = {"server": server, "api_key": api_key} if server is not None else {}
        model = GenSegR1.from_pretrained(checkpoint, device=device, revision=revision, **options)
        yield in_process(model), model.checkpoint.pinned if model.checkpoint else checkpoint
    elif name == RAY:
        from genseg_hub import checkpoints

        from fiftyone_genseg.segmentation import ray_engine

        if server is not None:
            raise ValueError(WORKERS_HAVE_NO_SERVER)
        if device != "auto":
            raise ValueError(f"workers on Ray have the device that Ray gives them, not {device!r}; say how many GPUs")
        found = checkpoints.pull(checkpoint, revision)
        with ray_engine.engine(found, workers, gpus_per_worker, address) as answer:
            yield answer, found.pinned
    else:
        raise ValueError(f"there is no engine {name!r}; choose {' or '.join(NAMES)}")


def in_process(model: GenSegR1) -> Engine:
    """The engine that answers here, one batch after the other."""

    def answer(examples: Iterator[ReferringExample], batch_size: int) -> Iterator[EngineResult]:
        ahead, behind = itertools.tee(examples)
        for result in model.segment_many(ahead, batch_size):
            yield next(behind), result

    return answer
