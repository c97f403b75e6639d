"""`genseg-train`: one command per stage, with recipes, options and `--help`.

Options override the YAML recipes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genseg_hub.extras import install_command, is_installed
from genseg_hub.whole import DiskFullError, disk_full_in_words

USAGE = """usage: genseg-train COMMAND [--config RECIPE.yaml] [--option value ...]

commands:
  sft         cold start of any Qwen3-VL checkpoint: the form of an answer, from true masks
  grpo        GRPO of any Qwen3-VL checkpoint on referring examples
  data        write the data of a run as a folder, from official archives too, or print which images sources share
  mine        measure how often a checkpoint is right, and keep the examples worth training on
  vision      nano, stage 1: dense pretraining of the vision tower
  nano-sft    nano, stage 2: warm start of the reasoner on rendered scenes
  segmenter   nano's SAM 2
  export      join reasoner and segmenter into a checkpoint: genseg-train export REASONER_RUN SEGMENTER_RUN FOLDER

RECIPE.yaml is a file or the name of a recipe of this package, such as nano_r1.
Every stage resumes from its output_dir. Several processes: torchrun --nproc_per_node 2 -m genseg_training.cli ...
Options of a command: genseg-train COMMAND --help"""


def _export(reasoner_run: Path, segmenter_run: Path, folder: Path) -> None:
    """Write nano as it is embedded: the reasoner in float16, the segmenter in float32.

    float16 rounds the reasoner's weights eight times finer than bfloat16.
    """
    from genseg_hub.checkpoints import SETTINGS_FILE
    from genseg_hub.options import ReasonerOptions

    from genseg_training.export import export

    trained = next((run for run in (reasoner_run / "reasoner", reasoner_run / "best") if run.is_dir()), reasoner_run)
    settings = trained / SETTINGS_FILE
    base_model = json.loads(settings.read_text()).get("base_model") if settings.is_file() else None
    options = ReasonerOptions(dtype="float32")  # nano computes in it on every device
    export(trained, folder, segmenter_run / "segmenter", base_model, dtype="float16", options=options)


def recipes() -> dict[str, Path]:
    """Return the files of this package's recipes by name."""
    return shipped("recipes")


def shipped(kind: str) -> dict[str, Path]:
    """Return this package's YAML files of one kind by name.

    The kinds are recipes, reproductions and accelerate.
    """
    here = Path(__file__).parent
    folder = next(folder for folder in (here / kind, here.parent / kind) if folder.is_dir())
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def _with_recipe_file(arguments: list[str]) -> list[str]:
    """Replace the name of a recipe after `--config` by its file."""
    known = recipes()
    return [
        str(known[argument]) if before == "--config" and argument in known and not Path(argument).exists() else argument
        for before, argument in zip(["", *arguments], arguments, strict=False)
    ]


def main(arguments: list[str] | None = None) -> None:
    """Run a command.

    Args:
        arguments: the command and its options; None for the options of this process.

    Raises:
        SystemExit: with a message for a mistake of the user, and for a full disk.
    """
    try:
        with disk_full_in_words():
            _run(sys.argv[1:] if arguments is None else arguments)
    except (FileNotFoundError, DiskFullError) as error:
        raise SystemExit(f"error: {error}") from error


def _run(arguments: list[str]) -> None:
    command, *rest = arguments or ["--help"]
    if command == "data":
        return _data(rest)
    exports = command == "export" and len(rest) == 3
    if not exports and command not in ("sft", "grpo", "mine", "vision", "nano-sft", "segmenter"):
        print(USAGE)
        raise SystemExit(not {"-h", "--help"} & {command, *rest})
    if not is_installed("train"):
        raise SystemExit(f"error: training needs further packages: {install_command('train')}")
    if exports:
        return _export(*map(Path, rest))
    rest = _with_recipe_file(rest)
    from trl import TrlParser

    if command in ("sft", "grpo", "mine"):
        return _of_any_checkpoint(TrlParser, command, rest)
    from genseg_training.nano import loop, segmenter, sft, vision

    stages: dict[str, tuple[Any, Callable[[Any], None]]] = {
        "vision": (loop.LoopConfig, vision.pretrain),
        "nano-sft": (sft.SftConfig, sft.train),
        "segmenter": (loop.LoopConfig, segmenter.train),
    }
    config_class, run = stages[command]
    (config,) = TrlParser((config_class,), prog=f"genseg-train {command}").parse_args_and_config(rest)
    with disk_full_in_words(f"the stage stopped; a whole checkpoint in {config.output_dir} is kept"):
        run(config)


def _data(arguments: list[str]) -> None:
    from genseg_training import data_command

    try:
        data_command.main(arguments)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


def _of_any_checkpoint(parser_class: type, command: str, arguments: list[str]) -> None:
    from genseg_hub.errors import CheckpointError, PublishError
    from genseg_hub.ray_cluster import RayError
    from trl import GRPOConfig, ModelConfig, SFTConfig

    from genseg_training import grpo, mining, mining_workers, sft

    commands: dict[str, tuple[tuple[type, ...], Callable[..., None]]] = {
        "grpo": ((grpo.GrpoArguments, GRPOConfig, ModelConfig), grpo.train),
        "sft": ((sft.SftArguments, SFTConfig, ModelConfig), sft.train),
        "mine": ((mining.MiningArguments,), mining.mine),
    }
    classes, run = commands[command]
    try:
        first, *others = parser_class(classes, prog=f"genseg-train {command}").parse_args_and_config(arguments)
        if command == "mine" and first.workers is not None:
            run = mining_workers.mine
        run(first if command == "mine" else grpo.of_data(first, arguments), *others)
    except (ValueError, CheckpointError, PublishError, RayError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
