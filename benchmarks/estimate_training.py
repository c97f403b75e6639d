"""Estimate memory and time of the recipes for GPUs; nothing here ran on a GPU.

python benchmarks/estimate_training.py

The models are built from their configurations without memory for weights, so parameters are counted, not guessed. Batch
sizes, steps and ranks come from the recipes, numbers of GPUs from the accelerate configurations. Everything else is
assumed: it is printed first, and an option changes it. Communication, loading, saving and work of the CPU are not
counted.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import torch
import transformers
import yaml
from genseg_hub.segmenters.sam2 import build_sam2
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

TRAINING = Path(__file__).resolve().parent.parent / "training"
# Differences between the config.json of the two repositories on the Hub; `qwen3_vl` has the values they share.
CONFIGS = {
    "Qwen/Qwen3-VL-4B-Instruct": {
        "text": {"hidden_size": 2560, "intermediate_size": 9728},
        "vision": {
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen3-VL-8B-Instruct": {
        "text": {"hidden_size": 4096, "intermediate_size": 12288},
        "vision": {
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        "tie_word_embeddings": False,
    },
}
# genseg_r1_g_8b starts from the result of genseg_r1_8b, which has the same size.
RECIPES = {"genseg_r1_4b": "Qwen/Qwen3-VL-4B-Instruct"} | dict.fromkeys(
    ("genseg_r1_8b", "genseg_r1_g_8b"), "Qwen/Qwen3-VL-8B-Instruct"
)
LORA = "LoRA, DDP"
CONFIGURATIONS = {
    LORA: "multi_gpu",
    "full, FSDP2": "fsdp2",
    "full, ZeRO-2": "deepspeed_zero2",
    "full, ZeRO-3": "deepspeed_zero3",
}
# NVIDIA's data sheets of the SXM boards: bfloat16 without sparsity and float32 in FLOP/s, memory in byte/s.
GPUS = {"A100": (312e12, 19.5e12, 2.04e12), "H100": (989e12, 67e12, 3.35e12)}
CARD = 85.5e9  # bytes of an "80 GB" board: 81,559 MiB


def qwen3_vl(name: str) -> transformers.PreTrainedModel:
    """Build the architecture, without memory for its weights."""
    sizes = CONFIGS[name]
    text = {"vocab_size": 151936, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8}
    vision = {"num_heads": 16, "patch_size": 16, "spatial_merge_size": 2, "num_position_embeddings": 2304}
    tied = {"tie_word_embeddings": sizes["tie_word_embeddings"]}
    config = transformers.Qwen3VLConfig(
        text_config=text | {"head_dim": 128} | sizes["text"] | tied,
        vision_config=vision | {"out_hidden_size": sizes["text"]["hidden_size"]} | sizes["vision"],
        **tied,
    )
    with torch.device("meta"):
        return transformers.Qwen3VLForConditionalGeneration(config)


def count(*modules: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def lora_parameters(model: nn.Module, recipe: dict) -> int:
    """Return the number of parameters of a recipe's adapters."""
    names = recipe["lora_target_modules"]
    layers = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.rpartition(".")[2] in names]
    return sum(recipe["lora_r"] * (layer.in_features + layer.out_features) for layer in layers)


def memory(model, recipe: dict, way: str, gpus: int, completions: int, options: argparse.Namespace) -> dict[str, float]:
    """Estimate the bytes on one GPU, by what takes them.

    Args:
        model: from `qwen3_vl`.
        recipe: its settings.
        way: a key of CONFIGURATIONS.
        gpus: number of GPUs.
        completions: completions of a step, on all GPUs together.
        options: assumptions of the command line.
    """
    text, weights = model.config.text_config, count(model)
    lora, zero = lora_parameters(model, recipe), "ZeRO" in way
    trained = lora if way == LORA else weights - count(model.model.visual)
    width = 2 if zero else 4  # DeepSpeed keeps bfloat16 weights beside a divided float32 copy
    held = weights if way in (LORA, "full, ZeRO-2") else weights / gpus
    state = trained if way == LORA else trained / gpus
    longest = options.prompt + options.image_tokens + recipe["max_completion_length"]
    tokens = recipe["per_device_train_batch_size"] * longest
    # In bfloat16: one checkpoint per layer, and the values of one layer while it is computed again (about 12 vectors of
    # the hidden and 5 of the inner size). Divided weights add the whole output layer in float32.
    activations = 2 * tokens * (text.num_hidden_layers + 12) * text.hidden_size
    activations += 2 * tokens * 5 * text.intermediate_size
    activations += 4 * text.vocab_size * text.hidden_size if held < weights else 0
    cache = 2 * 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim  # bfloat16, of a token
    # At the end `best/` is loaded in bfloat16 for its figures; the trained weights are then on the CPU, or divided.
    final = 2 * weights + cache * longest * recipe["per_device_eval_batch_size"]
    final -= width * held if held == weights else 0
    parts = {
        "weights": width * held + (4 * lora if way == LORA else 0),
        "gradients": width * state,
        "optimizer": (12 if zero else 8) * state,  # two moments; with DeepSpeed the float32 copy
        "reference": 0.0 if way == LORA or not recipe["beta"] else width * held,
        "vLLM": recipe["vllm_gpu_memory_utilization"] * CARD,
        "activations": max(activations, final),
        "SAM 2": options.sam,
        "other": options.other,
    }
    return parts | {
        "total": sum(parts.values()),
        "(vLLM: weights)": 2 * weights,
        "(vLLM: cache)": completions / gpus * longest * cache,
    }


