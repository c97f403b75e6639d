"""Engines, which answer expressions in this process or on workers of Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from fiftyone_genseg import default_checkpoint
from fiftyone_genseg.segmentation.engines.base import Engine
from fiftyone_genseg.segmentation.request import RAY, SegmentRequest

if TYPE_CHECKING:
    from genseg_hub import GenSegR1


@contextmanager
def opened(
    request: SegmentRequest, api_key: str | None = None, token: str | None = None, keep: bool = False
) -> Iterator[Engine]:
    """Open the engine that a request names, and close it at the end.

    Args:
        request: checked before, see `SegmentRequest.check`.
        api_key: key of the request's server; None for OPENAI_API_KEY.
        token: token of the Hub; None for HF_TOKEN.
        keep: whether this process keeps a model without a server for its next run, see `engines.resident`.

    Raises:
        genseg_hub.errors.CheckpointError, genseg_hub.errors.ReasonerError: see `GenSegR1.from_pretrained`.
        RayError: see `engines.ray.ray_engine`.
    """
    if request.engine == RAY:
        from genseg_hub import checkpoints
        from genseg_hub.options import HubOptions, pick

        from fiftyone_genseg.segmentation.engines import resident
        from fiftyone_genseg.segmentation.engines.ray import ray_engine
        from fiftyone_genseg.segmentation.remote_images import RemoteImages

        options = {**request.model_options, **({"token": token} if token else {})}
        found = checkpoints.pull(
            str(request.name), request.revision, dialect=options.get("dialect"), options=pick(HubOptions, options)
        )
        images = RemoteImages.parse(request.images) if request.images else None
        resident.release()
        with ray_engine(found, request.workers, request.gpus_per_worker, request.address, options, images) as engine:
            yield engine
        default_checkpoint.remember(str(request.name), request.revision)
        return
    from fiftyone_genseg.segmentation.engines.local import local_engine

    # A server says anew for each run which model it has.
    with model(request, api_key, token, keep and request.server is None) as loaded:
        yield local_engine(loaded)


@contextmanager
def model(
    request: SegmentRequest, api_key: str | None = None, token: str | None = None, keep: bool = False
) -> Iterator[GenSegR1]:
    """Load the model that a request names into this process, or take the kept one.

    Args:
        request: as `opened` takes it, without Ray.
        api_key: key of the request's server; None for OPENAI_API_KEY.
        token: token of the Hub; None for HF_TOKEN.
        keep: whether this process keeps the model for the next time, see `engines.resident`.

    Raises:
        genseg_hub.errors.CheckpointError, genseg_hub.errors.ReasonerError: see `GenSegR1.from_pretrained`.
    """
    from genseg_hub import GenSegR1

    from fiftyone_genseg.segmentation.engines import resident

    options = {**request.model_options, **({"token": token} if token else {})}
    if request.server:
        options |= {"server": request.server, "api_key": api_key, "served_model": request.served_model}
    if request.name is None:
        options["segmenter"] = request.segmenter

    def load() -> GenSegR1:
        return GenSegR1.from_pretrained(request.name, device=request.device, revision=request.revision, **options)

    if not keep:
        resident.release()  # the memory is for the model of this run
    with resident.lent(resident.key_of(request), load) if keep else nullcontext(load()) as loaded:
        yield loaded
    if request.server is None:
        default_checkpoint.remember(str(request.name), request.revision)
