"""A tiny Qwen2.5-VL with random weights: the architecture of Seg-Zero, VisionReasoner and Seg-R1."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path

import torch
import transformers
from genseg_hub import checkpoints
from genseg_hub.checkpoints.catalog import EMBEDDED


def save_qwen2_5_vl(folder: Path, dialect: str) -> Path:
    """Write a checkpoint folder with nano's tokenizer and nano's SAM 2."""
    nano = transformers.AutoProcessor.from_pretrained(EMBEDDED["nano"])
    vision = {"min_pixels": 28 * 28, "max_pixels": 112 * 112}  # the checkpoints show 840 x 840
    template = resources.files("trl").joinpath("chat_templates", "qwen2_5_vl.jinja").read_text()
    processor = transformers.Qwen2_5_VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**vision),
        video_processor=transformers.Qwen2VLVideoProcessor(**vision),
        tokenizer=nano.tokenizer,
        chat_template=template,
    )
    ids = nano.tokenizer.convert_tokens_to_ids
    torch.manual_seed(0)
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(nano.tokenizer) + 16,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=ids("<|im_end|>"), pad_token_id=ids("<|endoftext|>"), max_new_tokens=8
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    shutil.copytree(EMBEDDED["nano"] / "segmenter", folder / "segmenter")
    (folder / checkpoints.SETTINGS_FILE).write_text(json.dumps({"dialect": dialect, "segmenter": "segmenter"}))
    return folder