def forward(model, sequences: float, prompt: int, answer: int, image: int) -> tuple[float, float]:
    """Return the FLOPs of the language model and of the vision tower.

    A linear layer costs 2 FLOPs per weight and token.

    Args:
        model: from `qwen3_vl`.
        sequences: how many.
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
    model, recipe: dict, gpu: str, gpus: int, completions: int, options: argparse.Namespace
) -> dict[str, float]:
    """Estimate the seconds of each part of a LoRA step, and of an evaluation.

    Args:
        model: from `qwen3_vl`.
        recipe: its settings.
        gpu: a key of GPUS.
        gpus: number of GPUs.
        completions: completions of a step, on all GPUs together.
        options: assumptions of the command line.
    """
    bf16, fp32, bandwidth = (options.utilisation * peak for peak in GPUS[gpu])
    prompt, image = options.prompt + options.image_tokens, options.image_tokens
    language, tower = forward(model, completions, prompt, options.answer, image)
    # One forward pass for vLLM's correction and one for the reference. Then a forward pass, a second one because of
    # checkpointing, and a backward pass to the adapters, which costs the same. The tower is frozen.
    passes = 1 + (recipe["beta"] > 0)
    train = language * (passes + 3) + tower * (passes + 1)
    groups = completions / recipe["num_generations"] / gpus
    prefill = sum(forward(model, groups, prompt, 0, image))
    weights = 2 * count(model)
    # Greedy answers in bfloat16: by vLLM during the training, by Transformers of `best/` at its end.
    examples = options.examples / gpus
    read = weights / bandwidth * options.longest * examples / recipe["per_device_eval_batch_size"]
    return {
        "train": train / gpus / bf16,
        "generate": prefill / bf16 + options.longest * weights / bandwidth,
        "mask": groups * options.sam_flops / fp32 if "mask" in recipe["rewards"] else 0.0,
        "evaluation": sum(forward(model, examples, prompt, options.answer, image)) / bf16 + read,
    }


def row(cells: Iterable[object]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def main() -> None:
    """Print the assumptions and the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_tokens", type=int, default=300, help="640 x 480 pixels: a token is 32 x 32")
    parser.add_argument("--prompt", type=int, default=150, help="text tokens of a request")
    parser.add_argument("--answer", type=int, default=300, help="mean tokens of an answer")
    parser.add_argument("--longest", type=int, default=800, help="tokens of the longest answer of a batch")
    parser.add_argument("--examples", type=int, default=500, help="held-out examples")
    parser.add_argument("--utilisation", type=float, default=0.3, help="share of the peak FLOP/s and of the bandwidth")
    parser.add_argument("--other", type=float, default=3e9, help="bytes for CUDA, NCCL and fragments")
    options = parser.parse_args()

    sam = build_sam2("sam2.1/sam2.1_hiera_l").to("meta")
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        sam.forward_image(torch.empty(1, 3, 1024, 1024))
    options.sam, options.sam_flops = 4 * count(sam) + 2e9, counter.get_total_flops()  # 2 GB of activations
    print("assumed:", ", ".join(f"{name} {value:g}" for name, value in vars(options).items()))

    models = {name: qwen3_vl(name) for name in CONFIGS}
    recipes = {name: yaml.safe_load((TRAINING / "recipes" / f"{name}.yaml").read_text()) for name in RECIPES}
    gpus = {
        way: yaml.safe_load((TRAINING / "accelerate" / f"{name}.yaml").read_text())["num_processes"]
        for way, name in CONFIGURATIONS.items()
    }
    completions = {
        name: recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"] * gpus[LORA]
        for name, recipe in recipes.items()
    }
    print("\nparameters in billions:\n")
    print(row(["model", "all", "vision tower", "LoRA"]) + "\n|---|---:|---:|---:|")
    for name, recipe in zip(CONFIGS, recipes.values(), strict=False):
        counts = count(models[name]), count(models[name].model.visual), lora_parameters(models[name], recipe)
        print(row([name, *(f"{number / 1e9:.3f}" for number in counts)]))
    print(row(["SAM 2.1 large", f"{count(sam) / 1e9:.3f}", "", ""]))

    print("\nGB on each GPU:\n")
    lines = []
    for recipe in ("genseg_r1_4b", "genseg_r1_8b"):
        for way, number in gpus.items():
            parts = memory(models[RECIPES[recipe]], recipes[recipe], way, number, completions[recipe], options)
            lines.append(row([recipe, way, number, *(f"{value / 1e9:.1f}" for value in parts.values())]))
    print(row(["recipe", "way", "GPUs", *parts]) + "\n|---|---|" + "---:|" * (len(parts) + 1))
    print("\n".join(lines))

    print("\nseconds of a step and of an evaluation, and hours of the recipe:\n")
    columns = ["train", "generate", "mask", "evaluation", "evaluations", "hours", "of it held out"]
    print(row(["recipe", "GPUs", *columns]) + "\n|---|---|" + "---:|" * len(columns))
    for name, recipe in recipes.items():
        for gpu in GPUS:
            parts = seconds(models[RECIPES[name]], recipe, gpu, gpus[LORA], completions[name], options)
            step = parts["train"] + parts["generate"] + parts["mask"]
            evaluations = recipe["max_steps"] // recipe["eval_steps"] + 2  # the start and `best/` as it loads, too
            held_out = evaluations * parts["evaluation"] / 3600
            hours = recipe["max_steps"] * step / 3600 + held_out
            cells = [
                *(f"{value:.1f}" for value in parts.values()),
                evaluations,
                f"{hours:.1f}",
                f"{held_out / hours:.0%}",
            ]
            print(row([name, f"{gpus[LORA]} x {gpu}", *cells]))


if __name__ == "__main__":
    main()
