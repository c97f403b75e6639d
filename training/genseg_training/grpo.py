"""GRPO: TRL's trainer with this project's rewards. The loop, the sampling and the files are TRL's.

`output_dir` ends up with TRL's `checkpoint-N`, `evaluations/` and `samples/` per evaluation, and `best/`: the
checkpoint folder that `GenSegR1.from_pretrained` loads and `genseg push` publishes.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import datasets
import torch
import transformers
import yaml
from genseg_hub import checkpoints
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.segmenters.loading import load_segmenter
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, TrlParser, get_peft_config
from trl.trainer.model_config import ModelConfig

from genseg_training import curves, data, rewards
from genseg_training.callbacks import HubTarget, PushToHub
from genseg_training.export import alone, export
from genseg_training.mask_reward import MaskReward
from genseg_training.trainer import EVALUATIONS, SegmentationGRPOTrainer

MASK = "mask"
REWARDS: dict[str, Callable[..., list]] = {
    "format": rewards.format_reward,
    "schema": rewards.schema_reward,
    "box_iou": rewards.box_iou_reward,
    "box_l1": rewards.box_l1_reward,
    "points": rewards.points_reward,
    "count": rewards.count_reward,
    "repetition": rewards.repetition_penalty,
}
BEST = "best"
# TRL fills these in itself, and refuses or ignores them beside the options they follow from.
_DERIVED = {"generation_batch_size", "do_eval"}
# Options that are nobody's business who repeats the run: tokens, where it is published, folders, names of runs.
_PRIVATE = re.compile(r"(^|_)token(_|$)|^hub_|^push_to_hub|_dir$|run_name$")


@dataclass
class GrpoArguments:
    """What is trained on, rewarded and evaluated; everything else is TRL's `GRPOConfig` and `ModelConfig`."""

    data: list[str] = field(
        default_factory=lambda: ["refscenes:10000"],
        metadata={"help": "Sources: refscenes:COUNT, folders that the App exported, or Hub datasets."},
    )
    data_weights: list[float] = field(
        default_factory=lambda: [1.0], metadata={"help": "How often each source is drawn from."}
    )
    no_target_share: float | None = field(
        default=None, metadata={"help": "Share of no-target examples; as the sources have them by default."}
    )
    rewards: list[str] = field(
        default_factory=lambda: ["format", "schema", "box_iou", "box_l1", "points", "count"],
        metadata={"help": f"Of {', '.join([*REWARDS, MASK])}; weights are TRL's reward_weights, in this order."},
    )
    freeze_vision_tower: bool = field(
        default=False, metadata={"help": "Train the language model alone: faster, and what the tower sees stays."}
    )
    eval_data: str | None = field(
        default=None,
        metadata={
            "help": "Held-out examples, such as refscenes:val:400 or owner/name:validation, scored every eval_steps. "
            "The best checkpoint is the one with the highest metric_for_best_model on them, mIoU by default."
        },
    )


def parse(options: Mapping[str, Any]) -> tuple[GrpoArguments, GRPOConfig, ModelConfig]:
    """What `train` takes, from options by their names on the command line; `config` is the recipe's file.

    Raises:
        ValueError: for an option that does not exist or values that contradict each other.
    """
    flags = []
    for name, value in options.items():
        flags += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    classes: Any = (GrpoArguments, GRPOConfig, ModelConfig)
    return _Parser(classes).parse_args_and_config(flags)  # type: ignore[return-value]


