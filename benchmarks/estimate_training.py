"""Estimate memory and time of the recipes for GPUs; nothing here ran on a GPU.

python benchmarks/estimate_training.py

The models are built from their configurations without memory for weights, so parameters are counted, not guessed. Batch
sizes, steps and ranks come from the recipes, numbers of GPUs from the accelerate configurations. Everything else is
assumed: it is printed first, and an option changes it. Communication, loading, saving and work of the CPU are not
counted. `genseg reproduce --plan` uses the same arithmetic (`genseg_training.estimates`).
"""

import argparse
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import yaml
from genseg_training import estimates
from genseg_training.estimates import FSDP2, GPUS, LORA, ZERO2, ZERO3, Assumptions

TRAINING = Path(__file__).resolve().parent.parent / "training"
# genseg_r1_g_8b starts from the result of genseg_r1_8b, which has the same size.
RECIPES = {"genseg_r1_4b": "Qwen/Qwen3-VL-4B-Instruct"} | dict.fromkeys(
    ("genseg_r1_8b", "genseg_r1_g_8b"), "Qwen/Qwen3-VL-8B-Instruct"
)
SMOKE = {"genseg_smoke_2b": "Qwen/Qwen3-VL-2B-Instruct"}  # on one GPU
CONFIGURATIONS = {LORA: "multi_gpu", FSDP2: "fsdp2", ZERO2: "deepspeed_zero2", ZERO3: "deepspeed_zero3"}


def row(cells: Iterable[object]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def main() -> None:
    """Print the assumptions and the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Assumptions):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    assumed = Assumptions(**vars(parser.parse_args()))
    print("assumed:", ", ".join(f"{field.name} {getattr(assumed, field.name):g}" for field in fields(assumed)))
    print("SAM 2.1 large: {:,} parameters, {:,} bytes on a GPU, {:,} FLOP for an image".format(*estimates.sam2()))

    every = RECIPES | SMOKE
    recipes = {name: yaml.safe_load((TRAINING / "recipes" / f"{name}.yaml").read_text()) for name in every}
    models = {name: estimates.qwen3_vl(base) for name, base in every.items()}
    gpus = {
        way: yaml.safe_load((TRAINING / "accelerate" / f"{name}.yaml").read_text())["num_processes"]
        for way, name in CONFIGURATIONS.items()
    }
    of_lora = {name: 1 if name in SMOKE else gpus[LORA] for name in every}
    completions = {
        name: recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"] * of_lora[name]
        for name, recipe in recipes.items()
    }
    print("\nparameters in billions:\n")
    print(row(["model", "all", "vision tower", "LoRA"]) + "\n|---|---:|---:|---:|")
    for name in (*SMOKE, "genseg_r1_4b", "genseg_r1_8b"):
        model = models[name]
        counts = (
            estimates.count(model),
            estimates.count(model.model.visual),
            estimates.lora_parameters(model, recipes[name]),
        )
        print(row([every[name], *(f"{number / 1e9:.3f}" for number in counts)]))

    print("\nGB on each GPU:\n")
    lines = []
    for name in (*SMOKE, "genseg_r1_4b", "genseg_r1_8b"):
        for way, number in {LORA: 1}.items() if name in SMOKE else gpus.items():
            parts = estimates.memory(models[name], recipes[name], way, number, completions[name], assumed)
            lines.append(row([name, way, number, *(f"{value / 1e9:.1f}" for value in parts.values())]))
    print(row(["recipe", "way", "GPUs", *parts]) + "\n|---|---|" + "---:|" * (len(parts) + 1))
    print("\n".join(lines))

    print("\nseconds of a step and of an evaluation, hours of the recipe, and GB that its folder holds at the end:\n")
    columns = ["train", "generate", "mask", "evaluation", "evaluations", "hours", "of it held out", "GB of disk"]
    print(row(["recipe", "GPUs", *columns]) + "\n|---|---|" + "---:|" * len(columns))
    for name, recipe in recipes.items():
        for gpu in GPUS:
            parts = estimates.seconds(models[name], recipe, gpu, of_lora[name], completions[name], assumed)
            hours, held_out = estimates.hours(recipe, parts)
            cells = [
                *(f"{value:.1f}" for value in parts.values()),
                estimates.evaluations(recipe),
                f"{hours:.1f}",
                f"{held_out / hours:.0%}",
                f"{estimates.disk(models[name], recipe) / 1e9:.0f}",
            ]
            print(row([name, f"{of_lora[name]} x {gpu}", *cells]))


if __name__ == "__main__":
    main()
