"""Engines: what answers expressions, in this process or on the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fiftyone_genseg.segmentation.engines.base import Engine
from fiftyone_genseg.segmentation.request import RAY, SegmentRequest


@contextmanager
def opened(request: SegmentRequest, api_key: str | None = None) -> Iterator[Engine]:
    """Open the engine that a request names, and close it at the end.

    Args:
        request: checked before, see `SegmentRequest.check`.
        api_key: of the request's server; None for OPENAI_API_KEY.

    Raises:
        genseg_hub.errors.CheckpointError, genseg_hub.errors.ReasonerError: see `GenSegR1.from_pretrained`.
        RayError: see `engines.ray.ray_engine`.
    """
    if request.engine == RAY:
        from genseg_hub import checkpoints

        from fiftyone_genseg.segmentation.engines.ray import ray_engine

        found = checkpoints.pull(request.checkpoint, request.revision)
        with ray_engine(found, request.workers, request.gpus_per_worker, request.address) as engine:
            yield engine
    else:
        from genseg_hub import GenSegR1

        from fiftyone_genseg.segmentation.engines.local import local_engine

        options = {"server": request.server, "api_key": api_key} if request.server else {}
        yield local_engine(
            GenSegR1.from_pretrained(request.checkpoint, device=request.device, revision=request.revision, **options)
        )
