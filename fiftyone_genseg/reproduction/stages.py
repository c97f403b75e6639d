"""Stages of a reproduction: existing commands, each done when its output is whole.

No file lists the finished stages. A stage is done if its output is whole and was made by the same command from the same
weights. A stage that was killed goes on, because its command resumes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fiftyone_genseg.reproduction.request import Reproduction, Run, shown

HELD_OUT = "evaluation/held_out.json"  # in `best/`, as `genseg_training.best` writes it
RECIPE = "recipe.yaml"  # in `best/`
_STEP = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Stage:
    """One command of a reproduction.

    Attributes:
        kind: data, train, benchmark or push.
        run: the run that it belongs to.
        command: its words.
        output: folder that it writes, or the address that it publishes to.
        is_done: whether the output is whole.
        benchmark: name and split, of a stage that scores.
    """

    kind: str
    run: Run
    command: tuple[str, ...]
    output: str
    is_done: Callable[[], bool]
    benchmark: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        """Return kind and subject, such as "train genseg_r1_8b"."""
        subject = f"{':'.join(self.benchmark)} of {self.run.name}" if self.benchmark else self.run.name
        return f"{self.kind} {subject}"


class StageError(RuntimeError):
    """A stage ended without its output."""


def stages(asked: Reproduction, root: Path, out: Path, owner: str | None = None) -> list[Stage]:
    """Return the stages in their order.

    First comes the data of all runs, then each run with its benchmarks, then the pushes.

    Args:
        asked: the reproduction.
        root: folder of the official archives.
        out: folder of the data, the benchmarks and the table.
        owner: owner on the Hub, of the repositories that get the checkpoints; None to publish nothing.
    """
    found = [_data(asked, run, root, out) for run in asked.runs]
    for run in asked.runs:
        found.append(_train(asked, run, root))
        found += [_benchmark(asked, run, benchmark, root, out) for benchmark in run.benchmarks]
    if owner:
        found += [_push(run, owner) for run in asked.runs]
    return found


def execute(stage: Stage, pass_fds: tuple[int, ...] = ()) -> None:
    """Run a stage's command to its end.

    Args:
        stage: stage to run.
        pass_fds: open files that the command inherits.

    Raises:
        StageError: the command failed, or ended without its output.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # the commands of this environment
    ended = subprocess.run(stage.command, env=os.environ | {"PATH": path}, pass_fds=pass_fds, check=False).returncode
    again = "mend the fault above, then give the same command again: finished stages stay done"
    if ended:
        raise StageError(f"the stage {stage.name!r} ended with status {ended}; {again} ({shown(stage.command)})")
    if stage.kind != "push" and not stage.is_done():
        raise StageError(f"the stage {stage.name!r} ended, and {stage.output} is not whole; {again}")


def _data(asked: Reproduction, run: Run, root: Path, out: Path) -> Stage:
    """Return the stage that checks a run's archives and caches its rows.

    The stage refuses images that the run is scored on.
    """
    folder, settings = out / "data" / run.name, run.settings
    held_out = [settings["eval_data"]] if settings.get("eval_data") else []
    held_out += [f"{name}:{split}" for later in asked.descendants(run) for name, split in later.benchmarks]
    held_out = [*dict.fromkeys(held_out)]
    data, exclude, weights = settings["data"], settings.get("exclude") or [], settings.get("data_weights")
    share, seed = settings.get("no_target_share"), settings.get("seed", 1)
    command = ["genseg-train", "data", *data, "--root", str(root), "--out", str(folder), "--seed", str(seed)]
    for name, values in (("weights", weights), ("exclude", exclude), ("held_out", held_out)):
        command += [f"--{name}", *map(str, values)] if values else []
    command += [] if share is None else ["--no_target_share", str(share)]

    def is_done() -> bool:
        from genseg_training import data_command
        from genseg_training.data import Request

        weighted = [float(weight) for weight in weights] if weights else None
        request = Request(data, weighted, str(root), exclude, None if share is None else float(share))
        return data_command.is_whole(request, seed, folder, held_out)

    return Stage("data", run, tuple(command), str(folder), is_done)


def _train(asked: Reproduction, run: Run, root: Path) -> Stage:
    command = ["genseg-train"]
    if asked.launcher:
        launcher = os.path.relpath(asked.launcher)
        launcher = str(asked.launcher) if launcher.startswith("..") else launcher
        command = ["accelerate", "launch", "--config_file", launcher, "-m", "genseg_training.cli"]
    command += ["grpo", "--config", run.recipe, "--root", str(root), *run.flags()]
    return Stage("train", run, tuple(command), str(run.result), lambda: is_trained(run))