class _Parser(TrlParser):
    """Raises where a program would end."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def rows(arguments: GrpoArguments, seed: int) -> datasets.Dataset:
    """The checked training rows.

    Raises:
        ValueError: for sources, weights or examples that cannot be trained on.
    """
    parts = [data.load_source(source, seed) for source in arguments.data]
    examples = parts[0] if len(parts) == 1 else data.mix(parts, arguments.data_weights, seed)
    if arguments.no_target_share is not None:
        examples = data.with_no_target_share(examples, arguments.no_target_share, seed)
    data.check(examples)
    return data.to_rows(examples)


def train(
    arguments: GrpoArguments,
    config: GRPOConfig,
    model_config: ModelConfig,
    callbacks: Sequence[transformers.TrainerCallback] = (),
) -> None:
    """Train, or resume from the last whole checkpoint in `output_dir`, and write the best one to `output_dir/best`.

    Args:
        callbacks: further ones, for example to show progress.

    Raises:
        ValueError: for options that contradict each other, or data that cannot be trained on.
        CheckpointError: for a model that cannot be used.
        PublishError: the checkpoint is in `output_dir/best`, and could not be published at the end.
    """
    _check(arguments, config, model_config)
    recipe = _recipe(arguments, config, model_config)
    target = HubTarget.of(config)
    config.push_to_hub = False  # TRL would publish its folder as it is, without SAM 2, dialect and figures
    start = _start(model_config)
    output = Path(str(config.output_dir))

    def best(state: transformers.TrainerState) -> Path:
        return _write_best(output, state, start, recipe)

    dataset = rows(arguments, config.seed)
    prompts = (config.generation_batch_size or 0) // (config.num_generations or 1)
    if len(dataset) < prompts:
        raise ValueError(
            f"there are {len(dataset)} examples to train on, and {prompts} prompts are answered at once: take more "
            "examples, or a smaller per_device_train_batch_size, gradient_accumulation_steps or num_generations"
        )
    held_out = data.load_source(arguments.eval_data, config.seed) if arguments.eval_data else None
    if held_out is not None:
        data.check(held_out)
    processor = transformers.AutoProcessor.from_pretrained(start.reasoner, padding_side="left", trust_remote_code=False)
    dtype = getattr(torch, model_config.dtype) if model_config.dtype not in (None, "auto") else torch.float32
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        start.reasoner,
        dtype=dtype,
        attn_implementation=model_config.attn_implementation,
        use_safetensors=True,
        trust_remote_code=False,
    )
    if arguments.freeze_vision_tower:
        model.model.visual.requires_grad_(False)
    with alone():
        segmenter = load_segmenter(start.segmenter, start.segmenter_config, config.device)
    available = REWARDS | {MASK: MaskReward(segmenter)}
    trainer = SegmentationGRPOTrainer(
        segmenter=segmenter,
        eval_dataset=held_out,
        eval_name=_public(arguments.eval_data or ""),
        model=model,
        args=config,
        reward_funcs=[available[name] for name in arguments.rewards],
        train_dataset=dataset,
        processing_class=processor,
        peft_config=get_peft_config(model_config),
        callbacks=[*callbacks, *([PushToHub(target, best)] if target and target.every_save else [])],
    )
    if trainer.is_world_process_zero():
        _drop_torn(output)
    trainer.accelerator.wait_for_everyone()
    last = get_last_checkpoint(str(output))
    config.eval_on_start = config.eval_on_start and last is None
    done = last and transformers.TrainerState.load_from_json(f"{last}/{TRAINER_STATE_NAME}")
    if done and 0 < config.max_steps <= done.global_step:
        trainer.state = done  # Transformers would train one step more
    else:
        trainer.train(resume_from_checkpoint=last)
    if trainer.is_world_process_zero():
        folder = best(trainer.state)
        print(f"the best checkpoint is in {folder}")
        if target:
            print(f"published {target.push(folder, 'Best checkpoint of the run').url}")
    trainer.accelerator.wait_for_everyone()


def _check(arguments: GrpoArguments, config: GRPOConfig, model_config: ModelConfig) -> None:
    """Refuse what cannot work, and declare the rule for the best checkpoint."""
    unknown = sorted(set(arguments.rewards) - {*REWARDS, MASK})
    if unknown:
        raise ValueError(f"there is no reward {unknown[0]!r}; choose of {', '.join([*REWARDS, MASK])}")
    if config.reward_weights and len(config.reward_weights) != len(arguments.rewards):
        raise ValueError(f"{len(arguments.rewards)} rewards need as many reward_weights, got {config.reward_weights}")
    if not model_config.model_name_or_path:
        raise ValueError("name the checkpoint to start from with --model_name_or_path: nano, a folder or a Hub id")
    if config.save_strategy == "no":
        raise ValueError("save_strategy must be steps: the result of a run is the best checkpoint that was saved")
    evaluates = config.eval_strategy != "no"
    if bool(arguments.eval_data) != evaluates:
        raise ValueError("evaluation needs both eval_data (held-out examples) and eval_strategy (steps), or neither")
    if evaluates and (
        config.save_strategy != config.eval_strategy or (config.eval_steps or config.logging_steps) % config.save_steps
    ):
        raise ValueError(
            f"eval_steps ({config.eval_steps}) must be a multiple of save_steps ({config.save_steps}), both by steps: "
            "the best checkpoint can only be one that was saved"
        )
    if evaluates:
        config.metric_for_best_model = config.metric_for_best_model or "miou"
        config.greater_is_better = True


def _start(model_config: ModelConfig) -> checkpoints.Checkpoint:
    """The checkpoint to start from; only one of the Hub has revisions, and TRL's default for it is "main"."""
    name = model_config.model_name_or_path or ""
    local = name in EMBEDDED or Path(name).is_dir()
    revision = model_config.model_revision
    return checkpoints.pull(name, None if local or revision == "main" else revision)


