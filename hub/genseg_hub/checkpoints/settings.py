"""Settings of a checkpoint: dialect, segmenter, and its author's options.

`genseg.json` states them. Without it, the family of the checkpoint decides: the name of a tuned checkpoint, then the
`model_type` in config.json. A type without a known dialect is refused, because another family's coordinates would give
wrong masks without an error.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genseg_hub import dialects
from genseg_hub.checkpoints.catalog import DEFAULT_SEGMENTER, ITSELF, KNOWN, KnownCheckpoint
from genseg_hub.errors import CheckpointError
from genseg_hub.options import ReasonerOptions, pick

SETTINGS_FILE = "genseg.json"
CONFIG_FILE = "config.json"
# Types of config.json that take words: SAM 3 as Transformers saves it. They have no dialect and no other segmenter.
WORD_TYPES = ("sam3", "sam3_video")
_NOT_READ = ("dialect", "device_map", "backend")  # the dialect is read apart, the others belong to a machine
_LFS = b"version https://git-lfs"  # how the pointer begins that git leaves in place of a large file
_WAY_OUT = 'name a dialect (--dialect, the field "Dialect" of a form, or "dialect" in genseg.json): '


@dataclass(frozen=True)
class Settings:
    """Settings of a checkpoint.

    Attributes:
        dialect: name of the dialect; "" for SAM 3, which takes words.
        segmenter: the checkpoint's own segmenter; ITSELF for SAM 3.
        options: options that its author found right; without `dialect`, `device_map` and `backend`.
        note: how the dialect was found, if that may surprise; "" otherwise.
    """

    dialect: str
    segmenter: str
    options: ReasonerOptions = field(default_factory=ReasonerOptions)
    note: str = ""


def read_settings(folder: Path, name: str, dialect: str | None = None, check_dialect: bool = True) -> Settings:
    """Return the settings of a checkpoint.

    Args:
        folder: folder with `genseg.json` and `config.json`, which may be missing.
        name: name of the checkpoint: a Hub id, a path, or the name on a server.
        dialect: dialect that the user named; it counts before all others.
        check_dialect: False to return the dialect "" in place of an error.

    Raises:
        CheckpointError: a file is malformed, names an unknown dialect or an impossible option, or no dialect is known
            for the checkpoint.
    """
    stored = _stored(folder / SETTINGS_FILE, name)
    if takes_words(folder, name):
        if dialect or "dialect" in stored:
            raise CheckpointError(
                f"{name} is SAM 3, which takes words and has no dialect; leave {dialect or stored['dialect']!r} out"
            )
        return Settings("", ITSELF)
    known = _known(name)
    segmenter = str(stored.get("segmenter") or (known.segmenter if known else DEFAULT_SEGMENTER))
    try:
        options = pick(ReasonerOptions, {k: v for k, v in stored.items() if k not in _NOT_READ})
    except ValueError as error:
        raise CheckpointError(f"{SETTINGS_FILE} of {name} has an impossible option: {error}; mend it") from error
    note = ""
    if dialect is None and "dialect" in stored:
        dialect = str(stored["dialect"])
        if dialect not in dialects.names():
            raise CheckpointError(
                f"{name} speaks the unknown dialect {dialect!r}; upgrade fiftyone-genseg, or name one of "
                f"{', '.join(dialects.names())}"
            )
    elif dialect is None:
        try:
            dialect, note = _of_family(folder / CONFIG_FILE, name, known)
        except CheckpointError:
            if check_dialect:
                raise
            dialect = ""
    return Settings(dialect, segmenter, options, note)


def takes_words(folder: Path, name: str) -> bool:
    """Return whether a folder holds SAM 3, which takes words, rather than a reasoner.

    Raises:
        CheckpointError: config.json cannot be read.
    """
    file = folder / CONFIG_FILE
    return file.is_file() and read_config(file, name).get("model_type") in WORD_TYPES


def read_config(file: Path, name: str) -> dict[str, Any]:
    """Return a configuration file.

    Raises:
        CheckpointError: the file is no JSON object.
    """
    check_no_pointer(file, name)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"{file.name} of {name} cannot be read ({error}); mend it or pull it again") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{file.name} of {name} cannot be read (no JSON object); mend it or pull it again")
    return config


def check_no_pointer(file: Path, name: str) -> None:
    """Raise CheckpointError when a file is a git-lfs pointer.

    Git leaves such a pointer in place of a large file.
    """
    with file.open("rb") as stream:
        is_pointer = stream.read(len(_LFS)) == _LFS
    if is_pointer:
        raise CheckpointError(
            f"{file.name} of {name} is a git-lfs pointer and not the file itself: run `git lfs pull` in its folder, or "
            "download the checkpoint with `genseg pull`"
        )


def _stored(file: Path, name: str) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return {key: value for key, value in stored.items() if value is not None}
    except (ValueError, AttributeError, RecursionError, OSError) as error:
        raise CheckpointError(f"{file.name} of {name} is not a JSON object ({error}); mend or remove it") from error


def _of_family(config: Path, name: str, known: KnownCheckpoint | None) -> tuple[str, str]:
    """Return the dialect of a checkpoint's family, and a note."""
    model_type = str(read_config(config, name).get("model_type") or "") if config.is_file() else ""
    by_type = dialects.of_model_type(model_type) if model_type else dialects.of_name(name)
    if known and (by_type is None or (by_type == "qwen2_5_vl" and _is_tuned(known))):
        exact = name == known.name
        return known.dialect, "" if exact else f"{name} has the name of {known.name}, so its dialect is {known.dialect}"
    if by_type is None:
        family = f"is of the type {model_type!r}" if model_type else "does not say its type in config.json"
        raise CheckpointError(
            f"{name} {family}, and no dialect is known for it. "
            f"Known types: {', '.join(sorted(dialects.model_types()))}. "
            f"If you know how it answers, {_WAY_OUT}{', '.join(dialects.names())}"
        )
    if by_type == "qwen2_5_vl":
        others = ", ".join(sorted({known.dialect for known in KNOWN if _is_tuned(known)}))
        return by_type, f"{name} is read as an untuned Qwen2.5-VL; if it was tuned, name its dialect: {others}"
    return by_type, ""


def _known(name: str) -> KnownCheckpoint | None:
    """Return the known checkpoint of a name.

    A tuned checkpoint is also known by its name inside a name or at the end of a path.
    """
    exact = next((known for known in KNOWN if known.name == name), None)
    if exact:
        return exact
    end = "/".join(Path(name).parts[-2:]).lower()
    return next((known for known in KNOWN if _is_tuned(known) and _family(known).search(end)), None)


def _is_tuned(known: KnownCheckpoint) -> bool:
    return "/" in known.name and bool(known.dialect) and dialects.get_dialect(known.dialect).TUNED


def _family(known: KnownCheckpoint) -> re.Pattern[str]:
    """Return the letters that the names of a checkpoint's family share.

    The size is not among them, because a 3B answers as the 7B does.
    """
    words = re.sub(r"-\d+B$", "", known.name.rpartition("/")[2]).lower().split("-")
    return re.compile(rf"(?<![a-z0-9]){'[^a-z0-9]?'.join(words)}(?![a-z0-9])")
