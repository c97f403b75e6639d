"""Tiny checkpoints with random weights: the true classes, processors and chat templates of the families."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from genseg_hub import checkpoints, dialects
from genseg_hub.checkpoints.catalog import EMBEDDED

from tests.helpers.family_shapes import FAMILIES, Family


def save_family(
    folder: Path,
    model_type: str,
    max_new_tokens: int = 8,
    template: str | None = None,
    text: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint folder of a family, with nano's tokenizer and nano's SAM 2.

    Args:
        folder: new.
        model_type: one of FAMILIES.
        max_new_tokens: of its generation_config.json.
        template: a chat template in place of the family's own.
        text: options of the text model, beside the family's own.
    """
    family = FAMILIES[model_type]
    family = replace(family, template=template or family.template, text={**family.text, **(text or {})})
    tokenizer = make_tokenizer(family)
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(make_config(model_type, family, tokenizer))
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
        pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        max_new_tokens=max_new_tokens,
    )
    model.save_pretrained(folder)
    family.make_processor(tokenizer).save_pretrained(folder)
    shutil.copytree(EMBEDDED["nano"] / "segmenter", folder / "segmenter")
    settings = {"segmenter": "segmenter", "dtype": "float32"}
    if not dialects.of_model_type(model_type):
        settings["dialect"] = "qwen3_vl"
    (folder / checkpoints.SETTINGS_FILE).write_text(json.dumps(settings))
    return folder


def save_qwen2_5_vl(folder: Path, dialect: str) -> Path:
    """Write a checkpoint folder of the architecture of Seg-Zero, VisionReasoner and Seg-R1."""
    save_family(folder, "qwen2_5_vl")
    settings = {"dialect": dialect, "segmenter": "segmenter", "dtype": "float32"}
    (folder / checkpoints.SETTINGS_FILE).write_text(json.dumps(settings))
    return folder


def make_tokenizer(family: Family) -> Any:
    """Return nano's tokenizer with the family's special tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(EMBEDDED["nano"], extra_special_tokens=family.names)
    special = {*family.ids.values(), *family.names.values(), *family.tokens} - {"\n"}
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(special)})
    return tokenizer


def make_config(model_type: str, family: Family, tokenizer: Any) -> Any:
    """Return the configuration of a family's tiny model."""
    ends = {"eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>")}
    ends["pad_token_id"] = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3], **family.rope}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,  # with the usual 0.02, all answers of some types are equal
        "rope_parameters": rope,
        **ends,
        **family.text,
    }
    ids = {name: tokenizer.encode(token, add_special_tokens=False) for name, token in family.ids.items()}
    return transformers.AutoConfig.for_model(
        model_type,
        text_config=text,
        vision_config=family.vision,
        **{name: number for name, (number,) in ids.items()},
        **family.further,
    )
