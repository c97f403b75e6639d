"""Training on a view: its examples on disk, a GRPO run on them, and the folder where trained checkpoints are kept.

A run is a folder in the model zoo's folder of FiftyOne: plan.json, recipe.yaml, train/ and held_out/ (referring
examples), what `genseg-train grpo` leaves there, with the checkpoint in best/, and outcome.json when it is finished. A
run that was ended goes on from its last step.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import random
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import fiftyone as fo
from genseg_hub.checkpoints.catalog import NANO
from genseg_hub.schema import ReferringExample

HELD_OUT_SHARE = 0.2
PLAN, RECIPE, TRAIN, HELD_OUT, BEST, OUTCOME = "plan.json", "recipe.yaml", "train", "held_out", "best", "outcome.json"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")
Progress = Callable[[float, str], Any]


@dataclass(frozen=True)
class Plan:
    """What is asked for.

    Attributes:
        name: of the new checkpoint: letters, digits, `_`, `-` and `.`.
        checkpoint: to start from.
        recipe: name of a recipe of `genseg-train grpo`, or a file. Its settings hold but for the data, how much of it
            has no target, and those below.
        steps: of the optimizer.
        mix: a further source of training data, drawn from as often as the view, such as refscenes:4000; or empty.
        held_out: a source of held-out examples; empty to hold out HELD_OUT_SHARE of the view's images.
    """

    name: str
    checkpoint: str = NANO
    recipe: str = "nano_r1_g"
    steps: int = 60
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
    found = sorted(home().glob(f"*/{OUTCOME}"), key=lambda file: -file.stat().st_mtime)
    return {file.parent.name: file.parent / BEST for file in found}


def begun(name: str) -> Plan | None:
    """The plan of a run of that name that was started and is not finished."""
    if not _NAME.fullmatch(name) or not (home() / name / PLAN).is_file() or name in trained():
        return None
    return Plan(**json.loads((home() / name / PLAN).read_text()))


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
    if importlib.util.find_spec("trl") is None:
        raise ValueError('training needs what `pip install "fiftyone-genseg[train]"` installs')
    if not _NAME.fullmatch(plan.name):
        raise ValueError(f"{plan.name!r} is no name for a checkpoint: use letters, digits, `_`, `-` and `.`")
    if (home() / plan.name).exists():
        raise ValueError(f"there is a run {plan.name!r} in {home() / plan.name}: choose another name, or remove it")
    _recipe_file(plan.recipe)
    if plan.steps < 1:
        raise ValueError(f"the number of steps must be 1 or more, got {plan.steps}")


def prepare(plan: Plan, examples: Collection[ReferringExample]) -> Path:
    """Write a run's folder, whole or not at all.

    Args:
        examples: of the view, with masks, their images as files.

    Raises:
        ValueError: as `check`, and when there are too few examples to hold some out.
    """
    from genseg_hub.referring_dataset import to_dataset

    check(plan)
    if not examples:
        raise ValueError("there are no referring examples to train on: no sample of the view has an expression")
    images = sorted({str(example.image) for example in examples})
    count = 0 if plan.held_out else max(1, round(HELD_OUT_SHARE * len(images)))
    if count >= len(images):
        raise ValueError("one image is too few to train on and to hold out: take more, or name held-out examples")
    chosen = set(random.Random(plan.name).sample(images, count))
    folder, temporary = home() / plan.name, home() / f".{plan.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    to_dataset(e for e in examples if str(e.image) not in chosen).save_to_disk(temporary / TRAIN)
    if chosen:
        to_dataset(e for e in examples if str(e.image) in chosen).save_to_disk(temporary / HELD_OUT)
    shutil.copyfile(_recipe_file(plan.recipe), temporary / RECIPE)
    sources: dict[str, Any] = {name: _resolved(getattr(plan, name)) for name in ("checkpoint", "mix", "held_out")}
    (temporary / PLAN).write_text(json.dumps(asdict(replace(plan, **sources)), indent=2) + "\n")
    temporary.rename(folder)
    return folder


def _resolved(name: str) -> str:
    """A folder by its absolute path, anything else as it is: the run may go on in another working directory."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if name and folder.is_dir() else name


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raises ValueError when another process trains in this folder."""
    with (folder / PLAN).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder.name!r} is being trained already") from None
        yield


def run(folder: Path, on_progress: Progress = lambda share, label: None) -> Outcome:
    """Train, or go on, as the folder's plan says. A run that fails before anything was saved leaves no folder behind.

    Raises:
        ValueError, CheckpointError: as `genseg_training.grpo.train`.
    """
    with _alone(folder):
        try:
            outcome = _train(folder, on_progress)
        except Exception:
            if not any(folder.glob("checkpoint-*")):
                shutil.rmtree(folder)
            raise
        (folder / OUTCOME).write_text(json.dumps(asdict(outcome), indent=2, default=str) + "\n")
        return outcome


def _train(folder: Path, on_progress: Progress) -> Outcome:
    from genseg_training import grpo
    from genseg_training.callbacks import OnProgress

    plan = Plan(**json.loads((folder / PLAN).read_text()))
    every = max(1, min(20, plan.steps // 5))
    options: dict[str, Any] = {
        "config": folder / RECIPE,
        "model_name_or_path": plan.checkpoint,
        "output_dir": folder,
        "data": [folder / TRAIN, plan.mix] if plan.mix else [folder / TRAIN],
        "data_weights": [0.5, 0.5] if plan.mix else [1.0],
        "eval_data": plan.held_out or folder / HELD_OUT,
        "eval_strategy": "steps",
        "eval_on_start": True,
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "max_steps": plan.steps,
    }
    arguments, config, model_config = grpo.parse(options)
    arguments.no_target_share = None  # a slice of failures has what it has
    grpo.train(arguments, config, model_config, callbacks=[OnProgress(on_progress)])
    before = json.loads((folder / "evaluations" / "step-000000.json").read_text())
    after = json.loads((folder / BEST / "evaluation" / "held_out.json").read_text())
    return Outcome(folder / BEST, after["step"], before, after)
