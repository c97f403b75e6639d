"""Mine with several workers on Ray; each answers a shard, and any may die."""

from __future__ import annotations

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

# A worker that dies is started again so often; it goes on with the first answer that is missing.
_RETRIES = 5
_SECONDS = 5.0  # between two looks at the files of the shards


def mine(arguments: MiningArguments) -> None:
    """Answer a source's expressions with several workers, and write the kept ones.

    All machines of the cluster see the folder of the answers, the source and a local checkpoint by the same paths.

    Args:
        arguments: options of the command, with `workers`.

    Raises:
        RayError: see `ray_cluster`; or a worker died too often.
        ValueError: see `mining.mine`.
        CheckpointError: see `mining.mine`.
    """
    arguments.check()
    workers, alone = arguments.workers or 0, replace(arguments, workers=None, gpus_per_worker=None, address=None)
    with ray_cluster.connected(arguments.address, workers) as ray:
        gpus = ray_cluster.gpus_each(ray, workers, arguments.gpus_per_worker)
        part = ray.remote(num_cpus=1, num_gpus=gpus, max_calls=1, max_retries=_RETRIES)(_part)
        parts = [replace(alone, shard=f"{number}/{workers}") for number in range(1, workers + 1)]
        tasks = [part.remote(os.getcwd(), own) for own in parts]
        try:
            _wait(ray, tasks, Path(arguments.output_dir), arguments.model)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            why = ray_cluster.last_line(error)
            raise RayError(f"the workers stopped, start again to go on: {why}") from error
        finally:
            for task in tasks:
                ray.cancel(task, force=True)
    mining.mine(alone)  # nothing is missing: this joins the shards, unless a worker has, and tells the result


def _part(folder: str, arguments: MiningArguments) -> None:
    """Answer one shard, in a process of Ray.

    Args:
        folder: working folder of the process that started the run.
        arguments: arguments with the shard.
    """
    os.chdir(folder)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # Ray would not end a process that a killed worker started
    try:
        mining.mine(arguments)
    except EngineDiedError:
        os._exit(1)  # Ray starts another process, with an engine that lives


def _wait(ray: Any, tasks: list, folder: Path, model: str) -> None:
    """Wait for all tasks, and show how many answers are there.

    The first error of a task is raised at once.
    """
    with tqdm(desc=f"answers of {model}", unit="") as bar:
        while tasks:
            done, tasks = ray.wait(tasks, timeout=_SECONDS)
            ray.get(done)
            bar.n = max(bar.n, _count(folder))
            bar.refresh()


def _count(folder: Path) -> int:
    count = 0
    for file in (folder / mining.ANSWERS, *shards.files(folder)):
        try:
            with file.open("rb") as stream:
                count += sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
        except FileNotFoundError:  # the last worker joins the files
            continue
    return count
