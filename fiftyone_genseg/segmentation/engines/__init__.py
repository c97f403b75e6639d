"""Engines: what answers expressions, in this process or on the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from fiftyone_genseg import default_checkpoint
from fiftyone_genseg.segmentation.engines.base import Engine
from fiftyone_genseg.segmentation.request import RAY, SegmentRequest


@contextmanager
def opened(
    request: SegmentRequest, api_key: str | None = None, token: str | None = None, keep: bool = False
) -> Iterator[Engine]:
    """Open the engine that a request names, and close it at the end.

    Args:
        request: checked before, see `SegmentRequest.check`.
        api_key: of the request's server; None for OPENAI_API_KEY.
        token: of the Hub; None for HF_TOKEN.
        keep: whether this process keeps a model without a server for its next run, see `engines.resident`.

    Raises:
        genseg_hub.errors.CheckpointError, genseg_hub.errors.ReasonerError: see `GenSegR1.from_pretrained`.
        RayError: see `engines.ray.ray_engine`.
    """
    from fiftyone_genseg.segmentation.engines import resident

    options = {**request.model_options, **({"token": token} if token else {})}
    if request.engine == RAY:
        from genseg_hub import checkpoints
        from genseg_hub.options import HubOptions, pick

        from fiftyone_genseg.segmentation.engines.ray import ray_engine

        found = checkpoints.pull(
            str(request.name), request.revision, dialect=options.get("dialect"), options=pick(HubOptions, options)
        )
        resident.release()
        with ray_engine(found, request.workers, request.gpus_per_worker, request.address, options) as engine:
            yield engine
    else:
        from genseg_hub import GenSegR1

        from fiftyone_genseg.segmentation.engines.local import local_engine

        if request.server:
            options |= {"server": request.server, "api_key": api_key, "served_model": request.served_model}
        if request.name is None:
            options["segmenter"] = request.segmenter

        def load() -> GenSegR1:
            return GenSegR1.from_pretrained(request.name, device=request.device, revision=request.revision, **options)

        kept = keep and request.server is None  # a server says anew for each run which model it has
        if not kept:
            resident.release()  # the memory is for the model of this run
        with resident.lent(resident.key_of(request), load) if kept else nullcontext(load()) as model:
            yield local_engine(model)
    if request.server is None:
        default_checkpoint.remember(str(request.name), request.revision)
