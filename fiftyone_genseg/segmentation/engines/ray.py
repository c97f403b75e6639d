"""Engine of workers on Ray.

The workers hold the models. This process hands out work and takes the answers. Paths and expressions go out,
predictions come back as JSON. A worker with a GPU answers with vLLM if it is installed. Neither the workers nor this
module know FiftyOne or its database: `run` reads and writes, as with one process.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import platform
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from genseg_hub import ray_cluster
from genseg_hub.checkpoints import Checkpoint
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.checkpoints.settings import CONFIG_FILE, read_config
from genseg_hub.errors import CheckpointError, EngineDiedError
from genseg_hub.evaluation import predictions
from genseg_hub.options import OF_TRANSFORMERS, TRANSFORMERS, VLLM, ReasonerOptions, pick
from genseg_hub.ray_cluster import RayError
from genseg_hub.reasoners import vllm
from genseg_hub.schema import Failure, Prediction, ReferringExample

from fiftyone_genseg.segmentation.engines.base import Engine, EngineResult
from fiftyone_genseg.segmentation.remote_images import RemoteImages

if TYPE_CHECKING:
    from genseg_hub import GenSegR1

# Expressions that this process holds at once. Between two rounds the workers load their model again.
ROUND = 500_000
# Batches in a unit of work, which is lost when its worker dies.
_BATCHES = 8


class Worker:
    """A process with a model; Ray starts it again when it dies."""

    def __init__(
        self,
        checkpoint: str,
        device: str,
        batch_size: int,
        options: dict[str, Any],
        images: RemoteImages | None = None,
    ):
        from genseg_hub import GenSegR1

        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # Ray would not end a process that a killed worker started
        self.batch_size, self.images = batch_size, images
        self.model: GenSegR1 | None = None
        self.problem = ""
        try:
            self.model = GenSegR1.from_pretrained(checkpoint, device=device, **options)
        except CheckpointError as error:  # told with the first answer: Ray would print pages around it
            self.problem = f"{error} (on {platform.node()})"

    def __call__(self, unit: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the answers to a unit of work.

        Args:
            unit: `examples` has rows {"place", "image", "expression"}.

        Returns:
            Rows {"place", "line"}, where a line is JSON of `predictions.to_line`. Without a model, one row
            {"place": -1, "line": why}.
        """
        if self.model is None:
            return [{"place": -1, "line": self.problem}]
        examples = [ReferringExample(asked["image"], asked["expression"]) for asked in unit["examples"]]
        try:
            results = self._results(self.model, examples)
        except EngineDiedError as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)  # Ray starts another process, with an engine that lives
        return [
            {"place": asked["place"], "line": predictions.to_json(predictions.to_line(example, result))}
            for asked, example, result in zip(unit["examples"], examples, results, strict=True)
        ]

    def _results(self, model: GenSegR1, examples: list[ReferringExample]) -> list[Prediction | Failure]:
        if self.images is None:
            return list(model.segment_many(examples, self.batch_size))
        results: dict[int, Prediction | Failure] = {}
        read: list[int] = []  # places of the examples whose image could be read

        def readable(images: RemoteImages) -> Iterator[ReferringExample]:
            paths = [str(example.image) for example in examples]
            for place, content in enumerate(images.contents(paths)):
                if isinstance(content, Failure):
                    results[place] = content
                else:
                    read.append(place)
                    yield ReferringExample(content, examples[place].expression, image_id=paths[place])

        for number, result in enumerate(model.segment_many(readable(self.images), self.batch_size)):
            results[read[number]] = result
        return [results[place] for place in range(len(examples))]


@contextmanager
def ray_engine(
    checkpoint: Checkpoint,
    workers: int,
    gpus_per_worker: float | None = None,
    address: str | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
    images: RemoteImages | None = None,
) -> Iterator[Engine]:
    """Open an engine that answers with several workers.

    Args:
        checkpoint: each worker pulls the same: from the Hub the same commit, else the same folder.
        workers: processes with a model each.
        gpus_per_worker: see `ray_cluster.gpus_each`.
        address: see `ray_cluster.connected`.
        options: other options of `GenSegR1.from_pretrained`. Without `backend`, workers with a GPU each answer with
            vLLM if it is installed on the cluster and knows the checkpoint's architecture.
        images: source of the images for the workers; None for the paths of the examples.

    Raises:
        RayError: see `ray_cluster`.
    """
    with ray_cluster.connected(address, workers) as ray:
        gpus_per_worker = ray_cluster.gpus_each(ray, workers, gpus_per_worker, options.get("backend"))
        version = _vllm(ray, checkpoint, options) if gpus_per_worker == 1 else None
        options = {**options, "dialect": checkpoint.dialect or None, **({"backend": VLLM} if version else {})}
        notes = (f"the workers answered with vLLM {version}",) if version else ()
        # A folder is known by a name that means the same elsewhere; nano is part of the package.
        local = checkpoint.commit is None and checkpoint.name not in EMBEDDED
        name = str(checkpoint.reasoner.absolute()) if local else checkpoint.pinned
        if local and checkpoint.chosen_segmenter:
            name += f"+{checkpoint.chosen_segmenter}"
        device = "cuda" if gpus_per_worker else "cpu"
        answer = functools.partial(_answer, name, device, options, images, workers, gpus_per_worker)
        yield Engine(answer, checkpoint.pinned, notes)


