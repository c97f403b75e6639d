"""Checks of a checkpoint's folder: required files, and settings that could run a stranger's code.

No function here asks the network or loads a model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genseg_hub.checkpoints.settings import CONFIG_FILE, read_config, read_settings
from genseg_hub.errors import CheckpointError
from genseg_hub.options import ATTENTIONS


def check_folder(folder: Path, name: str, with_reasoner: bool = True, dialect: str | None = None) -> dict[str, str]:
    """Return the settings `dialect` and `segmenter` of a folder with a usable reasoner; ask no network.

    Args:
        folder: of the reasoner's files.
        name: of the checkpoint, for its known settings and for messages.
        with_reasoner: False if a server has the reasoner.
        dialect: that the user named, in place of the checkpoint's own.

    Raises:
        CheckpointError: files are missing or malformed, or no dialect is known for the checkpoint.
    """
    if with_reasoner:
        check_reasoner(folder, name)
    settings = read_settings(folder, name, dialect)
    return {"dialect": settings.dialect, "segmenter": settings.segmenter}


def check_reasoner(folder: Path, name: str) -> None:
    """Raise CheckpointError unless a folder holds the whole safetensors weights of a reasoner; ask no network."""
    if not (folder / CONFIG_FILE).is_file() or not list(folder.glob("*.safetensors")):
        raise CheckpointError(f"{name} has no config.json with .safetensors weights; other formats are not loaded")
    check_config(folder / CONFIG_FILE, name)
    for index in folder.glob("*.safetensors.index.json"):
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
            missing = {shard for shard in shards if not (folder / shard).is_file()}
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise CheckpointError(f"{index.name} of {name} is damaged ({error!r}); pull it again") from error
        if missing:
            raise CheckpointError(f"{name} lacks {', '.join(sorted(missing))}; pull it again with network access")


def check_segmenter(folder: Path) -> None:
    """Raise CheckpointError unless a folder holds a segmenter's configuration and weights."""
    missing = [file for file in ("config.json", "model.safetensors") if not (folder / file).is_file()]
    if missing:
        raise CheckpointError(f"the segmenter {folder} lacks {' and '.join(missing)}")
    check_config(folder / CONFIG_FILE, f"the segmenter {folder}")


def check_config(file: Path, name: str) -> None:
    """Raise CheckpointError when a configuration cannot be read, or could load a stranger's code."""
    for attention in _attentions(read_config(file, name)):
        if attention is not None and attention not in ATTENTIONS:
            raise CheckpointError(
                f"{file.name} of {name} asks for the attention {attention!r}, which may be code of a stranger; if you "
                f"trust the checkpoint, copy it and take that out, or write one of {', '.join(ATTENTIONS)}"
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
