"""GRPO by TRL's trainer, with this project's rewards.

TRL runs the loop, samples and saves. A run leaves in `output_dir` TRL's `checkpoint-N`, a file and a picture per
evaluation in `evaluations/` and `samples/`, and `best/` (see `best`): the checkpoint folder that
`GenSegR1.from_pretrained` loads and `genseg push` publishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
import torch
import transformers
from genseg_hub.errors import PublishError
from genseg_hub.options import ReasonerOptions
from genseg_hub.reasoners.loading import load_weights
from genseg_hub.segmenters.loading import load_segmenter
from genseg_hub.thinking import opens_thought
from genseg_hub.whole import disk_full_in_words, restore, write_text
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, ModelConfig, get_peft_config

from genseg_training import best, data, pictures, rewards
from genseg_training.best import BEST
from genseg_training.callbacks import HubTarget, PushToHub
from genseg_training.export import alone, drop_torn
from genseg_training.frozen_tower import encode_once
from genseg_training.grpo_arguments import (
    MASK,
    REWARDS,
    GrpoArguments,
    check,
    check_vllm,
    of_data,
    parse,
    public,
    recipe_of,
    request_of,
)
from genseg_training.liveness import DeadRunError, Watch
from genseg_training.mask_reward import MaskReward
from genseg_training.start import check_precision, start_of
from genseg_training.trainer import SegmentationGRPOTrainer

__all__ = ["BEST", "MASK", "REWARDS", "GrpoArguments", "of_data", "parse", "request_of", "train"]
REPORT = "data.txt"


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
        DeadRunError: the run learns nothing. Whole checkpoints are kept, and `best/` is written if one was scored.
        CheckpointError: for a model that cannot be used.
        PublishError: when the final push fails, or no checkpoint beats the start; `output_dir/best` is there all the
            same.
        DiskFullError: the disk is full; whole checkpoints are kept.
    """
    check(arguments, config, model_config)
    check_vllm(config)
    check_precision(config, model_config)
    recipe = recipe_of(arguments, config, model_config)
    target = HubTarget.of(config)
    config.hub_token = None  # Transformers would save it in training_args.bin of every checkpoint
    config.push_to_hub = False  # TRL would publish its own folder, without SAM 2, dialect and figures
    start = start_of(model_config)
    output = Path(str(config.output_dir))
    options = ReasonerOptions(max_pixels=arguments.max_pixels).over(start.options)

    def best_so_far(state: transformers.TrainerState) -> Path:
        note = writer.choose(state).note
        if note:
            raise PublishError(note)
        return writer.write(state)

    metric = config.metric_for_best_model or "miou"
    asked = request_of(arguments)
    writer = best.Writer(
        output, start, options, recipe, metric, arguments.best_dtype, asked.hub_datasets(), asked.scored_on()
    )
    with config.main_process_first(desc="data"):  # the others find the rows in the cache
        loaded = data.load(asked, config.seed)
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
    model = load_weights(
        start.reasoner,
        start.name,
        dtype=dtype,
        attn_implementation=model_config.attn_implementation,
    )
    model.generation_config.num_beams = model.generation_config.num_return_sequences = (
        1  # a stranger's can ask for more
    )
    if arguments.freeze_vision_tower:
        model.model.visual.requires_grad_(False)
        encode_once(model.model.visual)
    with alone():
        segmenter = load_segmenter(start.segmenter, start.segmenter_config, config.device)
    available = REWARDS | {MASK: MaskReward(segmenter, arguments.reduced_mask_reward)}
    thought_is_open = opens_thought(processor)
    weights = config.reward_weights or [1.0] * len(arguments.rewards)
    largest = sum(weight for name, weight in zip(arguments.rewards, weights, strict=True) if name != "repetition")
    watch = Watch(arguments.dead_steps, arguments.dead_share, largest, config.max_completion_length or 0)
    trainer = SegmentationGRPOTrainer(
        segmenter=segmenter,
        eval_dataset=None if loaded.held_out is None else data.examples_of(loaded.held_out),
        eval_options=options,
        eval_name=public(arguments.eval_data or ""),
        rounds=arguments.dynamic_sampling,
        model=model,
        args=config,
        reward_funcs=[rewards.of_template(available[name], thought_is_open) for name in arguments.rewards],
        train_dataset=pictures.trainable(loaded.rows, options),
        processing_class=processor,
        peft_config=get_peft_config(model_config),
        callbacks=[watch, *callbacks, *([PushToHub(target, best_so_far)] if target and target.every_save else [])],
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
    reason, state = watch.check(trainer.state.log_history), trainer.state
    if reason is None or state.best_model_checkpoint:
        _finish(trainer, writer, target if reason is None else None, loaded.held_out, arguments)
    trainer.accelerator.wait_for_everyone()  # a process that fails would end the first one while it writes
    if reason:
        raise DeadRunError(reason)


def _finish(
    trainer: SegmentationGRPOTrainer,
    writer: best.Writer,
    target: HubTarget | None,
    held_out: datasets.Dataset | None,
    arguments: GrpoArguments,
) -> None:
    """Write `best/`, score it as users load it, and publish it."""
    choice, first = writer.choose(trainer.state), trainer.is_world_process_zero()
    if first:
        folder = writer.write(trainer.state)
        print(choice.note or f"the best weights are in {choice.folder.name}")
        print(f"the best checkpoint is in {folder}")
    trainer.accelerator.wait_for_everyone()
    if held_out is not None:
        trainer.release()
        report = best.evaluate(
            writer.output / BEST,
            data.examples_of(held_out),
            public(arguments.eval_data or ""),
            choice.step,
            str(trainer.args.device),
            trainer.args.per_device_eval_batch_size,
            trainer.accelerator.process_index,
            trainer.accelerator.num_processes,
            writer.scored_on,
        )
        if report:
            print(f"held-out mIoU of {BEST}/ as it loads: {report['miou']:.4f}")
    if first and target:
        if choice.note:
            raise PublishError(f"nothing was published, because {choice.note}")
        print(f"published {target.push(writer.output / BEST, 'Best checkpoint of the run').url}")


def _room(config: GRPOConfig, reasoner: Path) -> tuple[int, str]:
    """Return the tokens that are left for a prompt, and the options that leave them."""
    answer = config.max_completion_length or 0
    if config.use_vllm and config.vllm_max_model_length:
        length, name = config.vllm_max_model_length, "vllm_max_model_length"
    else:
        settings = transformers.AutoConfig.from_pretrained(reasoner, trust_remote_code=False).get_text_config()
        length, name = settings.max_position_embeddings, "the model's context"
    return length - answer, f"{name} {length:,} less max_completion_length {answer:,}"
