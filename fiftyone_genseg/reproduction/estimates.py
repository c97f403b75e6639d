"""Estimate the hours and the disk that a reproduction's stages need.

`genseg_training.estimates` has the arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fiftyone_genseg.reproduction.request import Reproduction, Run
from fiftyone_genseg.reproduction.stages import Stage

LINE = 3000  # bytes of an expression in predictions.jsonl: an answer of 300 tokens, and a mask


@dataclass(frozen=True)
class Cost:
    """Estimated cost of a stage.

    Attributes:
        hours: GPU -> hours; {} if nothing is known.
        disk: bytes that stay; None if nothing is known.
    """

    hours: Mapping[str, float]
    disk: float | None = None


_UNKNOWN = Cost({})


def cost(stage: Stage, asked: Reproduction, root: Path) -> Cost:
    """Return the cost of a stage.

    The cost is unknown for models other than Qwen3-VL and for full tuning.

    Args:
        stage: stage of `asked`.
        asked: the reproduction.
        root: folder of the official archives, for numbers of expressions that nobody publishes.
    """
    base = _base(asked, stage.run)
    if base is None or stage.kind not in ("train", "benchmark"):
        return _UNKNOWN
    from genseg_training import estimates

    model, recipe, assumed = estimates.qwen3_vl(base), stage.run.settings, estimates.Assumptions()
    if stage.kind == "train":
        if not recipe.get("use_peft") or not recipe.get("eval_data"):
            return _UNKNOWN
        completions = recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"] * asked.processes
        hours = {
            gpu: estimates.hours(recipe, estimates.seconds(model, recipe, gpu, asked.processes, completions, assumed))[
                0
            ]
            for gpu in estimates.GPUS
        }
        return Cost(hours, estimates.disk(model, recipe))
    number = _expressions(stage, asked, root)
    if number is None:
        return _UNKNOWN
    batch_size = int(asked.benchmark_options.get("batch_size", 8))
    each = number / asked.processes
    hours = {gpu: estimates.answering(model, each, batch_size, gpu, assumed) / 3600 for gpu in estimates.GPUS}
    return Cost(hours, LINE * number)


def _base(asked: Reproduction, run: Run) -> str | None:
    """Return the model on the Hub that a run starts from, at any distance.

    Return None for any other model.
    """
    from genseg_training import estimates

    start = str(run.settings.get("model_name_or_path"))
    for earlier in asked.runs[: asked.runs.index(run)]:
        if earlier.result == Path(start):
            return _base(asked, earlier)
    return start if start in estimates.CONFIGS else None


def _expressions(stage: Stage, asked: Reproduction, root: Path) -> int | None:
    """Return a benchmark's published number of expressions, else the archive's."""
    from genseg_hub import archives

    name, split = stage.benchmark or ("", "")
    number: int | None
    try:
        archives.check(name, root, split)
        number = len(archives.load_archive(name, root, split)[0])
    except (ValueError, OSError):
        published: Mapping[str, Any] = archives.by_name()[name].splits[split]
        number = published.get("expressions")
    limit = asked.benchmark_options.get("limit")
    return min(number, int(limit)) if number and limit else int(limit) if limit else number
