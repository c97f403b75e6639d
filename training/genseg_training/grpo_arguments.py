"""Read, check and write the options of a GRPO run beside TRL's own."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from genseg_hub.extras import install_command
from trl import GRPOConfig, ModelConfig, TrlParser

from genseg_training import data, rewards
from genseg_training.sources import ROOT_VARIABLE

MASK = "mask"
REWARDS: dict[str, rewards.Reward] = {
    "format": rewards.format_reward,
    "schema": rewards.schema_reward,
    "box_iou": rewards.box_iou_reward,
    "box_l1": rewards.box_l1_reward,
    "points": rewards.points_reward,
    "count": rewards.count_reward,
    "repetition": rewards.repetition_penalty,
    "thought": rewards.thought_reward,
}
BEST_DTYPES = ("float32", "float16", "bfloat16")
# TRL computes these from other options, and refuses or ignores them beside those options.
_DERIVED = {"generation_batch_size", "do_eval"}
# Options that a written recipe leaves out: tokens, the Hub repository, folders and names of runs.
_PRIVATE = re.compile(r"(^|_)token(_|$)|^hub_|^push_to_hub|_dir$|run_name$|^root$")


@dataclass
class GrpoArguments:
    """Options of data, rewards and evaluation of a run.

    TRL's `GRPOConfig` and `ModelConfig` hold all other options.
    """

    data: list[str] = field(
        default_factory=lambda: ["refscenes:10000"],
        metadata={
            "help": "Sources: refcocog:train or another archive's split, refscenes:COUNT, folders, or Hub datasets; "
            "or one YAML file of a mixture. A count draws that many examples: refcocog:train:9000."
        },
    )
    root: str | None = field(
        default=None,
        metadata={"help": f"Folder of the official archives; ${ROOT_VARIABLE} by default."},
    )
    data_weights: list[float] | None = field(
        default=None,
        metadata={"help": "How often each source is drawn from, in relation to the others. By default equally often."},
    )
    exclude: list[str] = field(
        default_factory=list, metadata={"help": "Sources whose images are left out of training: refcocog:val."}
    )
    allow_shared_images: bool = field(
        default=False, metadata={"help": "Allow training on images that eval_data also has."}
    )
    no_target_share: float | None = field(
        default=None, metadata={"help": "Share of no-target examples. By default the share that the sources have."}
    )
    max_pixels: int | None = field(
        default=None,
        metadata={
            "help": "Most pixels of an image as the policy sees it; a larger image is resized, as inference does it "
            "(2,048 tokens by default)."
        },
    )
    rewards: list[str] = field(
        default_factory=lambda: ["format", "schema", "box_iou", "box_l1", "points", "count"],
        metadata={"help": f"Any of {', '.join([*REWARDS, MASK])}. TRL's reward_weights follow this order."},
    )
    reduced_mask_reward: bool = field(
        default=False,
        metadata={
            "help": "In the reward `mask`, compare masks of a larger image at the segmenter's resolution (1,024 pixels "
            "a side for SAM 2.1): faster for photographs."
        },
    )
    freeze_vision_tower: bool = field(
        default=False, metadata={"help": "Train the language model alone: faster, and the vision tower stays as it is."}
    )
    eval_data: str | None = field(
        default=None,
        metadata={
            "help": "Held-out examples, such as refscenes:val:400 or refcocog:val:500, scored every eval_steps. "
            "The best checkpoint has the highest metric_for_best_model on them, mIoU by default."
        },
    )
    best_dtype: str | None = field(
        default=None,
        metadata={
            "help": f"Precision in which best/ is written and loaded: {', '.join(BEST_DTYPES)}. By default best/ is "
            "written in float32, which keeps a LoRA update, and loaded in the precision that the device prefers."
        },
    )
    dead_steps: int = field(
        default=20,
        metadata={"help": "The run stops after this many logged steps in a row that teach nothing; 0 to never stop."},
    )
    dead_share: float = field(
        default=0.95,
        metadata={
            "help": "A step teaches nothing if this share of its groups has no variance, or if this share of its "
            "answers earns nothing or is cut."
        },
    )
    dynamic_sampling: int = field(
        default=0,
        metadata={
            "help": "Largest number of rounds that replace groups without variance by other prompts, as in DAPO; 0 to "
            "train on the drawn groups."
        },
    )


def parse(options: Mapping[str, Any]) -> tuple[GrpoArguments, GRPOConfig, ModelConfig]:
    """Read the arguments of `train` from options.

    Args:
        options: values by their names on the command line; `config` is the recipe's file.

    Raises:
        ValueError: for an unknown option, or values that contradict each other.
    """
    flags = []
    for name, value in options.items():
        flags += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    classes: Any = (GrpoArguments, GRPOConfig, ModelConfig)
    arguments, config, model_config = _Parser(classes).parse_args_and_config(flags)
    return of_data(arguments, flags), config, model_config


def of_data(arguments: GrpoArguments, flags: Sequence[str]) -> GrpoArguments:
    """Return arguments without a recipe's `exclude` if flags name other data.

    A recipe's `exclude` is about the recipe's own data.

    Args:
        arguments: read from a recipe and flags.
        flags: flags of the command line.
    """
    names = {flag.partition("=")[0] for flag in flags}
    return dataclasses.replace(arguments, exclude=[]) if "--data" in names and "--exclude" not in names else arguments


class _Parser(TrlParser):
    """A parser that raises ValueError in place of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def check(arguments: GrpoArguments, config: GRPOConfig, model_config: ModelConfig) -> None:
    """Raise ValueError for options that contradict each other.

    The function also completes TRL's settings of the evaluation: mIoU is the default metric of the best checkpoint.

    Args:
        arguments: data, rewards and evaluation.
        config: TRL's settings of the run, which are completed.
        model_config: TRL's settings of the model.
    """
    request_of(arguments).check()
    unknown = sorted(set(arguments.rewards) - {*REWARDS, MASK})
    if unknown:
        raise ValueError(f"there is no reward {unknown[0]!r}; choose from {', '.join([*REWARDS, MASK])}")
    if config.reward_weights and len(config.reward_weights) != len(arguments.rewards):
        raise ValueError(f"{len(arguments.rewards)} rewards need as many reward_weights, got {config.reward_weights}")
    if arguments.best_dtype not in (None, *BEST_DTYPES):
        raise ValueError(f"there is no best_dtype {arguments.best_dtype!r}; choose one of {', '.join(BEST_DTYPES)}")
    if not 0 < arguments.dead_share <= 1:
        raise ValueError(f"dead_share must lie above 0 and be at most 1, got {arguments.dead_share}")
    for name in ("dead_steps", "dynamic_sampling"):
        if getattr(arguments, name) < 0:
            raise ValueError(f"{name} must be 0 or more, got {getattr(arguments, name)}")
    if not model_config.model_name_or_path:
        raise ValueError("name the checkpoint to start from with --model_name_or_path: nano, a folder or a Hub id")
    if config.save_strategy == "no":
        raise ValueError("save_strategy must be steps: the result of a run is its best saved checkpoint")
    evaluates = config.eval_strategy != "no"
    if bool(arguments.eval_data) != evaluates:
        raise ValueError("evaluation needs both eval_data (held-out examples) and eval_strategy (steps), or neither")
    if evaluates and (
        config.save_strategy != config.eval_strategy or (config.eval_steps or config.logging_steps) % config.save_steps
    ):
        raise ValueError(
            f"eval_steps ({config.eval_steps}) must be a multiple of save_steps ({config.save_steps}), both by steps: "
            "only a saved checkpoint can be the best one"
        )
    config.eval_on_start = config.eval_on_start and evaluates
    if evaluates:
        config.metric_for_best_model = config.metric_for_best_model or "miou"
        config.greater_is_better = True


