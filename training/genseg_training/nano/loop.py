"""Train nano from scratch: resumable, seeded, on one or several CPU processes.

The loop knows steps, optimizers and files. It knows neither the model nor its data. GRPO uses TRL's trainer instead.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset


def option(default: Any, help: str) -> Any:
    """Return a dataclass field with a text for `--help`.

    Args:
        default: default of the field.
        help: the text.
    """
    return field(default=default, metadata={"help": help})


@dataclass
class LoopConfig:
    """Settings of every stage of nano's training."""

    output_dir: str = option("runs/nano", "Folder for the checkpoint, state.pt to resume from, and log.jsonl.")
    steps: int = option(1000, "Optimizer steps of the whole schedule.")
    batch_images: int = option(16, "Images per step and process.")
    learning_rate: float = option(1e-3, "Peak learning rate of AdamW.")
    muon_learning_rate: float = option(0.02, "Peak learning rate of Muon, which trains the matrices.")
    warmup_steps: int = option(100, "Steps of linear warm-up; the rate is then constant.")
    decay_share: float = option(0.5, "Share of the steps, at the end, in which the rate falls linearly to zero.")
    eval_steps: int = option(200, "Steps between evaluations.")
    save_steps: int = option(100, "Steps between saves.")
    log_steps: int = option(50, "Steps between log entries.")
    seed: int = option(1, "Seed of the data.")
    threads: int = option(1, "CPU threads per process.")


class _Batches(Dataset):
    """Batches that depend on seed, step and rank alone.

    A resumed run therefore sees the same data.
    """

    def __init__(self, make: Callable[[str, float], Any], config: LoopConfig, rank: int):
        self.make, self.config, self.rank = make, config, rank

    def __len__(self) -> int:
        return self.config.steps

    def __getitem__(self, step: int):
        return self.make(f"{self.config.seed}-{step}-{self.rank}", step / self.config.steps)


def _world() -> tuple[int, int]:
    """Return (rank, world size), which torchrun sets."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    return int(os.environ.get("RANK", "0")), world


def _average_gradients(parameters: list[torch.nn.Parameter], world: int) -> None:
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= world
    for gradient, average in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(average.view_as(gradient))


def _schedule(step: int, config: LoopConfig) -> float:
    decay = max(1, round(config.steps * config.decay_share))
    return min(1.0, (step + 1) / max(1, config.warmup_steps), max(0.0, (config.steps - step) / decay))


def muon_and_adamw(
    module: torch.nn.Module, config: LoopConfig, scale: Callable[[str], float] = lambda name: 1.0
) -> list[torch.optim.Optimizer]:
    """Return Muon for a module's matrices, and AdamW for the other parameters.

    The other parameters are embeddings, convolutions, norms and biases.

    Args:
        module: everything that is trained.
        config: holds the learning rates.
        scale: learning-rate factor of a parameter by its name; 0 freezes it.
    """
    groups: dict[tuple[bool, float], list[torch.nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        factor = scale(name)
        parameter.requires_grad_(factor > 0)
        if factor > 0:
            matrix = parameter.ndim == 2 and "embed" not in name and min(parameter.shape) > 8
            groups.setdefault((matrix, factor), []).append(parameter)

    def of(matrix: bool, rate: float) -> list[dict]:
        return [{"params": p, "lr": rate * f, "peak": rate * f} for (m, f), p in groups.items() if m == matrix]

    return [
        torch.optim.Muon(of(True, config.muon_learning_rate), weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(of(False, config.learning_rate), weight_decay=0.0, betas=(0.9, 0.98), fused=True),
    ]


def train(
    module: torch.nn.Module,
    optimizers: Iterable[torch.optim.Optimizer],
    config: LoopConfig,
    make_batch: Callable[[str, float], Any],
    loss_of: Callable[[Any], tuple[torch.Tensor, dict[str, float]]],
    evaluate: Callable[[], dict[str, float]],
    save: Callable[[Path], None],
) -> None:
    """Run or resume a stage.

    Args:
        module: everything that is trained; a resumed run restores its state_dict.
        optimizers: optimizers of the module's parameters; each group has its peak learning rate in "peak".
        config: settings of the stage.
        make_batch: (seed, progress in [0, 1)) -> batch, called in a worker process.
        loss_of: batch -> (scalar loss, figures to log).
        evaluate: returns figures on held-out data.
        save: writes the checkpoint into a folder.

    Raises:
        FloatingPointError: when the gradient is not finite.
    """
    rank, world = _world()
    torch.set_num_threads(config.threads)
    # Otherwise threads add the gradients of gathered rows in random order.
    torch.use_deterministic_algorithms(True)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    optimizers = list(optimizers)
    state_file = folder / "state.pt"
    step, seconds = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        module.load_state_dict(state["module"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            settings = [{key: g[key] for key in ("peak", "weight_decay")} for g in optimizer.param_groups]
            optimizer.load_state_dict(saved)
            for group, setting in zip(optimizer.param_groups, settings, strict=True):
                group.update(setting)  # the settings of this config, not of the saved one
        step, seconds = state["step"], state["seconds"]
    log = (folder / "log.jsonl").open("a") if rank == 0 else None

    def record(figures: dict[str, float]) -> None:
        if log:
            row = {"step": step, "hours": round(seconds / 3600, 4)} | {k: round(v, 5) for k, v in figures.items()}
            print(json.dumps(row), flush=True)
            log.write(json.dumps(row) + "\n")
            log.flush()

    def checkpoint() -> None:
        if rank == 0:
            temporary = state_file.with_suffix(".tmp")
            torch.save(
                {
                    "module": module.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                    "step": step,
                    "seconds": seconds,
                },
                temporary,
            )
            save(folder)
            temporary.replace(state_file)  # last, so that a kill repeats the steps since the last state

    parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    batches = DataLoader(
        _Batches(make_batch, config, rank),
        batch_size=None,
        sampler=range(step, config.steps),
        num_workers=1,
        prefetch_factor=4,
    )
    sums: dict[str, float] = {}
    module.train()
    for batch in batches:
        started = time.monotonic()
        factor = _schedule(step, config)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
        loss, figures = loss_of(batch)
        loss.backward()
        if world > 1:
            _average_gradients(parameters, world)
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        if not math.isfinite(norm):  # the averaged gradient, so that all processes stop together
            raise FloatingPointError(f"the gradient is {norm} at step {step}; resume with a lower learning rate")
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for name, value in (figures | {"loss": loss.item()}).items():
            sums[name] = sums.get(name, 0.0) + value / config.log_steps
        step += 1
        seconds += time.monotonic() - started
        if step % config.log_steps == 0:
            record(sums)
            sums = {}
        if rank == 0 and (step % config.eval_steps == 0 or step == config.steps):
            module.eval()
            record({f"eval_{name}": value for name, value in evaluate().items()})
            module.train()
        if step % config.save_steps == 0 or step == config.steps:
            checkpoint()
