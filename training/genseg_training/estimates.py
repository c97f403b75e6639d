"""Estimate the memory, the time and the disk that a recipe for GPUs needs.

Nothing here is measured. The models are built from their configurations without memory for weights, so parameters are
counted, not guessed. Batch sizes, steps and ranks come from the recipe. Everything else is in `Assumptions`.
Communication, loading, saving and work of the CPU are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import transformers
from genseg_hub.segmenters.sam2 import build_sam2
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# Differences between the config.json of the repositories on the Hub; `qwen3_vl` has the values they share.
_DEEP = {"num_hidden_layers": 36, "num_attention_heads": 32}
_SMALL_TOWER = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "deepstack_visual_indexes": [5, 11, 17],
}
CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-VL-2B-Instruct": {
        "text": {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
        },
        "vision": _SMALL_TOWER,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen3-VL-4B-Instruct": {
        "text": {"hidden_size": 2560, "intermediate_size": 9728} | _DEEP,
        "vision": _SMALL_TOWER,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen3-VL-8B-Instruct": {
        "text": {"hidden_size": 4096, "intermediate_size": 12288} | _DEEP,
        "vision": {
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        "tie_word_embeddings": False,
    },
}
LORA, FSDP2, ZERO2, ZERO3 = "LoRA, DDP", "full, FSDP2", "full, ZeRO-2", "full, ZeRO-3"
# NVIDIA's data sheets of the SXM boards: bfloat16 without sparsity and float32 in FLOP/s, memory in byte/s.
GPUS = {"A100": (312e12, 19.5e12, 2.04e12), "H100": (989e12, 67e12, 3.35e12)}
CARD = 85.5e9  # bytes of an "80 GB" board: 81,559 MiB


@dataclass(frozen=True)
class Assumptions:
    """Values that no recipe states.

    Attributes:
        image_tokens: tokens of an image of 640 x 480 pixels; a token is 32 x 32.
        prompt: text tokens of a request.
        answer: mean tokens of an answer.
        longest: tokens of the longest answer of a batch.
        utilisation: share of the peak FLOP/s and of the bandwidth.
        other: bytes for CUDA, NCCL and fragments.
    """

    image_tokens: int = 300
    prompt: int = 150
    answer: int = 300
    longest: int = 800
    utilisation: float = 0.3
    other: float = 3e9


@cache
def sam2() -> tuple[int, int, int]:
    """Return SAM 2.1 large's parameters, bytes on a GPU, and FLOPs of an image."""
    model = build_sam2("sam2.1/sam2.1_hiera_l").to("meta")
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model.forward_image(torch.empty(1, 3, 1024, 1024))
    return count(model), 4 * count(model) + 2_000_000_000, counter.get_total_flops()  # 2 GB of activations


@cache
def qwen3_vl(name: str) -> transformers.PreTrainedModel:
    """Build the architecture, without memory for its weights."""
    sizes = CONFIGS[name]
    text = {"vocab_size": 151936, "num_key_value_heads": 8, "head_dim": 128}
    vision = {"num_heads": 16, "patch_size": 16, "spatial_merge_size": 2, "num_position_embeddings": 2304}
    tied = {"tie_word_embeddings": sizes["tie_word_embeddings"]}
    config = transformers.Qwen3VLConfig(
        text_config=text | sizes["text"] | tied,
        vision_config=vision | {"out_hidden_size": sizes["text"]["hidden_size"]} | sizes["vision"],
        **tied,
    )
    with torch.device("meta"):
        return transformers.Qwen3VLForConditionalGeneration(config)


def count(*modules: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def lora_parameters(model: nn.Module, recipe: Mapping[str, Any]) -> int:
    """Return the number of parameters of a recipe's adapters."""
    names = recipe["lora_target_modules"]
    layers = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.rpartition(".")[2] in names]
    return sum(recipe["lora_r"] * (layer.in_features + layer.out_features) for layer in layers)


def memory(
    model: Any, recipe: Mapping[str, Any], way: str, gpus: int, completions: int, assumed: Assumptions
) -> dict[str, float]:
    """Estimate the bytes on one GPU, by their purpose.

    Args:
        model: model from `qwen3_vl`.
        recipe: its settings.
        way: LORA, FSDP2, ZERO2 or ZERO3.
        gpus: number of GPUs.
        completions: completions of a step, on all GPUs together.
        assumed: values that no recipe states.
    """
    text, weights = model.config.text_config, count(model)
    lora, zero = lora_parameters(model, recipe), way in (ZERO2, ZERO3)
    trained = lora if way == LORA else weights - count(model.model.visual)
    width = 2 if zero else 4  # DeepSpeed keeps bfloat16 weights beside a divided float32 copy
    held = weights if way in (LORA, ZERO2) else weights / gpus
    state = trained if way == LORA else trained / gpus
    longest = assumed.prompt + assumed.image_tokens + recipe["max_completion_length"]
    tokens = recipe["per_device_train_batch_size"] * longest
    # In bfloat16: one checkpoint per layer, and the values of one layer while it is computed again (about 12 vectors of
    # the hidden and 5 of the inner size). Divided weights add the whole output layer in float32.
    activations = 2 * tokens * (text.num_hidden_layers + 12) * text.hidden_size
    activations += 2 * tokens * 5 * text.intermediate_size
    activations += 4 * text.vocab_size * text.hidden_size if held < weights else 0
    per_token = 2 * 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim  # bfloat16, of a token
    # At the end `best/` is loaded in bfloat16 for its figures; the trained weights are then on the CPU, or divided.
    final = 2 * weights + per_token * longest * recipe["per_device_eval_batch_size"]
    final -= width * held if held == weights else 0
    parts = {
        "weights": width * held + (4 * lora if way == LORA else 0),
        "gradients": width * state,
        "optimizer": (12 if zero else 8) * state,  # two moments; with DeepSpeed the float32 copy
        "reference": 0.0 if way == LORA or not recipe["beta"] else width * held,
        "vLLM": recipe["vllm_gpu_memory_utilization"] * CARD,
        "activations": max(activations, final),
        "SAM 2": sam2()[1],
        "other": assumed.other,
    }
    return parts | {
        "total": sum(parts.values()),
        "(vLLM: weights)": 2 * weights,
        "(vLLM: cache)": completions / gpus * longest * per_token,
    }


