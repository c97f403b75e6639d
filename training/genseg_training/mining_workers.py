"""Mine with workers on Ray: each answers one shard, and any of them may die."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from genseg_hub import ray_cluster
from genseg_hub.errors import EngineDiedError
from genseg_hub.evaluation import shards
from genseg_hub.ray_cluster import RayError
from tqdm.auto import tqdm

from genseg_training import mining
from genseg_training.mining import MiningArguments

_SECONDS = 5.0  # between two looks at the files of the shards


def mine(arguments: MiningArguments) -> None:
    """Answer a source's expressions with several workers, and write the kept ones.

    All machines of the cluster see the folder of the answers, the source and a local checkpoint by the same paths. This
    process loads no model.

    Args:
        arguments: options of the command, with `workers`.

    Raises:
        RayError: see `ray_cluster`; or a worker died too often.
        ValueError: see `mining.mine`.
        CheckpointError: see `mining.mine`.
    """
    workers = arguments.workers or 0
    begun = mining.begin(arguments)
    with ray_cluster.connected(arguments.address, workers) as ray:
        wanted = 0 if arguments.device == "cpu" else arguments.gpus_per_worker
        gpus = ray_cluster.gpus_each(ray, workers, wanted, arguments.options().get("backend"))
        own = replace(begun, workers=None, gpus_per_worker=None, address=None, device="cuda" if gpus else "cpu")
        ask = ray.remote(
            num_cpus=1,
            num_gpus=gpus,
            max_calls=1,  # the process ends with its shard, and with it an engine that died
            max_retries=ray_cluster.RETRIES,
            retry_exceptions=[EngineDiedError],
        )(_part)
        parts = [f"{number}/{workers}" for number in range(1, workers + 1)]
        tasks = {ask.remote(os.getcwd(), replace(own, shard=part)): part for part in parts}
        try:
            _wait(ray, tasks, Path(arguments.output_dir), arguments.model)
        except BaseException:  # Ctrl-C, too
            with contextlib.suppress(Exception):  # the first error counts
                # Ray 2.60 aborts this process if a task is cancelled at the moment at which it ends.
                for task in ray.wait(list(tasks), num_returns=len(tasks), timeout=0)[1]:
                    ray.cancel(task, force=True)
            raise
    mining.finish(begun)


def _part(folder: str, arguments: MiningArguments) -> None:
    """Answer one shard, in a process of Ray.

    Args:
        folder: working folder of the process that started the run.
        arguments: options of the command, with the shard.
    """
    os.chdir(folder)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # Ray would not end a process that a killed worker started
    mining.mine(arguments)


def _wait(ray: Any, tasks: dict[Any, str], folder: Path, model: str) -> None:
    """Wait for all tasks, and show how many answers are there.

    The first error of a task is raised at once.
    """
    left = list(tasks)
    with tqdm(desc=f"answers of {model}", unit="") as bar:
        while left:
            done, left = ray.wait(left, timeout=_SECONDS)
            for task in done:
                try:
                    ray.get(task)
                except ray.exceptions.RayError as error:
                    cause = getattr(error, "cause", None)
                    if cause and not isinstance(cause, EngineDiedError):
                        raise cause from error
                    raise RayError(
                        f"the worker of shard {tasks[task]} died {ray_cluster.RETRIES + 1} times, and its answers are "
                        "kept; start again to go on. If it dies at the same example again, leave that image out, or "
                        f"give each worker more memory: {cause or ray_cluster.message(error)}"
                    ) from error
            bar.n = max(bar.n, _count(folder))
            bar.refresh()


def _count(folder: Path) -> int:
    count = 0
    for file in (folder / mining.ANSWERS, *shards.files(folder)):
        try:
            with file.open("rb") as stream:
                count += sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
        except OSError:  # the last worker joins the files
            continue
    return count
