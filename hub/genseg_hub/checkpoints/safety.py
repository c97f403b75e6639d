"""Checks of a checkpoint's folder: required files, and settings that could run a stranger's code.

No function here asks the network or loads a model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genseg_hub import dialects
from genseg_hub.checkpoints.catalog import DEFAULT_DIALECT, DEFAULT_SEGMENTER, KNOWN
from genseg_hub.errors import CheckpointError

SETTINGS_FILE = "genseg.json"
# With the package `kernels`, Transformers would download any other attention from the Hub and run its code.
_ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


def check_folder(folder: Path, name: str, with_reasoner: bool = True) -> dict[str, str]:
    """Return the settings `dialect` and `segmenter` of a folder with a usable reasoner; ask no network.

    Args:
        folder: of the reasoner's files.
        name: of the checkpoint, for its known settings and for messages.
        with_reasoner: False if a server has the reasoner.

    Raises:
        CheckpointError: files are missing or malformed.
    """
    if not with_reasoner:
        return read_settings(folder / SETTINGS_FILE, name)
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise CheckpointError(f"{name} has no config.json with .safetensors weights; other formats are not loaded")
    _check_config(folder / "config.json", name)
    for index in folder.glob("*.safetensors.index.json"):
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
            missing = {shard for shard in shards if not (folder / shard).is_file()}
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise CheckpointError(f"{index.name} of {name} is damaged ({error!r}); pull it again") from error
        if missing:
            raise CheckpointError(f"{name} lacks {', '.join(sorted(missing))}; pull it again with network access")
    return read_settings(folder / SETTINGS_FILE, name)


def check_segmenter(folder: Path) -> None:
    """Raise CheckpointError unless a folder holds a segmenter's configuration and weights."""
    missing = [file for file in ("config.json", "model.safetensors") if not (folder / file).is_file()]
    if missing:
        raise CheckpointError(f"the segmenter {folder} lacks {' and '.join(missing)}")
    _check_config(folder / "config.json", f"the segmenter {folder}")


def read_settings(file: Path, name: str) -> dict[str, str]:
    """Return the settings `dialect` and `segmenter` of a checkpoint, with defaults for missing ones.

    Args:
        file: the checkpoint's `genseg.json`, which may be missing.
        name: of the checkpoint, for its known settings and for messages.

    Raises:
        CheckpointError: the file is malformed, or names an unknown dialect.
    """
    known = next((known for known in KNOWN if known.name == name), None)
    settings = {
        "dialect": known.dialect if known else DEFAULT_DIALECT,
        "segmenter": known.segmenter if known else DEFAULT_SEGMENTER,
    }
    if file.is_file():
        try:
            settings |= {key: str(value) for key, value in json.loads(file.read_text()).items() if key in settings}
        except (ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{SETTINGS_FILE} of {name} is not a JSON object ({error}); mend or remove it"
            ) from error
    if settings["dialect"] not in dialects.names():
        raise CheckpointError(
            f"{name} speaks the dialect {settings['dialect']!r}, known are {', '.join(dialects.names())}; "
            "upgrade fiftyone-genseg"
        )
    return settings


def _check_config(file: Path, name: str) -> None:
    """Raise CheckpointError when a configuration cannot be read, or could load a stranger's code."""
    try:
        asked = list(_attentions(json.loads(file.read_text())))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file.name} of {name} cannot be read ({error}); mend it or pull it again") from error
    for attention in asked:
        if attention is not None and attention not in _ATTENTIONS:
            raise CheckpointError(
                f"{file.name} of {name} asks for the attention {attention!r}, which may be code of a stranger; if you "
                f"trust the checkpoint, copy it and take that out, or write one of {', '.join(_ATTENTIONS)}"
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