def forward(model: Any, sequences: float, prompt: int, answer: int, image: int) -> tuple[float, float]:
    """Return the FLOPs of the language model and of the vision tower.

    A linear layer costs 2 FLOPs per weight and token.

    Args:
        model: model from `qwen3_vl`.
        sequences: number of sequences.
        prompt: tokens of a prompt, its image included.
        answer: tokens of an answer.
        image: tokens of an image.
    """
    text, vision, tower = model.config.text_config, model.config.vision_config, model.model.visual
    length, patches = prompt + answer, 4 * image
    language = 2 * count(model.model.language_model.layers) * length
    language += 2 * text.num_hidden_layers * text.num_attention_heads * text.head_dim * length**2  # causal: half of 4
    language += 2 * text.hidden_size * text.vocab_size * answer
    seen = 2 * count(tower.blocks) * patches + 2 * count(tower.merger, tower.deepstack_merger_list) * image
    seen += 4 * vision.depth * vision.hidden_size * patches**2
    return sequences * language, sequences * seen


def seconds(
    model: Any, recipe: Mapping[str, Any], gpu: str, gpus: int, completions: int, assumed: Assumptions
) -> dict[str, float]:
    """Estimate the seconds of each part of a LoRA step, and of an evaluation.

    Args:
        model: model from `qwen3_vl`.
        recipe: its settings; `eval_data` ends in a count.
        gpu: a key of GPUS.
        gpus: number of GPUs.
        completions: completions of a step, on all GPUs together.
        assumed: values that no recipe states.
    """
    bf16, fp32, bandwidth = (assumed.utilisation * peak for peak in GPUS[gpu])
    prompt, image = assumed.prompt + assumed.image_tokens, assumed.image_tokens
    language, tower = forward(model, completions, prompt, assumed.answer, image)
    # One forward pass for vLLM's correction and one for the reference. Then a forward pass, a second one because of
    # checkpointing, and a backward pass to the adapters, which costs the same. The tower is frozen.
    passes = 1 + (recipe["beta"] > 0)
    train = language * (passes + 3) + tower * (passes + 1)
    groups = completions / recipe["num_generations"] / gpus
    held_out = int(recipe["eval_data"].rpartition(":")[2])
    prefill = sum(forward(model, groups, prompt, 0, image))
    return {
        "train": train / gpus / bf16,
        "generate": prefill / bf16 + assumed.longest * 2 * count(model) / bandwidth,
        "mask": groups * sam2()[2] / fp32 if "mask" in recipe["rewards"] else 0.0,
        "evaluation": answering(model, held_out / gpus, recipe["per_device_eval_batch_size"], gpu, assumed),
    }


def answering(model: Any, examples: float, batch_size: int, gpu: str, assumed: Assumptions) -> float:
    """Estimate the seconds that one GPU takes for greedy answers in bfloat16.

    Args:
        model: model from `qwen3_vl`.
        examples: number of expressions of this GPU.
        batch_size: expressions answered at once.
        gpu: a key of GPUS.
        assumed: values that no recipe states.
    """
    bf16, _, bandwidth = (assumed.utilisation * peak for peak in GPUS[gpu])
    prompt, image = assumed.prompt + assumed.image_tokens, assumed.image_tokens
    read = 2 * count(model) / bandwidth * assumed.longest * examples / batch_size
    return sum(forward(model, examples, prompt, assumed.answer, image)) / bf16 + read


def evaluations(recipe: Mapping[str, Any]) -> int:
    """Return how often a run scores its held-out examples.

    The count includes the evaluation of the start and the evaluation of the finished `best/`.
    """
    return recipe["max_steps"] // recipe["eval_steps"] + 2


def hours(recipe: Mapping[str, Any], parts: Mapping[str, float]) -> tuple[float, float]:
    """Return the hours of a run, and of its evaluations on held-out examples.

    Args:
        recipe: its settings.
        parts: seconds of the parts, from `seconds`.
    """
    held_out = evaluations(recipe) * parts["evaluation"] / 3600
    step = parts["train"] + parts["generate"] + parts["mask"]
    return recipe["max_steps"] * step / 3600 + held_out, held_out


def disk(model: Any, recipe: Mapping[str, Any]) -> float:
    """Return the bytes that a LoRA run leaves in its folder.

    The folder holds `best/` in float32, and checkpoints of an adapter and two moments of AdamW. The best checkpoint is
    kept beside the last ones.

    Args:
        model: model from `qwen3_vl`.
        recipe: its settings.
    """
    adapter = lora_parameters(model, recipe)
    return 4 * (count(model) + adapter) + (recipe["save_total_limit"] + 1) * 12 * adapter
