"""The grammar of a checkpoint's name: `owner/name@revision+segmenter`, "nano", or a folder.

This module knows names and whether a folder is there. It does not look into folders.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import errors
from huggingface_hub.utils import validate_repo_id

from genseg_hub.checkpoints.catalog import EMBEDDED, KNOWN, NANO, SAM2_REPOSITORIES
from genseg_hub.errors import CheckpointError

SEGMENTER_FILES = ["config.json", "model.safetensors", "processor_config.json", "preprocessor_config.json"]


def split_revision(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """The name and the revision that `owner/name@revision` or two arguments give; paths are left alone.

    Raises:
        CheckpointError: a revision given twice, or an empty one.
    """
    bare, at, given = name.partition("@")
    if not at or name.startswith((".", "/", "~")) or is_folder(name):
        return name, revision
    if revision is not None or not given:
        raise CheckpointError(f"{name!r} must be owner/name@revision, with the revision given once")
    return bare, given


def split_segmenter(name: str, segmenter: str | None = None) -> tuple[str, str | None]:
    """The checkpoint and the segmenter that `checkpoint+segmenter` or two arguments give; folders are left alone.

    Raises:
        CheckpointError: a segmenter given twice, or an empty one.
    """
    if "+" not in name or is_folder(name):
        return name, segmenter
    marks = [i for i, character in enumerate(name) if character == "+"]
    mark = next((i for i in marks if is_folder(name[:i])), marks[0])  # no Hub id has one
    if segmenter or mark == len(name) - 1:
        raise CheckpointError(f"{name!r} must be checkpoint+segmenter, with the segmenter given once")
    return name[:mark], name[mark + 1 :]


def check_name(name: str) -> None:
    """Raise CheckpointError when a name cannot be a checkpoint; asks neither disk cache nor network."""
    name, segmenter = split_segmenter(name)
    name, _ = split_revision(name)
    if local_folder(name) is None:
        _check_id(name)
    if segmenter and segmenter_folder(segmenter) is None:
        _check_id(segmenter_files(segmenter)[0])


def _check_id(name: str) -> None:
    try:
        validate_repo_id(name)
    except errors.HFValidationError as error:
        raise CheckpointError(f"{name!r} is not a Hub id (owner/name)") from error


def local_folder(name: str) -> Path | None:
    if name in EMBEDDED:
        return EMBEDDED[name]
    if is_folder(name):
        return Path(name).expanduser()
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_local:
        raise CheckpointError(f"there is no folder {name}; give an existing folder, a Hub id (owner/name) or {NANO!r}")
    if "/" not in name:
        raise CheckpointError(f"there is no checkpoint {name!r}; known names: {', '.join(k.name for k in KNOWN)}")
    return None


def is_folder(name: str) -> bool:
    try:
        return bool(name) and Path(name).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{name[:80]!r} is not a folder: {error}") from error


def segmenter_folder(name: str, own: Path | None = None) -> Path | None:
    """The folder on this disk of a segmenter, None for one of the Hub.

    Args:
        name: what a checkpoint in the folder `own` calls its segmenter, or what the user chose.
    """
    if name == NANO and (own is None or own in EMBEDDED.values()):
        return EMBEDDED[NANO] / "segmenter"
    if own is None:
        return Path(name).expanduser() if is_folder(name) else None
    # A checkpoint of a stranger may name nothing outside its folder.
    folder = own / name
    return folder if is_folder(str(folder)) and folder.resolve().is_relative_to(own.resolve()) else None


def segmenter_files(name: str) -> tuple[str, str | None, list[str]]:
    """Hub id, revision and files of a segmenter that is no folder."""
    hub_id, revision = split_revision(name)
    if name.startswith((".", "/", "~")) or hub_id.count("/") != 1:
        raise CheckpointError(f"the segmenter {name!r} is neither a usable folder nor a Hub id (owner/name)")
    known = SAM2_REPOSITORIES.get(hub_id)
    return hub_id, revision, [known[1]] if known else SEGMENTER_FILES
