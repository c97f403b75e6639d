"""Measure seconds, memory and tokens of predictions where the model runs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import psutil
import torch

from genseg_hub.schema import Cost, Failure, Prediction


def measured(results: Iterable[Prediction | Failure], device: torch.device) -> Iterator[Prediction | Failure]:
    """Give each prediction its `Cost`.

    The time that the consumer takes between two results does not count. The time of a failure counts for the next
    prediction, so that the sum is the time of the run.

    Args:
        results: results of a model, in any order.
        device: device of the model.
    """
    if device.type == "cuda":
        for index in range(torch.cuda.device_count()):  # weights may be spread over several
            torch.cuda.reset_peak_memory_stats(index)
    spent, begun = 0.0, time.perf_counter()
    for result in results:
        spent += time.perf_counter() - begun
        if isinstance(result, Prediction):
            result = replace(result, cost=Cost(spent, memory_bytes(device), device.type))
            spent = 0.0
        yield result
        begun = time.perf_counter()


def memory_bytes(device: torch.device) -> int:
    """Return the memory of this process for a model.

    On CUDA it is PyTorch's peak allocation on all GPUs together since `measured` began. On MPS it is the driver's
    present allocation. On a CPU it is the present resident memory of the whole process, Python included.

    Args:
        device: device of the model.
    """
    if device.type == "cuda":
        return sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return psutil.Process().memory_info().rss


class Costs:
    """Sums of the costs of predictions; predictions without a cost are left out."""

    def __init__(self) -> None:
        self._seconds, self._timed = 0.0, 0
        self._tokens, self._counted = 0, 0
        self._memory: dict[str, int] = {}  # device -> bytes

    def add(self, prediction: Prediction) -> None:
        """Add a prediction's cost."""
        if prediction.response.tokens is not None:
            self._tokens += prediction.response.tokens
            self._counted += 1
        if cost := prediction.cost:
            self._seconds += cost.seconds
            self._timed += 1
            self._memory[cost.device] = max(cost.memory_bytes, self._memory.get(cost.device, 0))

    def merge(self, other: Costs) -> None:
        """Add the sums of other predictions."""
        self._seconds += other._seconds
        self._timed += other._timed
        self._tokens += other._tokens
        self._counted += other._counted
        for device, most in other._memory.items():
            self._memory[device] = max(most, self._memory.get(device, 0))

    def compute(self) -> dict[str, Any]:
        """Return the figures.

        Returns:
            `seconds`, the mean of a prediction: wall-clock time of one model, where expressions that are answered
            together share their time. `tokens`, the mean number of generated tokens. `memory_bytes`, the largest
            `memory_bytes` of each device: {"cuda": 9_000_000_000}. The first two are None where nothing was measured.
        """
        return {
            "seconds": self._seconds / self._timed if self._timed else None,
            "tokens": self._tokens / self._counted if self._counted else None,
            "memory_bytes": dict(sorted(self._memory.items())),
        }
