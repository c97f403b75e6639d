"""Tiny checkpoints with random weights: the true classes, processors and chat templates of the families."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import transformers
from genseg_hub import checkpoints
from genseg_hub.checkpoints.catalog import EMBEDDED

# The form of the chat template that zai-org's GLM-4.xV checkpoints carry.
_GLM_TEMPLATE = """[gMASK]<sop>
{%- for m in messages %}<|{{ m.role }}|>
{% for part in m.content %}{% if part.type == 'image' %}<|begin_of_image|><|image|><|end_of_image|>
{%- else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>
{% endif %}"""
_GLM_TOKENS = ["[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|begin_of_image|>", "<|end_of_image|>"]
_GLM_TOKENS += [
    "<|image|>",
    "<|video|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<|begin_of_box|>",
    "<|end_of_box|>",
]
_EXPERTS = {"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2}
_EXPERTS |= {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "first_k_dense_replace": 1}
_LINEAR = {"linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2}
_LINEAR |= {"linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"]}
_VISION_SMALL = {"depth": 2, "hidden_size": 64, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 64}
_NEW_VISION = {**_VISION_SMALL, "num_position_embeddings": 64}
_OLD_VISION = {"depth": 2, "embed_dim": 64, "hidden_size": 64, "num_heads": 4}
_SECTIONS = {"mrope_section": [2, 3, 3]}

# model_type -> (name of the chat template in trl, text options, vision options)
FAMILIES: dict[str, tuple[str | None, dict[str, Any], dict[str, Any]]] = {
    "qwen2_vl": ("qwen2_5_vl", {}, _OLD_VISION),
    "qwen2_5_vl": ("qwen2_5_vl", {}, {**_VISION_SMALL, "fullatt_block_indexes": [1]}),
    "qwen3_vl": ("qwen3_vl", {"head_dim": 16}, {**_NEW_VISION, "deepstack_visual_indexes": [0]}),
    "qwen3_vl_moe": ("qwen3_vl", {"head_dim": 16, **_EXPERTS}, {**_NEW_VISION, "deepstack_visual_indexes": [0]}),
    "qwen3_5": ("qwen3_5_think", {"head_dim": 16, **_LINEAR}, _NEW_VISION),
    "qwen3_5_moe": ("qwen3_5_think", {"head_dim": 16, **_LINEAR, **_EXPERTS}, _NEW_VISION),
    "glm4v": (None, {}, _VISION_SMALL),
    "glm4v_moe": (None, {**_EXPERTS}, _VISION_SMALL),
    "glm46v": (None, {}, _VISION_SMALL),
}


def save_family(folder: Path, model_type: str, max_new_tokens: int = 8, template: str | None = None) -> Path:
    """Write a checkpoint folder of a family, with nano's tokenizer and nano's SAM 2.

    Args:
        folder: new.
        model_type: one of FAMILIES.
        max_new_tokens: of its generation_config.json.
        template: a chat template in place of the family's own.
    """
    name, text, vision = FAMILIES[model_type]
    glm = name is None
    named = {"extra_special_tokens": {"image_token": "<|image|>", "video_token": "<|video|>"}} if glm else {}
    tokenizer = transformers.AutoTokenizer.from_pretrained(EMBEDDED["nano"], **named)
    if glm:
        tokenizer.add_special_tokens({"additional_special_tokens": _GLM_TOKENS})
    ids = tokenizer.convert_tokens_to_ids
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        model_type,
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, **_SECTIONS, **_partial(model_type)},
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
            **text,
        },
        vision_config=vision,
        image_token_id=ids("<|image|>" if glm else "<|image_pad|>"),
        video_token_id=ids("<|video|>" if glm else "<|video_pad|>"),
        **(
            {"image_start_token_id": ids("<|begin_of_image|>"), "image_end_token_id": ids("<|end_of_image|>")}
            if glm
            else {"vision_start_token_id": ids("<|vision_start|>"), "vision_end_token_id": ids("<|vision_end|>")}
        ),
    )
    model = transformers.AutoModelForImageTextToText.from_config(config)
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=ids("<|im_end|>"), pad_token_id=ids("<|endoftext|>"), max_new_tokens=max_new_tokens
    )
    model.save_pretrained(folder)
    if template is None:
        template = _GLM_TEMPLATE if glm else resources.files("trl").joinpath(f"chat_templates/{name}.jinja").read_text()
    _processor(model_type, tokenizer, template).save_pretrained(folder)
    shutil.copytree(EMBEDDED["nano"] / "segmenter", folder / "segmenter")
    (folder / checkpoints.SETTINGS_FILE).write_text(json.dumps({"segmenter": "segmenter", "dtype": "float32"}))
    return folder


def save_qwen2_5_vl(folder: Path, dialect: str) -> Path:
    """Write a checkpoint folder of the architecture of Seg-Zero, VisionReasoner and Seg-R1."""
    save_family(folder, "qwen2_5_vl")
    settings = {"dialect": dialect, "segmenter": "segmenter", "dtype": "float32"}
    (folder / checkpoints.SETTINGS_FILE).write_text(json.dumps(settings))
    return folder


def _partial(model_type: str) -> dict[str, float]:
    return {"partial_rotary_factor": 1.0} if model_type.startswith(("qwen3_5", "glm")) else {}


def _processor(model_type: str, tokenizer, template: str):
    if model_type.startswith("glm"):
        new = "Glm46V" if model_type == "glm46v" else "Glm4v"
        size = {"size": {"shortest_edge": 28 * 28 * 2, "longest_edge": 112 * 112 * 2}}
        kinds = (f"{new}Processor", f"{new}ImageProcessor", f"{new}VideoProcessor")
    elif model_type.startswith("qwen3"):
        size = {"size": {"shortest_edge": 32 * 32, "longest_edge": 128 * 128}, "patch_size": 16}
        kinds = ("Qwen3VLProcessor", "Qwen2VLImageProcessor", "Qwen3VLVideoProcessor")
    else:
        size = {"min_pixels": 28 * 28, "max_pixels": 112 * 112}
        kinds = ("Qwen2VLProcessor", "Qwen2VLImageProcessor", "Qwen2VLVideoProcessor")
        if model_type == "qwen2_5_vl":
            kinds = ("Qwen2_5_VLProcessor", *kinds[1:])
    whole, images, videos = (getattr(transformers, kind) for kind in kinds)
    return whole(image_processor=images(**size), video_processor=videos(), tokenizer=tokenizer, chat_template=template)
