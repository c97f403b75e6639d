"""The files behind a checkpoint's name: found on this disk, or downloaded.

A checkpoint is a name that resolves to a reasoner, a segmenter and a dialect. This module loads nothing into memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import huggingface_hub as hub
from huggingface_hub import constants

from genseg_hub.checkpoints.catalog import SAM2_REPOSITORIES
from genseg_hub.checkpoints.downloads import download, dry_run, explained, snapshot_of
from genseg_hub.checkpoints.names import (
    SEGMENTER_FILES,
    local_folder,
    segmenter_files,
    segmenter_folder,
    split_revision,
    split_segmenter,
)
from genseg_hub.checkpoints.safety import SETTINGS_FILE, check_folder, check_segmenter, read_settings
from genseg_hub.errors import CheckpointError

# Everything a reasoner needs and nothing that can carry code.
_REASONER_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "segmenter/*"]
# Of the same repository, what is needed where a server has the reasoner's weights; a segmenter is a sub-folder.
_OTHER_FILES = [SETTINGS_FILE, "config.json", "generation_config.json", *(f"*/{file}" for file in SEGMENTER_FILES)]


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
    folder, commit = local_folder(name), None
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
    folder = local_folder(name)
    if folder is None:
        files = dry_run(name, revision, _REASONER_FILES if with_reasoner else _OTHER_FILES)
        if not files:
            raise CheckpointError(f"{name} has no config.json with .safetensors weights; other formats are not loaded")
        revision = files[0].commit_hash
        own = read_settings(download(name, revision, False, [SETTINGS_FILE]) / SETTINGS_FILE, name)["segmenter"]
        if not segmenter and not any(file.filename.startswith(f"{own}/") for file in files):
            files += dry_run(*segmenter_files(own))
    elif not segmenter:
        own = read_settings(folder / SETTINGS_FILE, name)["segmenter"]
        files = [] if segmenter_folder(own, folder) else dry_run(*segmenter_files(own))
    if segmenter and segmenter_folder(segmenter) is None:
        files += dry_run(*segmenter_files(segmenter))
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


def _segmenter(name: str, own: Path | None, local_files_only: bool) -> tuple[Path, str | None, str | None]:
    """Where the segmenter of `segmenter_folder` is, its configuration in the sam2 package, and its name if that is a
    Hub id."""
    here = segmenter_folder(name, own)
    if here is not None:
        check_segmenter(here)
        return here, None, None
    hub_id, revision, files = segmenter_files(name)
    folder = download(hub_id, revision, local_files_only, files)
    if hub_id not in SAM2_REPOSITORIES:
        check_segmenter(folder)
        return folder, None, name
    config, file = SAM2_REPOSITORIES[hub_id]
    if not (folder / file).is_file():
        raise CheckpointError(f"{hub_id} is here without {file}; pull it again with network access")
    return folder / file, config, name
