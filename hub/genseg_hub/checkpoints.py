"""Names of checkpoints and the files behind them.

A checkpoint is a name that resolves to a reasoner, a segmenter and a dialect: `nano`, a Hub id or
a local folder, each also with another segmenter: `name+segmenter`. This module loads nothing into
memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub as hub
from huggingface_hub import constants, errors
from huggingface_hub.utils import validate_repo_id

from genseg_hub import dialects
from genseg_hub.downloads import CheckpointError, download, dry_run, explained, snapshot_of
from genseg_hub.known import DEFAULT_DIALECT, DEFAULT_SEGMENTER, EMBEDDED, KNOWN, NANO, SAM2_REPOSITORIES

SETTINGS_FILE = "genseg.json"
# Everything a reasoner needs and nothing that can carry code.
_REASONER_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "segmenter/*"]
_SEGMENTER_FILES = ["config.json", "model.safetensors", "processor_config.json", "preprocessor_config.json"]
# Of the same repository, what is needed where a server has the reasoner's weights; a segmenter is a sub-folder.
_OTHER_FILES = [SETTINGS_FILE, "config.json", "generation_config.json", *(f"*/{file}" for file in _SEGMENTER_FILES)]

# Transformers fetches any other attention from the Hub, as code to be run, where the package `kernels` is installed.
_ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


@dataclass(frozen=True)
class Checkpoint:
    """Where the parts of a checkpoint are on this disk.

    Attributes:
        name: as the user gave it, without a revision and a segmenter.
        reasoner: folder of the VLM and its processor.
        segmenter: folder in this project's or in Transformers' format, or a weights file of
            SAM2_REPOSITORIES.
        segmenter_config: configuration in the sam2 package; None when the folder has its own.
        dialect: name of a dialect.
        commit: hash of the Hub's commit that the reasoner's files are; None for nano and local folders.
        segmenter_id: Hub id of the segmenter, with the revision that was named; None for one of this disk.
        chosen_segmenter: the segmenter that stands in place of the checkpoint's own, if one does: "nano", a folder, or
            `owner/name@commit`.
        served: what the server calls the reasoner that answers in place of one here; its `commit` is then the one that
            the server says, if it does.
    """

    name: str
    reasoner: Path
    segmenter: Path
    segmenter_config: str | None
    dialect: str
    commit: str | None = None
    segmenter_id: str | None = None
    chosen_segmenter: str | None = None
    served: str | None = None

    @property
    def pinned(self) -> str:
        """The name that gives this very checkpoint again: `owner/name@commit` where the Hub has it, and the segmenter
        that was chosen for it."""
        name = f"{self.name}@{self.commit}" if self.commit else self.name
        return f"{name}+{self.chosen_segmenter}" if self.chosen_segmenter else name


def split_revision(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """The name and the revision that `owner/name@revision` or two arguments give; paths are left alone.

    Raises:
        CheckpointError: a revision given twice, or an empty one.
    """
    bare, at, given = name.partition("@")
    if not at or name.startswith((".", "/", "~")) or _is_folder(name):
        return name, revision
    if revision is not None or not given:
        raise CheckpointError(f"{name!r} must be owner/name@revision, with the revision given once")
    return bare, given


def split_segmenter(name: str, segmenter: str | None = None) -> tuple[str, str | None]:
    """The checkpoint and the segmenter that `checkpoint+segmenter` or two arguments give; folders are left alone.

    Raises:
        CheckpointError: a segmenter given twice, or an empty one.
    """
    if "+" not in name or _is_folder(name):
        return name, segmenter
    marks = [i for i, character in enumerate(name) if character == "+"]
    mark = next((i for i in marks if _is_folder(name[:i])), marks[0])  # no Hub id has one
    if segmenter or mark == len(name) - 1:
        raise CheckpointError(f"{name!r} must be checkpoint+segmenter, with the segmenter given once")
    return name[:mark], name[mark + 1 :]


def pull(
    name: str,
    revision: str | None = None,
    local_files_only: bool = False,
    with_reasoner: bool = True,
    segmenter: str | None = None,
) -> Checkpoint:
    """Find a checkpoint, downloading what is missing.

    Args:
        name: "nano", a Hub id, also with its revision (owner/name@revision), or a local folder; each also with a
            segmenter (name+segmenter).
        revision: branch, tag or commit of a Hub id.
        local_files_only: never ask the network.
        with_reasoner: False where a server has the reasoner: its weights are then neither downloaded nor needed.
        segmenter: in place of the checkpoint's own: "nano", a Hub id, also with its revision, or a local folder.

    Raises:
        CheckpointError: unknown name, no network, gated or private repository, full disk, or files
            that are missing or malformed.
    """
    name, segmenter = split_segmenter(name, segmenter)
    name, revision = split_revision(name, revision)
    folder, commit = _local_folder(name), None
    if folder is None:
        folder = download(name, revision, local_files_only, _REASONER_FILES if with_reasoner else _OTHER_FILES)
        snapshot = snapshot_of(folder)
        commit = snapshot and snapshot[1]
    elif revision is not None:
        raise CheckpointError(f"{name} is on this disk and has no revisions; leave revision={revision!r} out")
    settings = check_folder(folder, name, with_reasoner)
    own = None if segmenter else folder
    weights, config, hub_id = _segmenter(segmenter or settings["segmenter"], own, local_files_only)
    if segmenter and (snapshot := snapshot_of(weights)):
        segmenter = "@".join(snapshot)
    return Checkpoint(name, folder, weights, config, settings["dialect"], commit, hub_id, segmenter)


@dataclass(frozen=True)
class DownloadPlan:
    """What `pull` would use of the Hub.

    Attributes:
        name: without a revision of the reasoner.
        revision: the commit that was looked at, so that what is announced is what is pulled; None for a local folder.
        files: with size and whether they are here already; none for nano and local folders.
    """

    name: str
    revision: str | None
    files: tuple[hub.DryRunFileInfo, ...] = ()

    @property
    def missing(self) -> int:
        """Bytes to download."""
        return sum(file.file_size or 0 for file in self.files if file.will_download)

    def __str__(self) -> str:
        """Number, size and destination of the files."""
        if not self.files:
            return f"{self.name} is on this disk, not of the Hub"
        total = readable_size(sum(file.file_size or 0 for file in self.files))
        return (
            f"{self.name}: {len(self.files)} files, {total}, of which {readable_size(self.missing)} to download into "
            f"{constants.HF_HUB_CACHE}"
        )


def plan(name: str, revision: str | None = None, with_reasoner: bool = True) -> DownloadPlan:
    """What `pull` with the same arguments would download; fetches `genseg.json` alone.

    Raises:
        CheckpointError: as `pull`.
    """
    name, segmenter = split_segmenter(name)
    name, revision = split_revision(name, revision)
    files: list[hub.DryRunFileInfo] = []
    folder = _local_folder(name)
    if folder is None:
        files = dry_run(name, revision, _REASONER_FILES if with_reasoner else _OTHER_FILES)
        if not files:
            raise CheckpointError(f"{name} has no config.json with .safetensors weights; other formats are not loaded")
        revision = files[0].commit_hash
        own = _settings(download(name, revision, False, [SETTINGS_FILE]) / SETTINGS_FILE, name)["segmenter"]
        if not segmenter and not any(file.filename.startswith(f"{own}/") for file in files):
            files += dry_run(*_segmenter_files(own))
    elif not segmenter:
        own = _settings(folder / SETTINGS_FILE, name)["segmenter"]
        files = [] if segmenter_folder(own, folder) else dry_run(*_segmenter_files(own))
    if segmenter and segmenter_folder(segmenter) is None:
        files += dry_run(*_segmenter_files(segmenter))
    return DownloadPlan(f"{name}+{segmenter}" if segmenter else name, revision, tuple(files))


def verify(checkpoint: Checkpoint) -> int:
    """Compare the checksums of downloaded files with the Hub's, and remove damaged files so that `pull` fetches them.

    Returns:
        The number of files compared; 0 for nano and local folders.

    Raises:
        CheckpointError: damaged files, or the Hub cannot be asked.
    """
    compared = 0
    for name, commit in sorted({*filter(None, map(snapshot_of, (checkpoint.reasoner, checkpoint.segmenter)))}):
        with explained(name, commit):
            result = hub.HfApi().verify_repo_checksums(name, revision=commit)
        for mismatch in result.mismatches:
            file = result.verified_path / mismatch["path"]
            file.resolve().unlink()
            file.unlink(missing_ok=True)
        if result.mismatches:
            damaged = ", ".join(mismatch["path"] for mismatch in result.mismatches)
            raise CheckpointError(f"{damaged} of {name} arrived damaged and was removed; pull {name} again")
        compared += result.checked_count
    return compared


def check_folder(folder: Path, name: str, with_reasoner: bool = True) -> dict[str, str]:
    """The dialect and the segmenter of a folder with a usable reasoner; asks no network.

    Args:
        with_reasoner: False where a server has it.

    Raises:
        CheckpointError: files that are missing or malformed.
    """
    if not with_reasoner:
        return _settings(folder / SETTINGS_FILE, name)
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
    return _settings(folder / SETTINGS_FILE, name)


def check_name(name: str) -> None:
    """Raise CheckpointError when a name cannot be a checkpoint; asks neither disk cache nor network."""
    name, segmenter = split_segmenter(name)
    name, _ = split_revision(name)
    if _local_folder(name) is None:
        _check_id(name)
    if segmenter and segmenter_folder(segmenter) is None:
        _check_id(_segmenter_files(segmenter)[0])


def _check_id(name: str) -> None:
    try:
        validate_repo_id(name)
    except errors.HFValidationError as error:
        raise CheckpointError(f"{name!r} is not a Hub id (owner/name)") from error


def is_on_disk(name: str, with_reasoner: bool = True) -> bool:
    """Whether `pull` with the same arguments needs no network."""
    try:
        pull(name, local_files_only=True, with_reasoner=with_reasoner)
    except CheckpointError:
        return False
    return True


def readable_size(count: int) -> str:
    """Bytes as people read them, for example 18.1 MB."""
    if count < 1000:
        return f"{count} B"
    for unit, factor in (("kB", 1e3), ("MB", 1e6)):
        if count < 1000 * factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1e9:.2f} GB"


def _local_folder(name: str) -> Path | None:
    if name in EMBEDDED:
        return EMBEDDED[name]
    if _is_folder(name):
        return Path(name).expanduser()
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_local:
        raise CheckpointError(f"there is no folder {name}; give an existing folder, a Hub id (owner/name) or {NANO!r}")
    if "/" not in name:
        raise CheckpointError(f"there is no checkpoint {name!r}; known names: {', '.join(k.name for k in KNOWN)}")
    return None


def _is_folder(name: str) -> bool:
    try:
        return bool(name) and Path(name).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{name[:80]!r} is not a folder: {error}") from error


def _settings(file: Path, name: str) -> dict[str, str]:
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


def check_segmenter(folder: Path) -> None:
    """Raise CheckpointError unless a segmenter's configuration and weights are in a folder."""
    missing = [file for file in ("config.json", "model.safetensors") if not (folder / file).is_file()]
    if missing:
        raise CheckpointError(f"the segmenter {folder} lacks {' and '.join(missing)}")
    _check_config(folder / "config.json", f"the segmenter {folder}")


