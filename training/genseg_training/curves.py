"""The curves of a GRPO run as a picture: rewards, held-out figures and entropy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genseg_hub.figures import NAMES
from matplotlib.figure import Figure

_HELD_OUT = ("miou", "ciou", "n_acc", "t_acc")
_SMOOTHING = 20  # steps of the moving average, at most; the rewards of one step come from a few prompts


def draw(log_history: Sequence[dict[str, Any]], file: Path) -> None:
    """Write a PNG of the curves.

    Args:
        log_history: log of the trainer's state; entries without a step or a known figure are left out.
        file: file of the PNG.
    """
    figure = Figure(figsize=(15, 4), layout="constrained")
    rewards, held_out, entropy = figure.subplots(1, 3)
    names = sorted({name for entry in log_history for name in entry if name.startswith("rewards/")})
    for name in names:
        if name.endswith("/mean"):
            steps, values = _series(log_history, name)
            rewards.plot(steps, _smooth(values), label=name.split("/")[1].removesuffix("_reward"))
    for name in _HELD_OUT:
        held_out.plot(*_series(log_history, f"eval_{name}"), marker="o", markersize=3, label=NAMES[name])
    entropy.plot(*_series(log_history, "entropy"), label="entropy")
    for axis, title in (
        (rewards, f"rewards of sampled answers, mean of up to {_SMOOTHING} steps"),
        (held_out, "held-out examples, greedy answers"),
        (entropy, "entropy per token, nats"),
    ):
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    figure.savefig(file, dpi=110)


def _series(log_history: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    points = [(entry["step"], entry[name]) for entry in log_history if name in entry and "step" in entry]
    return [step for step, _ in points], [value for _, value in points]


def _smooth(values: list[float]) -> list[float]:
    return [
        sum(window) / len(window) for i in range(len(values)) if (window := values[max(0, i + 1 - _SMOOTHING) : i + 1])
    ]
