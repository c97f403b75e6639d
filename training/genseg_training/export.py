"""Write trained runs as checkpoint folders to load by name and to publish.

A folder has the files of `genseg_hub.publishing.writing`, and these of the training:

model.safetensors                  with LoRA adapters merged into it
adapter/                           the LoRA adapter, if one was trained
genseg.json                        also the Hub datasets of the training, and the share that rounding the merged
                                   weights takes from the LoRA update
recipe.yaml, logs/, evaluation/    recipe, log and figures of the run (written by `best`)
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from genseg_hub.options import ReasonerOptions
from genseg_hub.publishing import writing
from genseg_hub.publishing.writing import written_checkpoint
from transformers.integrations import deepspeed
from transformers.trainer import TRAINER_STATE_NAME

_DEFAULTS = ReasonerOptions()
ADAPTER_FILE, ADAPTER = "adapter_config.json", "adapter"
UPDATE, DATASETS = "lora_update", "datasets"  # in genseg.json
DIALECT = "genseg"  # in which every training of this package lets a checkpoint answer
_STORED = ("bfloat16", "float16", "float32")
_LIBRARIES = ("trl", "peft")


def export(
    trained: Path,
    folder: Path,
    segmenter: Path | str,
    base_model: str | None = None,
    dtype: str = "auto",
    options: ReasonerOptions = _DEFAULTS,
    datasets: Sequence[str] = (),
) -> None:
    """Write a checkpoint folder, in place of an earlier checkpoint.

    The folder is written beside its place and swapped in, so that it is whole at any time. Files of the earlier folder
    that do not belong to its weights are kept.

    Args:
        trained: folder with a model or a LoRA adapter and its processor, such as TRL's `checkpoint-N`.
        folder: folder of the checkpoint; made if it does not exist.
        segmenter: folder of a SAM 2 in this project's format, which is copied; or a Hub id, which genseg.json names.
        base_model: model that the training started from, for the model card.
        dtype: dtype of the written weights, such as "bfloat16"; "auto" keeps the trained one. An adapter is trained in
            float32, so "auto" then means float32.
        options: how the checkpoint is to be loaded, for genseg.json.
        datasets: Hub ids of the datasets that it was trained on, for the model card.

    Raises:
        FileNotFoundError: when there is no such model or segmenter.
        DiskFullError: the disk is full.
    """
    with written_checkpoint(folder) as new:
        write(trained, new, segmenter, base_model, dtype, options, datasets)


def write(
    trained: Path,
    folder: Path,
    segmenter: Path | str,
    base_model: str | None = None,
    dtype: str = "auto",
    options: ReasonerOptions = _DEFAULTS,
    datasets: Sequence[str] = (),
) -> None:
    """Write a checkpoint into an empty folder.

    See `export` for the arguments and the errors.
    """
    if not any((trained / file).is_file() for file in ("config.json", ADAPTER_FILE)):
        raise FileNotFoundError(f"there is no model in {trained}: train it first")
    if isinstance(segmenter, Path) and not segmenter.is_dir():
        raise FileNotFoundError(f"there is no segmenter {segmenter}: train it first")
    with alone(), torch.random.fork_rng(devices=[]):  # new adapters draw random values, which must not change the run
        model, lost = _load(trained, dtype)
    processor = transformers.AutoProcessor.from_pretrained(trained)
    more = {UPDATE: lost, DATASETS: list(datasets) or None}
    writing.write(folder, model, processor, segmenter, DIALECT, options, base_model, _LIBRARIES, more)
    if lost is not None:
        _write_adapter(trained, folder / ADAPTER, base_model)


def drop_torn(output: Path) -> None:
    """Remove checkpoints that a kill left half written.

    A whole one has the trainer's state, which TRL writes last.
    """
    for folder in output.glob("checkpoint-*"):
        if not re.fullmatch(r"checkpoint-\d+", folder.name) or not folder.is_dir():
            continue
        try:
            json.loads((folder / TRAINER_STATE_NAME).read_text())
        except (FileNotFoundError, ValueError):
            print(f"removing {folder}, which is incomplete")
            shutil.rmtree(folder)


def _load(trained: Path, dtype: str) -> tuple[transformers.PreTrainedModel, dict[str, float | str] | None]:
    """Return the model, and `lora_update` of genseg.json for an adapter."""
    chosen = dtype if dtype == "auto" else getattr(torch, dtype)
    load = transformers.AutoModelForImageTextToText.from_pretrained
    if not (trained / ADAPTER_FILE).is_file():
        return load(trained, dtype=chosen, use_safetensors=True), None
    from peft import PeftModel

    base = json.loads((trained / ADAPTER_FILE).read_text())["base_model_name_or_path"]
    # The update is small beside the weights: in bfloat16, most of it would be rounded away.
    adapted = PeftModel.from_pretrained(load(base, dtype=torch.float32, use_safetensors=True), trained)
    stored = "float32" if dtype == "auto" else dtype
    lost = {f"lost_in_{name}": round(share, 4) for name, share in lost_shares(adapted).items()}
    return adapted.merge_and_unload().to(getattr(torch, stored)), {"stored_in": stored, **lost}


@torch.no_grad()
def lost_shares(adapted: torch.nn.Module) -> dict[str, float]:
    """Return the share of a LoRA update that rounding takes away, by dtype.

    The merged weights are rounded. The share is |rounded - merged| / |merged - base| over all adapted layers together,
    with Frobenius norms: 0 keeps the update, and at 1 the error is as large as the update.

    Args:
        adapted: a PeftModel with one adapter, which is not merged, in float32.
    """
    from peft.tuners.lora import LoraLayer

    update, errors = 0.0, dict.fromkeys(_STORED, 0.0)
    for layer in adapted.modules():
        if not isinstance(layer, LoraLayer):
            continue
        weight = layer.get_base_layer().weight
        for adapter in layer.active_adapters:
            delta = layer.get_delta_weight(adapter)  # type: ignore[operator]
            merged = weight + delta
            update += delta.double().square().sum().item()
            for name in _STORED:
                errors[name] += (merged.to(getattr(torch, name)) - merged).double().square().sum().item()
    return {name: (error / update) ** 0.5 if update else 0.0 for name, error in errors.items()}


def _write_adapter(trained: Path, folder: Path, base_model: str | None) -> None:
    """Copy an adapter, with its base model's name in place of a folder."""
    folder.mkdir()
    shutil.copy(trained / "adapter_model.safetensors", folder)
    settings = json.loads((trained / ADAPTER_FILE).read_text())
    settings["base_model_name_or_path"] = base_model or Path(settings["base_model_name_or_path"]).name
    (folder / ADAPTER_FILE).write_text(json.dumps(settings, indent=2) + "\n")


@contextmanager
def alone() -> Iterator[None]:
    """Load models whole in this process.

    With ZeRO-3, Transformers would divide every loaded model among all processes and wait for them.
    """
    config = deepspeed._hf_deepspeed_config_weak_ref and deepspeed._hf_deepspeed_config_weak_ref()
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if config is not None:
            deepspeed.set_hf_deepspeed_config(config)
