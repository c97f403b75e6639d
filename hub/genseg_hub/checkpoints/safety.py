"""Check a checkpoint's folder for missing files and for harmful content.

Harmful are settings and files with which a stranger could run code or read other files. No function here asks the
network or loads a model. `trial` runs files that can only be judged by running them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

from genseg_hub.checkpoints.settings import CONFIG_FILE, check_no_pointer, read_config, read_settings
from genseg_hub.errors import CheckpointError
from genseg_hub.options import ATTENTIONS

ADAPTER_FILE, GENERATION_FILE = "adapter_config.json", "generation_config.json"
WEIGHTS_FILE = "model.safetensors"
_READ = (".json", ".safetensors", ".txt", ".jinja", ".pt")  # files that are read to load a checkpoint
_WHOLE_NUMBERS = ("max_new_tokens", "max_length", "num_beams", "num_return_sequences")


def check_folder(folder: Path, name: str, with_reasoner: bool = True, dialect: str | None = None) -> dict[str, str]:
    """Check a reasoner's folder without a request; return dialect and segmenter.

    Args:
        folder: folder of the reasoner's files.
        name: name of the checkpoint, for its known settings and for messages.
        with_reasoner: False if a server has the reasoner.
        dialect: dialect that the user named, in place of the checkpoint's own.

    Raises:
        CheckpointError: files are missing or malformed, or no dialect is known for the checkpoint.
    """
    if with_reasoner:
        check_reasoner(folder, name)
    settings = read_settings(folder, name, dialect)
    return {"dialect": settings.dialect, "segmenter": settings.segmenter}


def check_reasoner(folder: Path, name: str) -> None:
    """Raise CheckpointError unless a folder holds all of a reasoner's safetensors.

    The check makes no request.
    """
    check_files(folder, name)
    if (folder / ADAPTER_FILE).is_file():
        raise CheckpointError(
            f"{name} has the files of a LoRA adapter, which Transformers would add to the weights: merge an adapter "
            "that is not merged yet with PEFT's merge_and_unload(), and remove "
            f"{ADAPTER_FILE} and the adapter's weights"
        )
    if not (folder / CONFIG_FILE).is_file() or not list(folder.glob("*.safetensors")):
        raise CheckpointError(f"{name} has no config.json with .safetensors weights; other formats are not loaded")
    if not any((folder / file).is_file() for file in (WEIGHTS_FILE, f"{WEIGHTS_FILE}.index.json")):
        raise CheckpointError(
            f"{name} has neither {WEIGHTS_FILE} nor {WEIGHTS_FILE}.index.json, by which Transformers finds the "
            "weights: save the model again with save_pretrained()"
        )
    check_config(folder / CONFIG_FILE, name)
    if (folder / GENERATION_FILE).is_file():
        _check_generation(folder / GENERATION_FILE, name)
    _check_indexes(folder, name)


def _check_indexes(folder: Path, name: str) -> None:
    """Raise CheckpointError unless every index names whole files of its folder."""
    for index in folder.glob("*.safetensors.index.json"):
        shards = _shards(index, name)
        outside = sorted(shard for shard in shards if not _is_bare(shard))
        if outside:
            raise CheckpointError(
                f"{index.name} of {name} names {outside[0]!r}, which is no file of its own folder; do not use it, or "
                "mend the index"
            )
        missing = sorted(shard for shard in shards if not (folder / shard).is_file())
        if missing:
            raise CheckpointError(f"{name} lacks {', '.join(missing)}; pull it again with network access")


def check_segmenter(folder: Path) -> None:
    """Raise CheckpointError unless a folder has a segmenter's config and weights."""
    missing = [file for file in ("config.json", "model.safetensors") if not (folder / file).is_file()]
    if missing:
        raise CheckpointError(f"the segmenter {folder} lacks {' and '.join(missing)}; pull or copy it again")
    check_files(folder, f"the segmenter {folder}")
    check_config(folder / CONFIG_FILE, f"the segmenter {folder}")
    _check_indexes(folder, f"the segmenter {folder}")


def check_config(file: Path, name: str) -> None:
    """Raise CheckpointError for a config that is unreadable or loads foreign code."""
    config = read_config(file, name)
    if "transformers_weights" in config:
        raise CheckpointError(
            f"{file.name} of {name} names its weights file (transformers_weights), which may lie anywhere; take it out"
        )
    try:
        attentions = list(_attentions(config))
    except RecursionError as error:
        raise CheckpointError(f"{file.name} of {name} is nested too deep; mend it or pull it again") from error
    for attention in attentions:
        if attention is not None and attention not in ATTENTIONS:
            raise CheckpointError(
                f"{file.name} of {name} asks for the attention {attention!r}, which may be code of a stranger; if you "
                f"trust the checkpoint, copy it and take that out, or write one of {', '.join(ATTENTIONS)}"
            )


def check_files(folder: Path, name: str) -> None:
    """Raise CheckpointError for links out of a folder and for git-lfs pointers.

    Git leaves such a pointer in place of a large file. Links within huggingface_hub's cache are allowed.

    Args:
        folder: folder of a reasoner or a segmenter; folders inside it are not looked into.
        name: name of the checkpoint, for messages.
    """
    inside = _cache_of(folder.resolve()) or folder.resolve()
    for file in sorted(folder.iterdir()):
        if file.suffix not in _READ or not file.is_file():
            continue
        if not file.resolve().is_relative_to(inside):
            raise CheckpointError(f"{file} is a link that leads out of {folder}: put a copy in its place")
        check_no_pointer(file, name)


def _cache_of(folder: Path) -> Path | None:
    """Return the cache of huggingface_hub in which a folder lies.

    The folder is CACHE/models--owner--name/snapshots/COMMIT.
    """
    for part in (folder, *folder.parents):
        if part.parent.name == "snapshots" and part.parents[1].name.startswith("models--"):
            return part.parents[2]
    return None


def _shards(index: Path, name: str) -> set[str]:
    """Return the weights files that an index names."""
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if not all(isinstance(shard, str) for shard in shards):
            raise TypeError("a file's name is no text")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise CheckpointError(f"{index.name} of {name} is damaged ({error!r}); pull it again") from error
    return shards


def _is_bare(name: str) -> bool:
    """Return whether a name, on any system, is the name of a file and no path."""
    return bool(name) and "\0" not in name and PureWindowsPath(name).name == name and name not in (".", "..")


def _check_generation(file: Path, name: str) -> None:
    """Raise CheckpointError for limits of an answer that no model can take.

    Beams and further answers are not refused here, because `reasoners.loading` asks for one greedy answer.
    """
    config = read_config(file, name)
    for key in _WHOLE_NUMBERS:
        value = config.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise CheckpointError(
                f"{file.name} of {name} has {key} {value!r}, not a whole number of at least 1; mend it"
            )


def _attentions(part: Any, named: bool = False) -> Iterator[Any]:
    """Yield every attention that a configuration or one of its parts names."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield from _attentions(value, named or "attn_implementation" in key)
    elif isinstance(part, list):
        for value in part:
            yield from _attentions(value, named)
    elif named:
        yield part
