"""Read a reproduction's YAML file: runs of GRPO in order, and their benchmarks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

BEST = "best"  # folder of a run's result, as `genseg_training.best` names it


@dataclass(frozen=True)
class Run:
    """One run of GRPO.

    Attributes:
        recipe: name of a recipe of this package, or a file.
        options: options of `genseg-train grpo`, in place of the recipe's.
        benchmarks: NAME:SPLIT of each benchmark that scores the result.
    """

    recipe: str
    options: Mapping[str, Any] = field(default_factory=dict)
    benchmarks: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """Return the name of the recipe, without the folder of its file."""
        return Path(self.recipe).stem

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Return the recipe's options, with this run's options in their place."""
        return _read(_file(self.recipe, "recipes", "recipe")) | dict(self.options)

    @property
    def file(self) -> Path:
        """Return the file of the recipe."""
        return _file(self.recipe, "recipes", "recipe")

    @property
    def output(self) -> Path:
        """Return the folder of the run."""
        return Path(self.settings["output_dir"])

    @property
    def result(self) -> Path:
        """Return the folder of the run's best checkpoint."""
        return self.output / BEST

    def flags(self) -> list[str]:
        """Return the options of this run as the command line takes them."""
        return [part for name, value in self.options.items() for part in _flag(name, value)]


@dataclass(frozen=True)
class Reproduction:
    """Runs and benchmarks of a table.

    Attributes:
        name: name of its file, without the ending.
        runs: runs in order; a later run may start from the result of an earlier one.
        accelerate: configuration of `accelerate launch`; None for one process without a launcher.
        benchmark_options: further options of `genseg benchmark`.
    """

    name: str
    runs: tuple[Run, ...]
    accelerate: str | None = None
    benchmark_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def launcher(self) -> Path | None:
        """Return the file of the configuration of `accelerate launch`."""
        return _file(self.accelerate, "accelerate", "configuration of accelerate") if self.accelerate else None

    @cached_property
    def processes(self) -> int:
        """Return the number of processes that train, and that answer benchmarks."""
        return int(_read(self.launcher).get("num_processes", 1)) if self.launcher else 1

    def flags(self) -> list[str]:
        """Return the options of `genseg benchmark` as the command line takes them."""
        return [part for name, value in self.benchmark_options.items() for part in _flag(name.replace("_", "-"), value)]

    def descendants(self, run: Run) -> list[Run]:
        """Return a run and all later runs that start from its result."""
        found = [run]
        for later in self.runs[self.runs.index(run) + 1 :]:
            start = Path(str(later.settings.get("model_name_or_path")))
            if any(start == earlier.result for earlier in found):
                found.append(later)
        return found


def names() -> list[str]:
    """Return the names of the reproductions of this package."""
    from genseg_training.cli import shipped

    return [*shipped("reproductions")]


def read(text: str) -> Reproduction:
    """Read a reproduction.

    Args:
        text: name of a reproduction of this package, or a YAML file.

    Raises:
        ValueError: there is no such reproduction, or its file states something else.
    """
    file = _file(text, "reproductions", "reproduction")
    stated = _read(file)
    _known(stated, {"runs", "accelerate", "benchmark_options"}, file)
    runs = stated.get("runs")
    if not isinstance(runs, list) or not runs:
        raise ValueError(f"{file} has no list of runs; write `runs:` with `- recipe: NAME` for each")
    made = Reproduction(
        file.stem,
        tuple(_run(run, file) for run in runs),
        stated.get("accelerate"),
        _mapping(stated, "benchmark_options", file),
    )
    outputs = [run.output for run in made.runs]
    if len(set(outputs)) < len(outputs):
        raise ValueError(f"two runs of {file} write the same folder, {outputs[-1]}; give one another output_dir")
    return made


def _run(stated: Any, file: Path) -> Run:
    if not isinstance(stated, Mapping) or not isinstance(stated.get("recipe"), str):
        raise ValueError(f"a run of {file} names no recipe: {stated!r}; write `- recipe: NAME`")
    _known(stated, {"recipe", "options", "benchmarks"}, file)
    benchmarks = []
    for text in stated.get("benchmarks") or []:
        name, _, split = str(text).partition(":")
        if not split or ":" in split:
            raise ValueError(f"the benchmark {text!r} of {file} is not NAME:SPLIT, such as refcocog:val")
        benchmarks.append((name, split))
    run = Run(stated["recipe"], _mapping(stated, "options", file), tuple(benchmarks))
    if not run.settings.get("output_dir"):
        raise ValueError(f"the recipe {run.recipe!r} has no output_dir; give it one under `options:` in {file}")
    return run


def _known(stated: Mapping[str, Any], names: set[str], file: Path) -> None:
    unknown = sorted(map(str, stated.keys() - names))
    if unknown:
        raise ValueError(f"{file} has an unknown {unknown[0]!r}; choose from {', '.join(sorted(names))}")


def _mapping(stated: Mapping[str, Any], name: str, file: Path) -> dict[str, Any]:
    value = stated.get(name) or {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} of {file} is {value!r}; write names with values")
    return {str(key): each for key, each in value.items()}


def _file(text: str, kind: str, what: str) -> Path:
    """Return the file of a name or a path."""
    from genseg_training.cli import shipped

    known = shipped(kind)
    if text in known:
        return known[text]
    file = Path(text).expanduser()
    if not file.is_file():
        raise ValueError(f"there is no {what} {text!r}; choose one of {', '.join(known)}, or name a YAML file")
    return file


def _read(file: Path) -> dict[str, Any]:
    try:
        stated = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no YAML: {error}") from error
    if not isinstance(stated, dict):
        raise ValueError(f"{file} holds no names with values; begin with `runs:`")
    return stated


def _flag(name: str, value: Any) -> list[str]:
    """Return an option and its value, or its values, as words of a command."""
    if isinstance(value, list):
        return [f"--{name}", *map(_word, value)]
    return [f"--{name}", _word(value)]


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def shown(command: tuple[str, ...] | list[str]) -> str:
    """Return a command as it is typed."""
    return shlex.join(command)
