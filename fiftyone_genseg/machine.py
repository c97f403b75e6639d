"""Devices and memory of this machine, and checkpoints that fit into them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

import psutil
from genseg_hub import checkpoints
from genseg_hub.checkpoints.catalog import EMBEDDED, KNOWN, KnownCheckpoint
from genseg_hub.memory import container_limit
from genseg_hub.options import ReasonerOptions

CPU = "cpu"
# Checkpoints for photographs that are recommended, the smallest first.
GENERAL = tuple(
    sorted(
        (known for known in KNOWN if known.name.startswith("Qwen/Qwen3-VL-") and known.name.endswith("-Instruct")),
        key=lambda known: known.gigabytes,
    )
)
_GPU_SHARE, _CPU_SHARE = 0.95, 0.8  # of the memory: the rest is the driver's, or the system's
_SEGMENTER_GIGABYTES = 0.9  # weights file of SAM 2 large


@dataclass(frozen=True)
class Device:
    """A device that can hold a checkpoint.

    Attributes:
        name: "cuda:0", "mps" or "cpu".
        label: name for people.
        total: gigabytes of memory.
        free: gigabytes that nobody uses now; None if unknown.
        weight_bytes: bytes of a number of the reasoner's weights on this device.
    """

    name: str
    label: str
    total: float
    free: float | None = None
    weight_bytes: int = 2

    @property
    def room(self) -> float:
        """Return the gigabytes that a checkpoint may take."""
        return self.total * (_CPU_SHARE if self.name == CPU else _GPU_SHARE)


@dataclass(frozen=True)
class Candidate:
    """A known checkpoint on this machine.

    Attributes:
        name: as the user types it.
        download: gigabytes of its files, with the segmenter's, estimated.
        memory: gigabytes that it takes on `device`, estimated.
        device: device that the checkpoint would run on.
        fits: whether the device has this memory.
        on_disk: whether nothing is missing to load it.
        recommended: whether it is the best that fits.
        command: the name to type.
    """

    name: str
    download: float
    memory: float
    device: str
    fits: bool
    on_disk: bool
    recommended: bool
    command: str


def cpu() -> Device:
    """Return the CPU with its memory, or with less if a container limits this process."""
    memory = psutil.virtual_memory()
    total = container_limit(memory.total)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    label = f"CPU with {cores} core{'s' if cores > 1 else ''}"
    return Device(CPU, label, total / 1e9, min(memory.available, total) / 1e9, _weight_bytes_on_cpu())


def _weight_bytes_on_cpu() -> int:
    """Return 2 for a CPU that computes in bfloat16, else 4."""
    try:
        import torch
        from genseg_hub.reasoners.loading import dtype_bytes

        return dtype_bytes(torch.device(CPU), ReasonerOptions())
    except (ImportError, OSError):  # PyTorch cannot be imported
        return 4


def gpus() -> tuple[Device, ...]:
    """Return the devices that PyTorch can use beside the CPU.

    This takes seconds, because it imports PyTorch.

    Raises:
        ImportError, OSError: PyTorch cannot be imported.
    """
    import torch

    if torch.cuda.is_available():
        return tuple(_cuda(number) for number in range(torch.cuda.device_count()))
    if torch.backends.mps.is_available():
        return (Device("mps", "Apple GPU", torch.mps.recommended_max_memory() / 1e9),)
    return ()


def _cuda(number: int) -> Device:
    import torch

    properties = torch.cuda.get_device_properties(number)
    free = None
    with contextlib.suppress(RuntimeError):  # another process has all of it
        free = torch.cuda.mem_get_info(number)[0] / 1e9
    return Device(f"cuda:{number}", properties.name, properties.total_memory / 1e9, free)


def memory_needed(known: KnownCheckpoint, device: Device) -> float:
    """Estimate the gigabytes that a checkpoint takes on a device, for one image."""
    if known.takes_words:
        return known.memory
    return known.memory + known.gigabytes * (device.weight_bytes / 2 - 1)


def fits(known: KnownCheckpoint, device: Device) -> bool:
    """Return whether a checkpoint fits into the memory of a device."""
    return memory_needed(known, device) <= device.room


def recommended(device: Device | None = None, among: Iterable[KnownCheckpoint] = GENERAL) -> KnownCheckpoint | None:
    """Return the best checkpoint for photographs that fits a device; None for none.

    On a GPU the largest that fits is best. On a CPU the smallest of all is, because even the smallest is slow there.

    Args:
        device: None for the device that "auto" takes.
        among: checkpoints of `GENERAL` that may be returned, for example the checkpoints on this disk.
    """
    allowed = [known for known in GENERAL if known in among]
    if not allowed:
        return None
    device = device or (*gpus(), cpu())[0]
    if device.name == CPU:
        allowed = allowed[:1] if allowed[0] == GENERAL[0] else []
    return max((known for known in allowed if fits(known, device)), key=lambda known: known.gigabytes, default=None)


def candidates(device: Device) -> list[Candidate]:
    """Return the known checkpoints, each with whether a device has room for it.

    Checkpoints of this package are left out.
    """
    best = recommended(device)
    found = []
    for known in KNOWN:
        if known.name in EMBEDDED:
            continue
        room, here = fits(known, device), checkpoints.is_on_disk(known.name)
        found.append(
            Candidate(
                known.name,
                round(download_size(known), 1),
                round(memory_needed(known, device), 1),
                device.name,
                room,
                here,
                known == best,
                _command(known, room, here),
            )
        )
    return found


def download_size(known: KnownCheckpoint) -> float:
    """Return the approximate gigabytes of a checkpoint's files with its segmenter's."""
    return known.gigabytes + (0 if known.takes_words else _SEGMENTER_GIGABYTES)


def _command(known: KnownCheckpoint, fits: bool, here: bool) -> str:
    if not fits:
        return f"--model {known.name} --server ..."
    return f"--model {known.name}" if here else f"genseg pull {known.name}"
