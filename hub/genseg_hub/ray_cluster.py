"""Connect to a Ray cluster or start one here, and say in words what fails."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genseg_hub.extras import install_command

# Times that a task is started again after its worker died.
RETRIES = 5
# Object store of a cluster that is started here: enough for the work of a round and the unfinished answers.
_STORE_BYTES = 512 << 20
# A process, the App's perhaps, has one connection, which ends with the run that made it.
_alone = threading.Lock()


class RayError(RuntimeError):
    """Ray, or a worker on it, does not allow the run; the message says why."""


@contextmanager
def connected(address: str | None, workers: int) -> Iterator[Any]:
    """Connect to a cluster, and give the module `ray`.

    Args:
        address: "host:port" of a cluster, or "auto" for this machine's cluster. None for the cluster that the
            environment variable RAY_ADDRESS names, or else a new one that ends with the run. If this process is
            connected already, that connection is used.
        workers: CPUs of a new cluster.

    Raises:
        RayError: there is no worker, Ray is not installed, the cluster cannot be reached, or another run of this
            process is on Ray.
    """
    if workers < 1:
        raise RayError(f"there must be at least one worker, got {workers}")
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
        # Ray listens on all interfaces, and runs what is sent with the token that it makes in ~/.ray.
        os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # it would start a worker without memory for ever
        options = {"num_cpus": workers, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
        options |= {"address": "local", "_node_ip_address": "127.0.0.1"}
    try:
        if address and ":" in address:  # Ray itself would try for ten minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        with contextlib.suppress(OSError):  # Ray lets everybody on this machine read it
            Path("~/.ray/auth_token").expanduser().chmod(0o600)
    except Exception as error:  # Ray's own, gRPC's and the socket's errors
        token = "" if os.environ.get("RAY_AUTH_MODE") else " (if it wants a token: RAY_AUTH_MODE=token)"
        raise RayError(f"there is no Ray cluster at {address or 'this machine'}{token}: {error}") from error


def gpus_each(ray: Any, workers: int, gpus_per_worker: float | None, backend: str | None = None) -> float:
    """Return the GPUs of a worker, on a cluster that has room for all workers.

    Args:
        ray: the module `ray`, as `connected` gives it.
        workers: processes with a CPU each.
        gpus_per_worker: 0 for CPUs; None for one if the cluster has GPUs, else 0.
        backend: backend of the reasoner, if one was chosen.

    Raises:
        RayError: the cluster is too small, or vLLM is to share a GPU.
    """
    if backend == "vllm" and gpus_per_worker and 0 < gpus_per_worker < 1:
        raise RayError(
            f"vLLM takes a whole GPU, and a worker has {gpus_per_worker:g}; give each worker one, or take the "
            "backend transformers"
        )
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if gpus_per_worker is None:
        gpus_per_worker = 1 if any(node.get("GPU") for node in nodes) else 0
    for name, each in ("CPU", 1.0), ("GPU", gpus_per_worker):
        have = [node.get(name, 0) for node in nodes]
        room = sum(int(own / each + 1e-6) for own in have) if each else workers  # a share is of one machine
        if workers > room:
            raise RayError(
                f"{workers} workers with {each:g} {name} each do not fit, because the cluster has {sum(have):g} and "
                f"room for {room}; take fewer workers, or a smaller share each"
            )
    return gpus_per_worker


def message(error: Exception) -> str:
    """Return the message of a Ray error without its traceback and long advice."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0 if type(error).__name__ == "OutOfMemoryError" else -1]
