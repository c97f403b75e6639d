"""Runs of GRPO that are as small as they can be: two steps of four answers, evaluated on four expressions."""

import json
from pathlib import Path

RECIPES = Path("training/recipes")
TINY = {
    "model_name_or_path": "nano",
    "data": "refscenes:12",
    "max_steps": 2,
    "save_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 1,
    "eval_data": "refscenes:val:4",
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "num_generations": 2,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-4,
    "warmup_steps": 0,
    "bf16": "false",  # slow on a CPU that does not have it
    "report_to": "none",
}


def options(folder, recipe="nano_r1", **more) -> list[str]:
    """Return the arguments of `genseg-train` for a run."""
    settings = TINY | {"output_dir": folder} | more
    flags = [f"--{name}={value}" for name, value in settings.items() if not isinstance(value, list)]
    lists = [part for name, value in settings.items() if isinstance(value, list) for part in (f"--{name}", *value)]
    return ["grpo", "--config", str(RECIPES / f"{recipe}.yaml"), *flags, *lists]


def history(folder) -> list[dict]:
    """Return the log of a run's last checkpoint."""
    states = sorted(Path(folder).glob("checkpoint-*/trainer_state.json"), key=lambda file: file.stat().st_mtime)
    return json.loads(states[-1].read_text())["log_history"]
