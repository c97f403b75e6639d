"""`genseg-train`: one command per stage, each with a YAML recipe, overrides and `--help`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

USAGE = """usage: genseg-train COMMAND [--config RECIPE.yaml] [--option value ...]

commands:
  vision      nano, stage 1: dense pretraining of the vision tower
  sft         nano, stage 2: warm start of the reasoner
  segmenter   nano's SAM 2
  grpo        GRPO of any Qwen3-VL checkpoint on referring examples
  export      join the three into a checkpoint: genseg-train export REASONER_RUN SEGMENTER_RUN FOLDER

Every stage resumes from its output_dir. Several processes: torchrun --nproc_per_node 2 -m genseg_training.cli ...
Options of a command: genseg-train COMMAND --help"""


def export(reasoner_run: Path, segmenter_run: Path, folder: Path) -> None:
    """Write a checkpoint folder: the reasoner in bfloat16, the segmenter in float32, genseg.json.

    Raises:
        FileNotFoundError: a run has not saved anything yet.
    """
    import json
    import shutil

    import torch
    import transformers

    source, segmenter = reasoner_run / "reasoner", segmenter_run / "segmenter"
    if not source.exists() and (reasoner_run / "config.json").exists():
        source = reasoner_run  # GRPO saves into the run's folder itself
    for needed in (source, segmenter):
        if not needed.is_dir():
            raise FileNotFoundError(f"there is no {needed}: train it first")
    model = transformers.AutoModelForImageTextToText.from_pretrained(source, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    transformers.AutoProcessor.from_pretrained(source).save_pretrained(folder)
    shutil.copytree(segmenter, folder / "segmenter", dirs_exist_ok=True)
    (folder / "genseg.json").write_text(json.dumps({"dialect": "genseg", "segmenter": "segmenter"}, indent=2) + "\n")


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    command, *rest = arguments or ["--help"]
    if command == "export" and len(rest) == 3:
        return export(*map(Path, rest))
    if command not in ("vision", "sft", "segmenter", "grpo"):
        print(USAGE)
        raise SystemExit(command not in ("-h", "--help"))
    from trl import TrlParser

    if command == "grpo":
        return _grpo(TrlParser, rest)
    from genseg_training import loop, segmenter, sft, vision

    stages: dict[str, tuple[Any, Callable[[Any], None]]] = {
        "vision": (loop.LoopConfig, vision.pretrain),
        "sft": (sft.SftConfig, sft.train),
        "segmenter": (loop.LoopConfig, segmenter.train),
    }
    config_class, run = stages[command]
    (config,) = TrlParser((config_class,), prog=f"genseg-train {command}").parse_args_and_config(rest)
    try:
        run(config)
    except FileNotFoundError as error:
        raise SystemExit(f"error: {error}") from error


def _grpo(parser_class: type, arguments: list[str]) -> None:
    from trl import GRPOConfig, ModelConfig

    from genseg_training import grpo

    parser = parser_class((grpo.GrpoArguments, GRPOConfig, ModelConfig), prog="genseg-train grpo")
    try:
        grpo.train(*parser.parse_args_and_config(arguments))
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
