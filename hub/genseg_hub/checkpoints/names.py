"""Parse checkpoint names: "nano", `owner/name@revision+segmenter` and folders.

This module looks whether a folder exists, but never into it.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import errors
from huggingface_hub.utils import validate_repo_id

from genseg_hub.checkpoints.catalog import AGENT, EMBEDDED, KNOWN, NANO, SAM2_REPOSITORIES, SAM3
from genseg_hub.errors import CheckpointError

SEGMENTER_FILES = ["config.json", "model.safetensors", "processor_config.json", "preprocessor_config.json"]


def split_revision(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """Split `owner/name@revision` into name and revision; return paths unchanged.

    Args:
        name: name of a checkpoint or a segmenter.
        revision: given beside the name; then the name must have none.

    Raises:
        CheckpointError: the revision is given twice, or empty.
    """
    bare, at, given = name.partition("@")
    if not at or name.startswith((".", "/", "~")) or is_folder(name):
        return name, revision
    if revision is not None or not given:
        raise CheckpointError(f"{name!r} must be owner/name@revision, with the revision given once")
    return bare, given


def split_segmenter(name: str, segmenter: str | None = None) -> tuple[str, str | None]:
    """Split `checkpoint+segmenter` into both; return folders unchanged.

    Args:
        name: name of a checkpoint.
        segmenter: given beside the name; then the name must have none.

    Raises:
        CheckpointError: the segmenter is given twice, or empty.
    """
    if "+" not in name or is_folder(name):
        return name, segmenter
    marks = [i for i, character in enumerate(name) if character == "+"]
    mark = next((i for i in marks if is_folder(name[:i])), marks[0])  # a folder may contain +, a Hub id never does
    if segmenter or mark == len(name) - 1:
        raise CheckpointError(f"{name!r} must be checkpoint+segmenter, with the segmenter given once")
    return name[:mark], name[mark + 1 :]


def check_name(name: str) -> None:
    """Raise CheckpointError when a name cannot be a checkpoint.

    The check asks neither the cache nor the network.
    """
    name, segmenter = split_segmenter(name)
    name, _ = split_revision(name)
    if local_folder(name) is None:
        _check_id(name)
    if segmenter and segmenter_folder(segmenter) is None:
        _check_id(segmenter_files(segmenter)[0])


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a Hub id, owner/name."""
    try:
        validate_repo_id(name)
    except errors.HFValidationError:
        return False
    return name.count("/") == 1


def _check_id(name: str) -> None:
    if not is_hub_id(name):
        raise CheckpointError(f"{name!r} is not a Hub id (owner/name); check the spelling")


def local_folder(name: str) -> Path | None:
    """Return the folder of a checkpoint on this disk, None for a Hub id.

    Raises:
        CheckpointError: the name is neither, or the folder does not exist.
    """
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
    """Return whether a name is the path of a folder.

    Raises:
        CheckpointError: the name cannot be a path, because it is too long or has a user that does not exist.
    """
    try:
        return bool(name) and Path(name).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{name[:80]!r} is not a folder: {error}") from error


def split_agent(name: str) -> tuple[str, bool]:
    """Return the name of a segmenter's files, and whether the SAM 3 agent uses them.

    "sam3-agent" is the agent with facebook/sam3, and "sam3-agent:NAME" the agent with another SAM 3.

    Raises:
        CheckpointError: nothing follows the colon.
    """
    kind, colon, sam3 = name.partition(":")
    if kind != AGENT:
        return name, False
    if colon and not sam3:
        raise CheckpointError(f"{name!r} must be {AGENT}, or {AGENT}: and a Hub id or folder of SAM 3")
    return sam3 or SAM3, True


def segmenter_folder(name: str, own: Path | None = None) -> Path | None:
    """Return the folder of a segmenter on this disk, None for a segmenter of the Hub.

    Args:
        name: name of the segmenter, from a checkpoint's settings or from the user.
        own: the checkpoint's folder, if the name is from its settings.
    """
    name, _ = split_agent(name)
    if name == NANO and (own is None or own in EMBEDDED.values()):
        return EMBEDDED[NANO] / "segmenter"
    if own is None:
        return Path(name).expanduser() if is_folder(name) else None
    # A stranger's checkpoint may name no folder outside its own.
    folder = own / name
    return folder if is_folder(str(folder)) and folder.resolve().is_relative_to(own.resolve()) else None


def segmenter_files(name: str) -> tuple[str, str | None, list[str]]:
    """Return Hub id, revision and files of a segmenter that is no folder.

    Raises:
        CheckpointError: the name is no Hub id.
    """
    name, _ = split_agent(name)
    hub_id, revision = split_revision(name)
    if name.startswith((".", "/", "~")) or hub_id.count("/") != 1:
        raise CheckpointError(
            f"the segmenter {name!r} is neither a usable folder nor a Hub id; name another, and a folder by its "
            "absolute path"
        )
    known = SAM2_REPOSITORIES.get(hub_id)
    return hub_id, revision, [known[1]] if known else SEGMENTER_FILES
