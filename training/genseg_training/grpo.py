"""GRPO: TRL's trainer with this project's rewards; TRL runs the loop, samples and saves.

A run leaves in `output_dir` TRL's `checkpoint-N`, a file and a picture per evaluation in `evaluations/` and `samples/`,
and `best/`: the checkpoint folder that `GenSegR1.from_pretrained` loads and `genseg push` publishes.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
import transformers
import yaml
from genseg_hub import checkpoints
from genseg_hub.checkpoints import trial
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.options import ReasonerOptions
from genseg_hub.segmenters.loading import load_segmenter
from genseg_hub.thinking import opens_thought
from genseg_hub.whole import disk_full_in_words, restore, write_text
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, TrlParser, get_peft_config
from trl.trainer.model_config import ModelConfig

from genseg_training import curves, data, pictures, rewards
from genseg_training.callbacks import HubTarget, PushToHub
from genseg_training.export import alone, drop_torn, write, written_checkpoint
from genseg_training.mask_reward import MaskReward
from genseg_training.sources import ROOT_VARIABLE
from genseg_training.trainer import EVALUATIONS, SegmentationGRPOTrainer

MASK = "mask"
REWARDS: dict[str, rewards.Reward] = {
    "format": rewards.format_reward,
    "schema": rewards.schema_reward,
    "box_iou": rewards.box_iou_reward,
    "box_l1": rewards.box_l1_reward,
    "points": rewards.points_reward,
    "count": rewards.count_reward,
    "repetition": rewards.repetition_penalty,
}
BEST, REPORT = "best", "data.txt"
# TRL computes these from other options, and refuses or ignores them beside those options.
_DERIVED = {"generation_batch_size", "do_eval"}
# Options that a written recipe leaves out: tokens, the Hub repository, folders and names of runs.
_PRIVATE = re.compile(r"(^|_)token(_|$)|^hub_|^push_to_hub|_dir$|run_name$|^root$")


@dataclass
class GrpoArguments:
    """Data, rewards and evaluation of a run; TRL's `GRPOConfig` and `ModelConfig` hold all other options."""

    data: list[str] = field(
        default_factory=lambda: ["refscenes:10000"],
        metadata={
            "help": "Sources: refcocog:train or another archive's split, refscenes:COUNT, folders, or Hub datasets; "
            "or one YAML file of a mixture. A count draws so many examples: refcocog:train:9000."
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
        default=False, metadata={"help": "Train although images of eval_data are also trained on."}
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
    """Return arguments without a recipe's `exclude` if flags name other data, because the two belong together.

    Args:
        arguments: read from a recipe and flags.
        flags: of the command line.
    """
    names = {flag.partition("=")[0] for flag in flags}
    return dataclasses.replace(arguments, exclude=[]) if "--data" in names and "--exclude" not in names else arguments


class _Parser(TrlParser):
    """A parser that raises ValueError in place of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def train(
    arguments: GrpoArguments,
    config: GRPOConfig,
    model_config: ModelConfig,
    callbacks: Sequence[transformers.TrainerCallback] = (),
) -> None:
    """Train, and write the best checkpoint to `output_dir/best`.

    A run with a whole checkpoint in `output_dir` resumes from the last one.

    Args:
        arguments: data, rewards and evaluation.
        config: TRL's settings of the run.
        model_config: TRL's settings of the model; `model_name_or_path` is the checkpoint to start from.
        callbacks: further callbacks, for example to show progress.

    Raises:
        ValueError: for options that contradict each other, data that cannot be trained on, or images that are both
            trained on and held out.
        CheckpointError: for a model that cannot be used.
        PublishError: when the final push fails; the checkpoint is in `output_dir/best` all the same.
        DiskFullError: the disk is full; whole checkpoints are kept.
    """
    _check(arguments, config, model_config)
    recipe = _recipe(arguments, config, model_config)
    target = HubTarget.of(config)
    config.hub_token = None  # Transformers would save it in training_args.bin of every checkpoint
    config.push_to_hub = False  # TRL would publish its own folder, without SAM 2, dialect and figures
    start = _start(model_config)
    output = Path(str(config.output_dir))
    options = ReasonerOptions(max_pixels=arguments.max_pixels).over(start.options)

    def best(state: transformers.TrainerState) -> Path:
        return _write_best(output, state, start, options, recipe)

    with config.main_process_first(desc="data"):  # the others find the rows in the cache
        loaded = data.load(request_of(arguments), config.seed)
    prompts = (config.generation_batch_size or 0) // (config.num_generations or 1)
    if len(loaded.rows) < prompts:
        raise ValueError(
            f"there are {len(loaded.rows)} examples to train on, and {prompts} prompts are answered at once: take more "
            "examples, or a smaller per_device_train_batch_size, gradient_accumulation_steps or num_generations"
        )
    processor = transformers.AutoProcessor.from_pretrained(start.reasoner, padding_side="left", trust_remote_code=False)
    room, limit = _room(config, start.reasoner)
    pictures.check_room(loaded.rows, processor, options, room, limit)
    dtype = getattr(torch, model_config.dtype) if model_config.dtype not in (None, "auto") else torch.float32
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        start.reasoner,
        dtype=dtype,
        attn_implementation=model_config.attn_implementation,
        use_safetensors=True,
        trust_remote_code=False,
    )
    model.generation_config.num_beams = model.generation_config.num_return_sequences = (
        1  # a stranger's can ask for more
    )
    if arguments.freeze_vision_tower:
        model.model.visual.requires_grad_(False)
    with alone():
        segmenter = load_segmenter(start.segmenter, start.segmenter_config, config.device)
    available = REWARDS | {MASK: MaskReward(segmenter)}
    thought_is_open = opens_thought(processor)
    trainer = SegmentationGRPOTrainer(
        segmenter=segmenter,
        eval_dataset=None if loaded.held_out is None else data.examples_of(loaded.held_out),
        eval_options=options,
        eval_name=_public(arguments.eval_data or ""),
        model=model,
        args=config,
        reward_funcs=[rewards.of_template(available[name], thought_is_open) for name in arguments.rewards],
        train_dataset=pictures.trainable(loaded.rows, options),
        processing_class=processor,
        peft_config=get_peft_config(model_config),
        callbacks=[*callbacks, *([PushToHub(target, best)] if target and target.every_save else [])],
    )
    if trainer.is_world_process_zero():
        drop_torn(output)
        restore(output / BEST)
        print(loaded.report)
        write_text(output / REPORT, loaded.report + "\n")
    trainer.accelerator.wait_for_everyone()
    last = get_last_checkpoint(str(output))
    config.eval_on_start = config.eval_on_start and last is None
    done = last and transformers.TrainerState.load_from_json(f"{last}/{TRAINER_STATE_NAME}")
    if done and 0 < config.max_steps <= done.global_step:
        trainer.state = done  # Transformers would train one more step
    else:
        with disk_full_in_words(f"the run stopped; whole checkpoints in {output} are kept"):
            trainer.train(resume_from_checkpoint=last)
    if trainer.is_world_process_zero():
        folder = best(trainer.state)
        print(f"the best checkpoint is in {folder}")
        if target:
            print(f"published {target.push(folder, 'Best checkpoint of the run').url}")
    trainer.accelerator.wait_for_everyone()


def _check(arguments: GrpoArguments, config: GRPOConfig, model_config: ModelConfig) -> None:
    """Raise ValueError for options that contradict each other, and set the metric of the best checkpoint."""
    request_of(arguments).check()
    unknown = sorted(set(arguments.rewards) - {*REWARDS, MASK})
    if unknown:
        raise ValueError(f"there is no reward {unknown[0]!r}; choose from {', '.join([*REWARDS, MASK])}")
    if config.reward_weights and len(config.reward_weights) != len(arguments.rewards):
        raise ValueError(f"{len(arguments.rewards)} rewards need as many reward_weights, got {config.reward_weights}")
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
    if evaluates:
        config.metric_for_best_model = config.metric_for_best_model or "miou"
        config.greater_is_better = True


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


def _room(config: GRPOConfig, reasoner: Path) -> tuple[int, str]:
    """Return the tokens that are left for a prompt, and the options that leave them."""
    answer = config.max_completion_length or 0
    if config.use_vllm and config.vllm_max_model_length:
        length, name = config.vllm_max_model_length, "vllm_max_model_length"
    else:
        settings = transformers.AutoConfig.from_pretrained(reasoner, trust_remote_code=False).get_text_config()
        length, name = settings.max_position_embeddings, "the model's context"
    return length - answer, f"{name} {length:,} less max_completion_length {answer:,}"


def _start(model_config: ModelConfig) -> checkpoints.Checkpoint:
    """Return the checkpoint to start from; only a checkpoint of the Hub has a revision, TRL's default is "main"."""
    name = model_config.model_name_or_path or ""
    local = name in EMBEDDED or Path(name).is_dir()
    revision = model_config.model_revision
    start = checkpoints.pull(name, None if local or revision == "main" else revision)
    trial.check(start.reasoner, name)
    return start


def _origin(start: checkpoints.Checkpoint) -> str | None:
    """Return the base model for the card: a name that others can load; for a folder, its own base model."""
    if start.commit or start.name in EMBEDDED:
        return start.name
    settings = start.reasoner / checkpoints.SETTINGS_FILE
    return json.loads(settings.read_text()).get("base_model") if settings.is_file() else None


def _recipe(*parts: Any) -> dict[str, Any]:
    """Return the options that differ from their defaults, without local folders and secrets."""
    chosen: dict[str, Any] = {}
    for part in parts:
        for option in dataclasses.fields(part):
            value = getattr(part, option.name)
            made = option.default_factory
            default = option.default if made is dataclasses.MISSING else made()
            written = isinstance(value, str | int | float | bool | list) and value not in ([], default)
            if written and option.name not in _DERIVED and not _PRIVATE.search(option.name):
                value = getattr(value, "value", value)  # an enumeration becomes its value
                chosen[option.name] = [_public(v) for v in value] if isinstance(value, list) else _public(value)
    return chosen


def _public(value: Any) -> Any:
    """Return a value, or the last part of an absolute path."""
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


def _write_best(
    output: Path,
    state: transformers.TrainerState,
    start: checkpoints.Checkpoint,
    options: ReasonerOptions,
    recipe: dict,
) -> Path:
    """Write the best checkpoint so far, or the last one without evaluations, with its recipe, log and figures."""
    chosen = Path(state.best_model_checkpoint or get_last_checkpoint(str(output)) or "")
    folder = output / BEST
    with written_checkpoint(folder) as new:
        write(chosen, new, start.segmenter_id or start.segmenter, base_model=_origin(start), options=options)
        (new / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        (new / "logs").mkdir()
        (new / "logs" / "grpo.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in state.log_history))
        curves.draw(state.log_history, new / "curves.png")
        step = int(chosen.name.rpartition("-")[2])
        report = output / EVALUATIONS / f"step-{step:06d}.json"
        if report.is_file():
            (new / "evaluation").mkdir()
            shutil.copy(report, new / "evaluation" / "held_out.json")
    return folder
