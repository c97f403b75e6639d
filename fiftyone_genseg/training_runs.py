"""Train on a view: its examples on disk, a GRPO run, and the trained checkpoints.

A run is a folder in the folder `genseg` of FiftyOne's model zoo. It holds plan.json, recipe.yaml, train/ and held_out/
(referring examples), and the files of `genseg-train grpo`, with the checkpoint in best/. A finished run also has
outcome.json. A run that was ended resumes from its last step.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import fiftyone as fo
from filelock import FileLock, Timeout
from genseg_hub import checkpoints, whole
from genseg_hub.checkpoints.catalog import NANO
from genseg_hub.errors import CheckpointError
from genseg_hub.extras import install_command, is_installed
from genseg_hub.schema import ReferringExample

from fiftyone_genseg.messages import sentence

HELD_OUT_SHARE = 0.2
PLAN, RECIPE, TRAIN, HELD_OUT, BEST, OUTCOME = "plan.json", "recipe.yaml", "train", "held_out", "best", "outcome.json"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")
Progress = Callable[[float, str], Any]


@dataclass(frozen=True)
class Plan:
    """A request to train: the one place of its defaults and of its checks.

    Attributes:
        name: name of the new checkpoint: letters, digits, `_`, `-` and `.`.
        checkpoint: checkpoint to start from.
        recipe: name of a recipe of `genseg-train grpo`, or a file. The run uses its settings, except for the data, the
            share of no-target examples, and the settings below.
        steps: steps of the optimizer.
        mix: a further source of training data, drawn from as often as the view, such as refscenes:4000; or empty.
        held_out: a source of held-out examples; empty to hold out HELD_OUT_SHARE of the view's images.
    """

    name: str
    checkpoint: str = NANO
    recipe: str = "nano_r1_g"
    steps: int = 60
    mix: str = ""
    held_out: str = ""

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Plan:
        """Read a form.

        Args:
            params: the form's values by name. Missing values, and None, mean the defaults.
        """
        given = {field.name: params.get(field.name) for field in fields(cls)}
        chosen = {name: value for name, value in given.items() if value is not None}
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in chosen.items()}
        return cls(**({"name": ""} | stripped))

    def check(self) -> None:
        """Raise unless the run can be prepared; ask no network and write nothing.

        Raises:
            ValueError: for a missing package, or a name, recipe, number of steps or source that cannot be used.
            CheckpointError: for a name that can be no checkpoint, or files of a local checkpoint that cannot be used.
        """
        if not is_installed("train"):
            raise ValueError(f"training needs further packages: {install_command('train')}")
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name for a checkpoint: use letters, digits, `_`, `-` and `.`")
        if (home() / self.name).exists():
            raise ValueError(
                f"there is a run {self.name!r} in {home() / self.name}: choose another name, or remove the run"
            )
        _recipe_file(self.recipe)
        if self.steps < 1:
            raise ValueError(f"the number of steps must be 1 or more, got {self.steps}")
        checkpoints.check_available(self.checkpoint)
        sources = [source for source in (self.mix, self.held_out) if source]
        if sources:
            from genseg_training import data

            for source in sources:
                data.check_source(source)

    def problem(self, samples: fo.Dataset | fo.DatasetView | None) -> str | None:
        """Return why the run cannot be prepared, as a sentence; None when it can.

        Args:
            samples: the view to train on; None if no dataset is open.
        """
        if samples is None:
            return "Open a dataset first."
        try:
            self.check()
        except (ValueError, OSError, CheckpointError) as error:
            return sentence(error)
        return None

    def check_resumed(self, params: Mapping[str, Any]) -> None:
        """Raise ValueError if a form contradicts the plan of a run that was ended.

        Args:
            params: the form's values by name. Missing and empty values agree with any plan.
        """
        for name, begun in vars(self).items():
            asked = params.get(name)
            if asked not in (None, "", begun) and name != "name":
                raise ValueError(
                    f"the run {self.name!r} was begun with {name} {begun!r}, not {asked!r}: give another name, or the "
                    "name alone to go on"
                )


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes:
        checkpoint: folder to load and to push.
        best_step: step of the checkpoint.
        before: figures on the held-out examples before the first step.
        after: figures on the held-out examples at the best step.
    """

    checkpoint: Path
    best_step: int
    before: dict[str, Any]
    after: dict[str, Any]


def home() -> Path:
    """Return the folder of the runs."""
    return Path(fo.config.model_zoo_dir) / "genseg"


def trained() -> dict[str, Path]:
    """Return the folders of finished checkpoints by name, the newest first."""
    found = sorted(home().glob(f"*/{OUTCOME}"), key=lambda file: -file.stat().st_mtime)
    return {file.parent.name: file.parent / BEST for file in found}