def _vllm(ray: Any, checkpoint: Checkpoint, options: Mapping[str, Any]) -> str | None:
    """Return the version of the cluster's vLLM if workers are to answer with it."""
    if checkpoint.agent:  # its rounds were not tried with vLLM
        return None
    chosen = pick(ReasonerOptions, options).over(checkpoint.options)
    if any(getattr(chosen, name) for name in OF_TRANSFORMERS) or chosen.backend == TRANSFORMERS:
        return None
    architectures = read_config(checkpoint.reasoner / CONFIG_FILE, checkpoint.name).get("architectures") or []
    # On a GPU as a worker is, in a process that ends and leaves the GPU free.
    ask = ray.remote(num_cpus=1, num_gpus=1, max_calls=1)(vllm.version_for)
    try:
        return ray.get(ask.remote(architectures))
    except ray.exceptions.RayError as error:
        why = ray_cluster.message(error)
        raise RayError(f"vLLM on the cluster is broken: {why}; mend it, or take the backend transformers") from error


def _answer(
    checkpoint: str,
    device: str,
    options: dict[str, Any],
    images: RemoteImages | None,
    workers: int,
    gpus: float,
    examples: Iterator[ReferringExample],
    batch_size: int,
) -> Iterator[EngineResult]:
    examples = iter(examples)
    while asked := list(itertools.islice(examples, ROUND)):
        answered = bytearray(len(asked))
        rows = min(_BATCHES * batch_size, max(batch_size, math.ceil(len(asked) / (4 * workers))))
        of_worker = (checkpoint, device, batch_size, options, images)
        # A unit that killed its worker twice is taken apart, so that it is known which image did.
        for size, retries in ((rows, 1), (1, 0)):
            units = [pa.table({"examples": [unit]}) for unit in _units(asked, answered, size)]
            for row in _ask(units, of_worker, workers, gpus, retries) if units else ():
                place = row["place"]
                if place < 0:
                    raise RayError(f"a worker has no model: {row['line']}")
                if not answered[place]:
                    answered[place] = True
                    yield asked[place], predictions.from_line(json.loads(row["line"]))
        for place in (place for place, there in enumerate(answered) if not there):
            error = RayError("the worker died of this image, also alone: it may need too much memory; resize it")
            yield asked[place], Failure(str(error), error)


def _units(asked: list[ReferringExample], answered: bytearray, size: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the missing answers in units of `size` or a few more.

    An image is in one unit only.
    """
    unit: list[dict[str, Any]] = []
    left = (place for place, there in enumerate(answered) if not there)
    for image, places in itertools.groupby(sorted(left, key=lambda i: str(asked[i].image)), lambda i: asked[i].image):
        unit += [{"place": place, "image": str(image), "expression": asked[place].expression} for place in places]
        if len(unit) >= size:
            yield unit
            unit = []
    if unit:
        yield unit


def _ask(units: list[pa.Table], arguments: tuple, workers: int, gpus: float, retries: int) -> Iterator[dict[str, Any]]:
    import ray

    pool = ray.data.ActorPoolStrategy(size=min(workers, len(units)), max_tasks_in_flight_per_actor=1)
    with warnings.catch_warnings():
        # Ray wants to give the number of retries another place some day, and has none for it yet.
        warnings.simplefilter("ignore")
        rows = ray.data.from_arrow(units).flat_map(
            Worker,
            fn_constructor_args=arguments,
            compute=pool,
            num_gpus=gpus,
            max_restarts=-1,
            max_task_retries=retries,
        )
    rows.context.enable_progress_bars = False
    rows.context.max_errored_blocks = -1
    try:
        yield from rows.iter_rows()
    except ray.exceptions.RayError as error:
        raise RayError(f"the workers stopped; start again to go on: {ray_cluster.message(error)}") from error