def check_vllm(config: GRPOConfig) -> None:
    """Raise ValueError if the run is to sample with vLLM, and vLLM is not installed."""
    if config.use_vllm and "vllm" not in sys.modules and importlib.util.find_spec("vllm") is None:
        raise ValueError(
            f"the run samples with vLLM (use_vllm), which is not installed here: {install_command('vllm')}, or add "
            "--use_vllm false"
        )


def request_of(arguments: GrpoArguments) -> data.Request:
    """Return the data that options ask for."""
    return data.Request(
        data=arguments.data,
        weights=arguments.data_weights,
        root=arguments.root,
        exclude=arguments.exclude,
        no_target_share=arguments.no_target_share,
        held_out=arguments.eval_data,
        allow_shared_images=arguments.allow_shared_images,
    )


def recipe_of(*parts: Any) -> dict[str, Any]:
    """Return the options that differ from their defaults.

    Local folders and secrets are left out.

    Args:
        *parts: dataclasses of options.
    """
    chosen: dict[str, Any] = {}
    for part in parts:
        for option in dataclasses.fields(part):
            value = getattr(part, option.name)
            made = option.default_factory
            default = option.default if made is dataclasses.MISSING else made()
            written = isinstance(value, str | int | float | bool | list) and value not in ([], default)
            if written and option.name not in _DERIVED and not _PRIVATE.search(option.name):
                value = getattr(value, "value", value)  # an enumeration becomes its value
                chosen[option.name] = [public(v) for v in value] if isinstance(value, list) else public(value)
    return chosen


def public(value: Any) -> Any:
    """Return a value, or the last part of an absolute path."""
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value