def _check_config(file: Path, name: str) -> None:
    """Raise CheckpointError where a configuration cannot be read, or brings code along."""
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
    """The attentions that a configuration asks for, and those inside it: a name, or one for each of its parts."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield from _attentions(value, named or "attn_implementation" in key)
    elif isinstance(part, list):
        for value in part:
            yield from _attentions(value, named)
    elif named:
        yield part


def segmenter_folder(name: str, own: Path | None = None) -> Path | None:
    """The folder on this disk of a segmenter, None for one of the Hub.

    Args:
        name: what a checkpoint in the folder `own` calls its segmenter, or what the user chose.
    """
    if name == NANO and (own is None or own in EMBEDDED.values()):
        return EMBEDDED[NANO] / "segmenter"
    if own is None:
        return Path(name).expanduser() if _is_folder(name) else None
    # A checkpoint of a stranger may name nothing outside its folder.
    folder = own / name
    return folder if _is_folder(str(folder)) and folder.resolve().is_relative_to(own.resolve()) else None


def _segmenter(name: str, own: Path | None, local_files_only: bool) -> tuple[Path, str | None, str | None]:
    """Where the segmenter of `segmenter_folder` is, its configuration in the sam2 package, and its name if that is a
    Hub id."""
    here = segmenter_folder(name, own)
    if here is not None:
        check_segmenter(here)
        return here, None, None
    hub_id, revision, files = _segmenter_files(name)
    folder = download(hub_id, revision, local_files_only, files)
    if hub_id not in SAM2_REPOSITORIES:
        check_segmenter(folder)
        return folder, None, name
    config, file = SAM2_REPOSITORIES[hub_id]
    if not (folder / file).is_file():
        raise CheckpointError(f"{hub_id} is here without {file}; pull it again with network access")
    return folder / file, config, name


def _segmenter_files(name: str) -> tuple[str, str | None, list[str]]:
    """Hub id, revision and files of a segmenter that is no folder."""
    hub_id, revision = split_revision(name)
    if name.startswith((".", "/", "~")) or hub_id.count("/") != 1:
        raise CheckpointError(f"the segmenter {name!r} is neither a usable folder nor a Hub id (owner/name)")
    known = SAM2_REPOSITORIES.get(hub_id)
    return hub_id, revision, [known[1]] if known else _SEGMENTER_FILES
