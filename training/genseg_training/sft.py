"""Cold start: supervised training on answers rendered from masks.

TRL's SFTTrainer runs it. It teaches the form of an answer to a checkpoint that never answers in it, because GRPO learns
nothing if every reward is 0. It does not teach reasoning. The thought says only things that the masks prove: how many
instances the expression refers to. A checkpoint would copy an empty thought, and nobody has written longer true
thoughts.

A run leaves in `output_dir` TRL's `checkpoint-N`, and `final/`: the checkpoint folder that `GenSegR1.from_pretrained`
loads and from which `genseg-train grpo` starts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from genseg_hub.dialects import genseg
from genseg_hub.options import ReasonerOptions
from genseg_hub.publishing.writing import origin
from genseg_hub.reasoners.base import THOUGHT
from genseg_hub.reasoners.loading import load_weights
from genseg_hub.reasoners.transformers import end_tokens
from genseg_hub.schema import InstancePrompt, Rle, decode_mask
from genseg_hub.thinking import opens_thought
from genseg_hub.whole import disk_full_in_words, restore, write_text
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint
from trl import ModelConfig, SFTConfig, SFTTrainer, get_peft_config

from genseg_training import data, pictures
from genseg_training.export import drop_torn, export
from genseg_training.nano.answers import interior_points
from genseg_training.sources import ROOT_VARIABLE
from genseg_training.start import check_precision, start_of

FINAL, REPORT, LOG = "final", "data.txt", "sft.jsonl"


@dataclass
class SftArguments:
    """Options of the data of a cold start.

    TRL's `SFTConfig` and `ModelConfig` hold all other options.
    """

    data: list[str] = field(
        default_factory=lambda: ["refscenes:2000"],
        metadata={"help": "Sources, as for grpo: refcocog:train:2000, a folder, a Hub dataset."},
    )
    root: str | None = field(
        default=None, metadata={"help": f"Folder of the official archives; ${ROOT_VARIABLE} by default."}
    )
    data_weights: list[float] | None = field(
        default=None, metadata={"help": "How often each source is drawn from. By default equally often."}
    )
    exclude: list[str] = field(
        default_factory=list, metadata={"help": "Sources whose images are left out of training: refcocog:val."}
    )
    no_target_share: float | None = field(
        default=None, metadata={"help": "Share of no-target examples. By default the share that the sources have."}
    )
    max_pixels: int | None = field(
        default=None, metadata={"help": "Most pixels of an image as the model sees it (2,048 tokens by default)."}
    )
    freeze_vision_tower: bool = field(default=True, metadata={"help": "Train the language model alone."})


def train(
    arguments: SftArguments,
    config: SFTConfig,
    model_config: ModelConfig,
    callbacks: Sequence[transformers.TrainerCallback] = (),
) -> None:
    """Train, and write the last checkpoint to `output_dir/final`.

    A run with a whole checkpoint in `output_dir` resumes from the last one.

    Args:
        arguments: data.
        config: TRL's settings of the run.
        model_config: TRL's settings of the model; `model_name_or_path` is the checkpoint to start from.
        callbacks: further callbacks.

    Raises:
        ValueError: for options that contradict each other, or data that cannot be trained on.
        CheckpointError: for a model that cannot be used.
        DiskFullError: the disk is full; whole checkpoints are kept.
    """
    if not model_config.model_name_or_path:
        raise ValueError("name the checkpoint to start from with --model_name_or_path: nano, a folder or a Hub id")
    if config.save_strategy == "no":
        raise ValueError("save_strategy must be steps: the result of a run is its last saved checkpoint")
    asked = data.Request(
        arguments.data, arguments.data_weights, arguments.root, arguments.exclude, arguments.no_target_share
    )
    asked.check()
    check_precision(config, model_config)
    start = start_of(model_config)
    output = Path(str(config.output_dir))
    options = ReasonerOptions(max_pixels=arguments.max_pixels).over(start.options)
    with config.main_process_first(desc="data"):  # the others find the rows in the cache
        loaded = data.load(asked, config.seed)
    processor = transformers.AutoProcessor.from_pretrained(start.reasoner, trust_remote_code=False)
    model = load_weights(
        start.reasoner,
        start.name,
        dtype=getattr(torch, model_config.dtype) if model_config.dtype not in (None, "auto") else torch.float32,
        attn_implementation=model_config.attn_implementation,
    )
    context = model.config.get_text_config().max_position_embeddings
    limit = f"the model's context {context:,} less {genseg.MAX_NEW_TOKENS:,} for the answer"
    pictures.check_room(loaded.rows, processor, options, context - genseg.MAX_NEW_TOKENS, limit)
    if arguments.freeze_vision_tower:
        model.model.visual.requires_grad_(False)
    config.max_length = None  # a cut answer would teach that answers do not end
    config.completion_only_loss = True
    config.remove_unused_columns = False  # the rows are made of them when they are read
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=answered(loaded.rows, processor, end_token(processor, model), options),
        processing_class=processor,
        peft_config=get_peft_config(model_config),
        callbacks=list(callbacks),
    )
    if trainer.is_world_process_zero():
        drop_torn(output)
        restore(output / FINAL)
        print(loaded.report)
        write_text(output / REPORT, loaded.report + "\n")
    trainer.accelerator.wait_for_everyone()
    last = get_last_checkpoint(str(output))
    done = last and transformers.TrainerState.load_from_json(f"{last}/{TRAINER_STATE_NAME}")
    if done and 0 < config.max_steps <= done.global_step:
        trainer.state = done  # Transformers would train one more step
    else:
        with disk_full_in_words(f"the run stopped; whole checkpoints in {output} are kept"):
            trainer.train(resume_from_checkpoint=last)
    if trainer.is_world_process_zero():
        trained = Path(get_last_checkpoint(str(output)) or "")
        segmenter, trained_on = start.segmenter_id or start.segmenter, asked.hub_datasets()
        export(trained, output / FINAL, segmenter, origin(start), options=options, datasets=trained_on)
        log = "".join(json.dumps(entry) + "\n" for entry in trainer.state.log_history)
        write_text(output / FINAL / "logs" / LOG, log)
        print(f"the checkpoint is in {output / FINAL}")
    trainer.accelerator.wait_for_everyone()


def end_token(processor: Any, model: Any) -> str:
    """Return the token that ends an answer.

    Raises:
        ValueError: generation would not stop at the tokenizer's end token.
    """
    tokenizer = processor.tokenizer
    if tokenizer.eos_token_id not in end_tokens(model):
        raise ValueError(
            f"the tokenizer ends an answer with {tokenizer.eos_token!r}, and generation does not stop there; mend "
            "eos_token_id in the checkpoint's generation_config.json"
        )
    return tokenizer.eos_token


def answered(rows: datasets.Dataset, processor: Any, end: str, options: ReasonerOptions) -> datasets.Dataset:
    """Return the rows that SFTTrainer reads.

    A row has the prompt of inference, the answer of the masks, and the image. If the chat template opens the thought in
    the prompt, as templates of Thinking models do, the answer begins inside it.

    Args:
        rows: rows that `rows.prepared` made.
        processor: processor of the checkpoint.
        end: token that ends an answer.
        options: `min_pixels` and `max_pixels` of an image as the model sees it.
    """
    opening = THOUGHT if opens_thought(processor) else ""

    def read(batch: dict[str, list]) -> dict[str, list]:
        images = [pictures.shown(pictures.opened(stored), options) for stored in batch["image"]]
        prompts, completions = [], []
        for expression, size, boxes, masks in zip(
            *(batch[name] for name in ("expression", "image_size", "boxes", "masks")), strict=True
        ):
            chat = genseg.messages(tuple(size), expression)
            prompts.append(processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
            completions.append(answer(expression, boxes, masks, tuple(size)).removeprefix(opening) + end)
        return {"prompt": prompts, "completion": completions, "images": [[image] for image in images]}

    return rows.with_transform(read)


def answer(expression: str, boxes: Sequence[Sequence[float]], masks: Sequence[Rle], size: tuple[int, int]) -> str:
    """Return the true answer to an expression; instances go from left to right.

    Args:
        expression: the natural-language query.
        boxes: xyxy pixels of the true instances.
        masks: COCO RLE of the same instances.
        size: (width, height) of the image in pixels.
    """
    prompts = [
        InstancePrompt((box[0], box[1], box[2], box[3]), interior_points(decode_mask(rle)))
        for box, rle in sorted(zip(boxes, masks, strict=True), key=lambda instance: list(instance[0]))
    ]
    count = {0: "Nothing in the image fits it.", 1: "One instance fits it."}
    fits = count.get(len(prompts), f"{len(prompts)} instances fit it.")
    asked = genseg.messages(size, expression)[-1]["content"][-1]["text"]  # the prompt's words hold no control token
    return genseg.render(f"{asked}. {fits}", prompts, size)