def _origin(start: checkpoints.Checkpoint) -> str | None:
    """What the card names as base model: a name that others can load, for a folder that of its own base model."""
    if start.commit or start.name in EMBEDDED:
        return start.name
    settings = start.reasoner / checkpoints.SETTINGS_FILE
    return json.loads(settings.read_text()).get("base_model") if settings.is_file() else None


def _recipe(*parts: Any) -> dict[str, Any]:
    """The options that differ from their defaults, without folders of this machine and without secrets."""
    chosen: dict[str, Any] = {}
    for part in parts:
        for option in dataclasses.fields(part):
            value = getattr(part, option.name)
            made = option.default_factory
            default = option.default if made is dataclasses.MISSING else made()
            written = isinstance(value, str | int | float | bool | list) and value not in ([], default)
            if written and option.name not in _DERIVED and not _PRIVATE.search(option.name):
                value = getattr(value, "value", value)  # of an enumeration
                chosen[option.name] = [_public(v) for v in value] if isinstance(value, list) else _public(value)
    return chosen


def _public(value: Any) -> Any:
    """A value without where it is on this machine: of an absolute path, the name."""
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


def _drop_torn(output: Path) -> None:
    """Remove checkpoints that a kill left half written: the trainer's state is written last."""
    for folder in output.glob("checkpoint-*"):
        if not re.fullmatch(r"checkpoint-\d+", folder.name) or not folder.is_dir():
            continue
        try:
            json.loads((folder / TRAINER_STATE_NAME).read_text())
        except (FileNotFoundError, ValueError):
            print(f"removing {folder}, which was not written to its end")
            shutil.rmtree(folder)


def _write_best(output: Path, state: transformers.TrainerState, start: checkpoints.Checkpoint, recipe: dict) -> Path:
    """Write the best checkpoint so far, or the last one where nothing was evaluated, and how it came about."""
    chosen = Path(state.best_model_checkpoint or get_last_checkpoint(str(output)) or "")
    folder = output / BEST
    export(chosen, folder, start.segmenter_id or start.segmenter, base_model=_origin(start))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    logs = folder / "logs" / "grpo.jsonl"
    logs.parent.mkdir(exist_ok=True)
    logs.write_text("".join(json.dumps(entry) + "\n" for entry in state.log_history))
    curves.draw(state.log_history, folder / "curves.png")
    step = int(chosen.name.rpartition("-")[2])
    report = output / EVALUATIONS / f"step-{step:06d}.json"
    if report.is_file():
        (folder / "evaluation").mkdir(exist_ok=True)
        shutil.copy(report, folder / "evaluation" / "held_out.json")
    return folder
