"""Training on a view: its examples on disk, a GRPO run on them, and the folder where trained checkpoints are kept.

A run is a folder in the model zoo's folder of FiftyOne: plan.json, train/ and held_out/ (referring examples), what
`genseg-train grpo` leaves there, and at the end best/, the checkpoint. A run that was ended goes on from its last step.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
from genseg_hub.checkpoints import SETTINGS_FILE
from genseg_hub.schema import ReferringExample

HELD_OUT_SHARE = 0.2
PLAN, TRAIN, HELD_OUT, BEST = "plan.json", "train", "held_out", "best"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")
Progress = Callable[[float, str], Any]


@dataclass(frozen=True)
class Plan:
    """What is asked for.

    Attributes:
        name: of the new checkpoint: letters, digits, `_`, `-` and `.`.
        checkpoint: to start from.
        recipe: name of a recipe of `genseg-train grpo`, or a file; its settings hold but for those below.
        steps: of the optimizer.
        mix: a further source of training data, drawn from as often as the view, such as refscenes:4000; or empty.
        held_out: a source of held-out examples; empty to hold out HELD_OUT_SHARE of the view's images.
    """

    name: str
    checkpoint: str
    recipe: str
    steps: int
    mix: str = ""
    held_out: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        checkpoint: folder to load and to push.
        best_step: the step that it is from.
        before, after: its figures on the held-out examples at the start and at that step.
    """

    checkpoint: Path
    best_step: int
    before: dict[str, Any]
    after: dict[str, Any]


def home() -> Path:
    """Where the checkpoints are that were trained here."""
    return Path(fo.config.model_zoo_dir) / "genseg"


def trained() -> dict[str, Path]:
    """Name -> folder of the finished checkpoints, the newest first."""
    found = sorted(home().glob(f"*/{BEST}/{SETTINGS_FILE}"), key=lambda file: -file.stat().st_mtime)
    return {file.parent.parent.name: file.parent for file in found}


def is_begun(name: str) -> bool:
    """Whether a run of that name was started and is not finished."""
    return bool(_NAME.fullmatch(name)) and (home() / name / PLAN).is_file() and name not in trained()


def recipes() -> dict[str, Path]:
    """Name -> file of the recipes of `genseg-train grpo` that come with the package."""
    from genseg_training.cli import recipes

    return {name: file for name, file in recipes().items() if re.search(r"^rewards:", file.read_text(), re.M)}


def _recipe_file(recipe: str) -> Path:
    """Raises ValueError for a recipe that does not exist."""
    file = recipes().get(recipe, Path(recipe).expanduser())
    if not file.is_file():
        raise ValueError(f"there is no recipe {recipe!r}; choose a file or one of {', '.join(recipes())}")
    return file


def check(plan: Plan) -> None:
    """Refuse what cannot be done.

    Raises:
        ValueError: with a sentence for the user.
    """
    if not _NAME.fullmatch(plan.name):
        raise ValueError(f"{plan.name!r} is no name for a checkpoint: use letters, digits, `_`, `-` and `.`")
    if plan.name in trained():
        raise ValueError(f"there is a checkpoint {plan.name!r} in {home() / plan.name}: choose another name")
    _recipe_file(plan.recipe)
    if plan.steps < 1:
        raise ValueError(f"the number of steps must be 1 or more, got {plan.steps}")


def prepare(plan: Plan, examples: Collection[ReferringExample]) -> Path:
    """Write a run's folder, whole or not at all.

    Args:
        examples: of the view, with masks.

    Raises:
        ValueError: as `check`, and when there are too few examples to hold some out.
    """
    from genseg_hub.referring_dataset import to_dataset

    check(plan)
    if not examples:
        raise ValueError("there are no referring examples to train on: no sample of the view has an expression")
    images = sorted({example.image_id for example in examples})
    count = 0 if plan.held_out else max(1, round(HELD_OUT_SHARE * len(images)))
    if count >= len(images):
        raise ValueError("one image is too few to train on and to hold out: take more, or name held-out examples")
    chosen = set(random.Random(plan.name).sample(images, count))
    folder, temporary = home() / plan.name, home() / f".{plan.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    to_dataset(e for e in examples if e.image_id not in chosen).save_to_disk(temporary / TRAIN)
    if chosen:
        to_dataset(e for e in examples if e.image_id in chosen).save_to_disk(temporary / HELD_OUT)
    (temporary / PLAN).write_text(json.dumps(asdict(plan), indent=2) + "\n")
    temporary.rename(folder)
    return folder


def run(folder: Path, on_progress: Progress = lambda share, label: None) -> Outcome:
    """Train, or go on, as the folder's plan says.

    Raises:
        ValueError, genseg_hub.checkpoints.CheckpointError: as `genseg_training.grpo.train`.
    """
    from genseg_training import grpo
    from genseg_training.callbacks import OnProgress

    plan = Plan(**json.loads((folder / PLAN).read_text()))
    every = max(1, min(20, plan.steps // 5))
    options: dict[str, Any] = {
        "config": _recipe_file(plan.recipe),
        "model_name_or_path": plan.checkpoint,
        "output_dir": folder,
        "data": [folder / TRAIN, plan.mix] if plan.mix else [folder / TRAIN],
        "data_weights": [0.5, 0.5] if plan.mix else [1.0],
        "eval_data": plan.held_out or folder / HELD_OUT,
        "eval_strategy": "steps",
        "eval_on_start": True,
        "eval_steps": every,
        "save_steps": every,
        "max_steps": plan.steps,
    }
    arguments, config, model_config = grpo.parse(options)
    grpo.train(arguments, config, model_config, callbacks=[OnProgress(on_progress)])
    start = folder / "evaluations" / "step-000000.json"
    after = json.loads((folder / BEST / "evaluation" / "held_out.json").read_text())
    return Outcome(folder / BEST, after["step"], json.loads(start.read_text()), after)