def begun(name: str) -> Plan | None:
    """Return the plan of a run that was started and is not finished.

    Return None for any other name.

    Args:
        name: name of the run.
    """
    if not _NAME.fullmatch(name) or not (home() / name / PLAN).is_file() or name in trained():
        return None
    return _read_plan(home() / name)


def _read_plan(folder: Path) -> Plan:
    return Plan(**json.loads((folder / PLAN).read_text()))


def recipes() -> dict[str, Path]:
    """Return the files of this package's recipes of `genseg-train grpo` by name."""
    from genseg_training.cli import recipes

    return {name: file for name, file in recipes().items() if re.search(r"^rewards:", file.read_text(), re.M)}


def _recipe_file(recipe: str) -> Path:
    """Return the file of a recipe; raise ValueError if there is none."""
    known = recipes()
    try:
        file = known.get(recipe, Path(recipe).expanduser())
        is_file = file.is_file()
    except (OSError, RuntimeError) as error:  # another's home, or a path that the file system refuses
        raise ValueError(f"{recipe!r} cannot be used as a path: {error}; choose another") from error
    if not is_file:
        raise ValueError(f"there is no recipe {recipe!r}; choose a file or one of {', '.join(known)}")
    return file


def prepare(plan: Plan, examples: Collection[ReferringExample]) -> Path:
    """Write a run's folder, whole or not at all.

    Args:
        plan: plan of the run.
        examples: examples of the view, with masks; their images are files.

    Raises:
        ValueError: as `Plan.check`, and when there are too few examples to hold some out.
        CheckpointError: as `Plan.check`.
        DiskFullError: the disk is full; there is no folder.
    """
    from genseg_hub.referring_dataset import to_dataset

    plan.check()
    if not examples:
        raise ValueError(
            "there are no referring examples to train on: no sample of the view has an expression; choose another"
        )
    images = sorted({str(example.image) for example in examples})
    count = 0 if plan.held_out else max(1, round(HELD_OUT_SHARE * len(images)))
    if count >= len(images):
        raise ValueError("one image is too few to train on and to hold out: take more, or name held-out examples")
    chosen = set(random.Random(plan.name).sample(images, count))
    folder = home() / plan.name
    sources: dict[str, Any] = {name: _resolved(getattr(plan, name)) for name in ("checkpoint", "mix", "held_out")}
    with whole.written_folder(folder) as new:
        to_dataset(e for e in examples if str(e.image) not in chosen).save_to_disk(new / TRAIN)
        if chosen:
            to_dataset(e for e in examples if str(e.image) in chosen).save_to_disk(new / HELD_OUT)
        shutil.copyfile(_recipe_file(plan.recipe), new / RECIPE)
        (new / PLAN).write_text(json.dumps(asdict(replace(plan, **sources)), indent=2) + "\n")
    return folder


def _resolved(name: str) -> str:
    """Return the absolute path of a folder, any other name unchanged.

    A run may resume in another directory.
    """
    folder = Path(name).expanduser()
    return str(folder.resolve()) if name and folder.is_dir() else name


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a run.

    Raise ValueError when another process trains in its folder.
    """
    # Beside the folder, because Windows removes no folder with an open file in it.
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{folder.name!r} is being trained already; wait until it ends") from None
    try:
        yield
    finally:
        lock.release()


def run(folder: Path, on_progress: Progress = lambda share, label: None) -> Outcome:
    """Train or resume as the folder's plan says.

    A run that fails before its first checkpoint leaves no folder behind.

    Args:
        folder: folder from `prepare`.
        on_progress: gets the share of the steps that are done, and a label with the latest figures.

    Raises:
        ValueError: when another process trains in the folder, and as `genseg_training.grpo.train`.
        CheckpointError: as `genseg_training.grpo.train`.
        DiskFullError: the disk is full; saved checkpoints are kept.
    """
    with whole.disk_full_in_words(f"the run in {folder} stopped, and its checkpoints are kept"), _alone(folder):
        try:
            outcome = _train(folder, on_progress)
        except Exception:
            if not any(folder.glob("checkpoint-*")):
                shutil.rmtree(folder)
            raise
        whole.write_text(folder / OUTCOME, json.dumps(asdict(outcome), indent=2, default=str) + "\n")
        return outcome


def _train(folder: Path, on_progress: Progress) -> Outcome:
    from genseg_training import grpo
    from genseg_training.callbacks import OnProgress
    from genseg_training.start import imitates_bfloat16

    plan = _read_plan(folder)
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
    if imitates_bfloat16(config):  # the App has no --bf16
        arguments, config, model_config = grpo.parse(options | {"bf16": False})
    arguments.no_target_share = None  # a slice of failures keeps its own share
    grpo.train(arguments, config, model_config, callbacks=[OnProgress(on_progress)])
    before = json.loads((folder / "evaluations" / "step-000000.json").read_text())
    after = json.loads((folder / BEST / "evaluation" / "held_out.json").read_text())
    return Outcome(folder / BEST, after["step"], before, after)