def is_trained(run: Run) -> bool:
    """Return whether a run made all of its steps, and scored the finished `best/`."""
    steps = [int(found[1]) for folder in run.output.glob("checkpoint-*") if (found := _STEP.fullmatch(folder.name))]
    most = run.settings.get("max_steps", 0)
    if not steps or max(steps) < most:
        return False
    return bool(_held_out(run).get("as_loaded"))


def start_won(run: Run) -> bool:
    """Return whether no checkpoint of a run beat its start, whose weights then count."""
    return bool(_held_out(run).get("start_won"))


def _held_out(run: Run) -> dict[str, Any]:
    try:
        return json.loads((run.result / HELD_OUT).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}


def _benchmark(asked: Reproduction, run: Run, benchmark: tuple[str, str], root: Path, out: Path) -> Stage:
    name, split = benchmark
    folder = scored(run, benchmark, out)
    command = ["genseg", "benchmark", name, "--split", split, "--model", str(run.result), "--root", str(root)]
    command += ["--out", str(folder), *(["--workers", str(asked.processes)] if asked.processes > 1 else [])]
    command += asked.flags()
    return Stage(
        "benchmark", run, tuple(command), str(folder), lambda: is_scored(run, folder, shown(command)), benchmark
    )


def scored(run: Run, benchmark: tuple[str, str], out: Path) -> Path:
    """Return the folder of a benchmark of a run's result."""
    name, split = benchmark
    return out / "benchmarks" / f"{name}-{split}-{run.name}"


def is_scored(run: Run, folder: Path, command: str) -> bool:
    """Return whether a benchmark has its report.

    The report must be from this command and from the present weights.
    """
    from genseg_hub.checkpoints import fingerprint
    from genseg_hub.errors import CheckpointError
    from genseg_hub.evaluation.benchmark_run import METRICS, PAGE

    try:
        figures = json.loads((folder / METRICS).read_bytes())
        return (
            (folder / PAGE).is_file()
            and figures.get("command") == command
            and figures.get("checksum") == fingerprint.identify(str(run.result)).get("checksum")
        )
    except (FileNotFoundError, ValueError, CheckpointError):
        return False


def _push(run: Run, owner: str) -> Stage:
    repository = f"{owner}/{run.name}"
    command = ("genseg", "push", str(run.result), repository)
    return Stage("push", run, command, repository, lambda: False)


def check(asked: Reproduction, root: Path, owner: str | None = None) -> Iterator[str]:
    """Yield the obstacles to a later stage, in sentences.

    Nothing is loaded, and no network is asked.

    Args:
        asked: the reproduction.
        root: folder of the official archives.
        owner: owner on the Hub; None to publish nothing.
    """
    from genseg_hub import archives
    from genseg_hub.extras import install_command, is_installed

    if not is_installed("train"):
        yield f"training needs further packages: {install_command('train')}"
        return
    from genseg_training import grpo_arguments

    said: set[str] = set()
    for run in asked.runs:
        options: dict[str, Any] = {"config": str(run.file), **run.options, "root": str(root), "use_cpu": True}
        try:
            arguments, config, model = grpo_arguments.parse(options)
            grpo_arguments.check(arguments, config, model)
            grpo_arguments.check_vllm(config)
            if not arguments.eval_data:
                raise ValueError("without eval_data nobody knows the best checkpoint; give it under `options:`")
            _check_same(run, grpo_arguments.recipe_of(arguments, config, model))
        except ValueError as error:
            said.add(f"{run.name}: {error}")
        for name, split in run.benchmarks:
            try:
                archives.check(name, root, split)
            except ValueError as error:
                said.add(f"{name}:{split}: {error}")
    yield from sorted(said)
    if asked.processes > 1 and any(run.benchmarks for run in asked.runs) and not is_installed("ray"):
        yield f"benchmarks on {asked.processes} processes need Ray: {install_command('ray')}"
    if owner:
        yield from _unpublishable(asked, owner)


def _check_same(run: Run, recipe: Mapping[str, Any]) -> None:
    """Raise ValueError if the run's folder holds the result of other options."""
    try:
        before = yaml.safe_load((run.result / RECIPE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    for name in sorted((run.settings.keys() | before.keys()) - {"use_cpu"}):
        if before.get(name) != recipe.get(name):
            raise ValueError(
                f"{run.result} was trained with {name} {before.get(name)!r}, not {recipe.get(name)!r}; remove "
                f"{run.output}, or give the run another output_dir"
            )


def _unpublishable(asked: Reproduction, owner: str) -> Iterator[str]:
    import huggingface_hub as hub
    from genseg_hub.checkpoints.names import is_hub_id

    for run in asked.runs:
        if not is_hub_id(f"{owner}/{run.name}"):
            yield f"{owner}/{run.name} cannot be the name of a repository; name another owner with --push"
    if not hub.get_token():
        yield "there is no token for the Hub, which --push needs: run `hf auth login` or set HF_TOKEN"
