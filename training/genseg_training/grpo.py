"""GRPO: TRL's trainer with this project's rewards. The loop, the sampling and the files are TRL's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import datasets
import torch
import transformers
from trl import GRPOConfig, GRPOTrainer, get_peft_config
from trl.trainer.model_config import ModelConfig

from genseg_training import data, rewards

REWARDS: dict[str, Callable[..., list]] = {
    "format": rewards.format_reward,
    "schema": rewards.schema_reward,
    "box_iou": rewards.box_iou_reward,
    "box_l1": rewards.box_l1_reward,
    "points": rewards.points_reward,
    "count": rewards.count_reward,
    "repetition": rewards.repetition_penalty,
}


@dataclass
class GrpoArguments:
    """What is trained on and rewarded; everything else is TRL's `GRPOConfig` and `ModelConfig`."""

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
        metadata={"help": f"Of {', '.join(REWARDS)}; weights are TRL's reward_weights, in this order."},
    )


def rows(arguments: GrpoArguments, seed: int) -> datasets.Dataset:
    """The checked training rows.

    Raises:
        ValueError: for sources, weights or examples that cannot be trained on.
    """
    parts = [data.load(source, seed) for source in arguments.data]
    examples = parts[0] if len(parts) == 1 else data.mix(parts, arguments.data_weights, seed)
    if arguments.no_target_share is not None:
        examples = data.with_no_target_share(examples, arguments.no_target_share, seed)
    data.check(examples)
    return data.to_rows(examples)


def train(arguments: GrpoArguments, config: GRPOConfig, model_config: ModelConfig) -> None:
    """Train, or resume from the last checkpoint in `output_dir`, and save the result there.

    Raises:
        ValueError: for an unknown reward, or data that cannot be trained on.
    """
    unknown = sorted(set(arguments.rewards) - set(REWARDS))
    if unknown:
        raise ValueError(f"there is no reward {unknown[0]!r}; choose of {', '.join(REWARDS)}")
    if config.reward_weights and len(config.reward_weights) != len(arguments.rewards):
        raise ValueError(f"{len(arguments.rewards)} rewards need as many reward_weights, got {config.reward_weights}")
    if not model_config.model_name_or_path:
        raise ValueError("name the checkpoint to start from with --model_name_or_path: a folder or a Hub id")
    dataset = rows(arguments, config.seed)
    processor = transformers.AutoProcessor.from_pretrained(model_config.model_name_or_path, padding_side="left")
    dtype = getattr(torch, model_config.dtype) if model_config.dtype not in (None, "auto") else torch.float32
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        model_config.model_name_or_path, dtype=dtype, attn_implementation=model_config.attn_implementation
    )
    trainer = GRPOTrainer(
        model=model,
        args=config,
        reward_funcs=[REWARDS[name] for name in arguments.rewards],
        train_dataset=dataset,
        processing_class=processor,
        peft_config=get_peft_config(model_config),
    )
    last = transformers.trainer_utils.get_last_checkpoint(config.output_dir)
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(config.output_dir)
