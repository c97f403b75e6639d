"""The engine past one process: workers on Ray hold the models, this process hands out work and takes the answers.

Paths and expressions go out, predictions come back as JSON. Neither the workers nor this module know FiftyOne or its
database: `run` reads and writes, as with one process.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import math
import os
import platform
import socket
import threading
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import pyarrow as pa
from genseg_hub.checkpoints import Checkpoint
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.errors import CheckpointError
from genseg_hub.evaluation import predictions
from genseg_hub.extras import install_command
from genseg_hub.schema import Failure, ReferringExample

from fiftyone_genseg.segmentation.engines.base import Engine, EngineResult

# Expressions that this process holds at once. Between two rounds the workers load their model again.
ROUND = 500_000
# Batches in a unit of work, which is lost when its worker dies.
_BATCHES = 8
# Of a cluster that is started here: enough for the work of a round and the answers under way.
_STORE_BYTES = 512 << 20
# A process, the App's perhaps, has one connection, which ends with the run that made it.
_alone = threading.Lock()


class RayError(RuntimeError):
    """Ray, or what runs on it, does not allow the run; the message says why."""


class Worker:
    """A process with a model; Ray starts it again when it dies."""

    def __init__(self, checkpoint: str, device: str, batch_size: int, options: dict[str, Any]):
        from genseg_hub import GenSegR1

        self.batch_size = batch_size
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
        results = self.model.segment_many(examples, self.batch_size)
        return [
            {"place": asked["place"], "line": predictions.to_json(predictions.to_line(example, result))}
            for asked, example, result in zip(unit["examples"], examples, results, strict=True)
        ]


@contextmanager
def ray_engine(
    checkpoint: Checkpoint,
    workers: int,
    gpus_per_worker: float | None = None,
    address: str | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Engine]:
    """Open an engine that answers with several workers.

    Args:
        checkpoint: each worker pulls the same: from the Hub the same commit, else the same folder.
        workers: processes with a model each.
        gpus_per_worker: 0 for CPUs; None for one where the cluster has GPUs, else 0.
        address: "host:port" of a cluster, or "auto" for the one that this machine belongs to. None for the one that
            the environment variable RAY_ADDRESS names, or else one that is started here and ends with the run. Where
            this process is connected already, that connection is used.
        options: other options of `GenSegR1.from_pretrained`.

    Raises:
        RayError: Ray is not installed, the cluster cannot be reached, or is too small.
    """
    if workers < 1:
        raise RayError(f"there must be at least one worker, got {workers}")
    with _connected(address, workers) as ray:
        have = ray.cluster_resources()
        if gpus_per_worker is None:
            gpus_per_worker = 1 if have.get("GPU") else 0
        for name, each in ("CPU", 1), ("GPU", gpus_per_worker):
            if workers * each > have.get(name, 0):
                raise RayError(
                    f"{workers} workers need {workers * each:g} {name}s, the cluster has {have.get(name, 0):g}; "
                    "take fewer workers, or a smaller share each"
                )
        # A folder is known by a name that means the same elsewhere; nano is part of the package.
        local = checkpoint.commit is None and checkpoint.name not in EMBEDDED
        name = str(checkpoint.reasoner.absolute()) if local else checkpoint.pinned
        if local and checkpoint.chosen_segmenter:
            name += f"+{checkpoint.chosen_segmenter}"
        options = {**options, "dialect": checkpoint.dialect}
        device = "cuda" if gpus_per_worker else "cpu"
        answer = functools.partial(_answer, name, device, dict(options), workers, gpus_per_worker)
        yield Engine(answer, checkpoint.pinned)


@contextmanager
def _connected(address: str | None, workers: int) -> Iterator[Any]:
    # Ray would report to its makers that a cluster is started.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise RayError(f"Ray is not installed: {install_command('ray')}") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if not _alone.acquire(blocking=False):
        raise RayError("another run of this process is on Ray; wait until it has ended")
    try:
        if ray.is_initialized():
            yield ray
            return
        # A Ray dies with the thread that starts it, and an App takes another for each step of a generator.
        with ThreadPoolExecutor(1, thread_name_prefix="ray") as starter:
            starter.submit(_connect, ray, address or os.environ.get("RAY_ADDRESS"), workers).result()
            try:
                yield ray
            finally:
                ray.shutdown()
    finally:
        _alone.release()


def _connect(ray: Any, address: str | None, workers: int) -> None:
    if address and address.startswith("ray://"):
        raise RayError("Ray Data does not run through ray://; start the command on a machine of the cluster, with auto")
    options: dict[str, Any] = {"address": address}
    if not address:
        # On the loopback interface: Ray runs whatever it is sent.
        options = {"num_cpus": workers, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
        options |= {"address": "local", "_node_ip_address": "127.0.0.1"}
    try:
        if address and ":" in address:  # Ray itself would try for ten minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray's own, gRPC's and the socket's errors
        token = "" if os.environ.get("RAY_AUTH_MODE") else " (if it wants a token: RAY_AUTH_MODE=token)"
        raise RayError(f"there is no Ray cluster at {address or 'this machine'}{token}: {error}") from error


def _answer(
    checkpoint: str,
    device: str,
    options: dict[str, Any],
    workers: int,
    gpus: float,
    examples: Iterator[ReferringExample],
    batch_size: int,
) -> Iterator[EngineResult]:
    examples = iter(examples)
    while asked := list(itertools.islice(examples, ROUND)):
        answered = bytearray(len(asked))
        rows = min(_BATCHES * batch_size, max(batch_size, math.ceil(len(asked) / (4 * workers))))
        # A unit that killed its worker twice is taken apart, so that it is known which image did.
        for size, retries in ((rows, 1), (1, 0)):
            units = [pa.table({"examples": [unit]}) for unit in _units(asked, answered, size)]
            for row in _ask(units, (checkpoint, device, batch_size, options), workers, gpus, retries) if units else ():
                place = row["place"]
                if place < 0:
                    raise RayError(f"a worker has no model: {row['line']}")
                if not answered[place]:
                    answered[place] = True
                    yield asked[place], predictions.from_line(json.loads(row["line"]))
        for place in (place for place, there in enumerate(answered) if not there):
            error = RayError("the worker died of it, alone, too: the image may need more memory than there is")
            yield asked[place], Failure(str(error), error)


def _units(asked: list[ReferringExample], answered: bytearray, size: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the missing answers in units of `size` or a few more; an image is in one unit only."""
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
        why = str(error).strip().rpartition("\n")[2]  # the rest is where in Ray
        raise RayError(f"the workers stopped, start again to go on: {why}") from error
