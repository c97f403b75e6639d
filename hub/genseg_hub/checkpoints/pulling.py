"""Find the files behind a checkpoint's name on this disk, or download them.

A checkpoint is a name that resolves to a reasoner, a segmenter and a dialect. This module loads no weights into memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import huggingface_hub as hub
from huggingface_hub import constants

from genseg_hub.checkpoints.catalog import SAM2_REPOSITORIES
from genseg_hub.checkpoints.downloads import download, dry_run, explained, snapshot_of
from genseg_hub.checkpoints.names import (
    SEGMENTER_FILES,
    check_name,
    local_folder,
    segmenter_files,
    segmenter_folder,
    split_revision,
    split_segmenter,
)
from genseg_hub.checkpoints.safety import check_config, check_folder, check_reasoner, check_segmenter
from genseg_hub.checkpoints.settings import CONFIG_FILE, SETTINGS_FILE, Settings, read_settings
from genseg_hub.errors import CheckpointError
from genseg_hub.options import HubOptions, ReasonerOptions

_DEFAULTS = HubOptions()
# Everything a reasoner needs, and no file that can carry code.
_REASONER_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "segmenter/*"]
# Files of the same repository that are needed if a server has the reasoner's weights; a segmenter is a sub-folder.
_OTHER_FILES = [SETTINGS_FILE, CONFIG_FILE, "generation_config.json", *(f"*/{file}" for file in SEGMENTER_FILES)]


@dataclass(frozen=True)
class Checkpoint:
    """Paths of a checkpoint's parts on this disk.

    Attributes:
        name: as the user gave it, without revision and segmenter.
        reasoner: folder of the VLM and its processor.
        segmenter: folder in this project's or in Transformers' format, or a weights file of SAM2_REPOSITORIES.
        segmenter_config: configuration in the sam2 package; None if the folder has its own.
        dialect: name of a dialect.
        options: how its author found right to load it; without a dialect.
        note: how the dialect was found, if that may surprise; "" otherwise.
        commit: Hub commit of the reasoner's files; None for nano and local folders.
        segmenter_id: Hub id of the segmenter, with its revision if one was named; None for a local segmenter.
        chosen_segmenter: the segmenter that replaces the checkpoint's own: "nano", a folder, or `owner/name@commit`;
            None for the own one.
        served: name of the reasoner on its server, None without a server. `commit` is then the server's commit, if the
            server says which.
    """

    name: str
    reasoner: Path
    segmenter: Path
    segmenter_config: str | None
    dialect: str
    options: ReasonerOptions = field(default_factory=ReasonerOptions)
    note: str = ""
    commit: str | None = None
    segmenter_id: str | None = None
    chosen_segmenter: str | None = None
    served: str | None = None

    @property
    def pinned(self) -> str:
        """Name that loads this very checkpoint again: `owner/name@commit` on the Hub, with the chosen segmenter."""
        name = f"{self.name}@{self.commit}" if self.commit else self.name
        return f"{name}+{self.chosen_segmenter}" if self.chosen_segmenter else name


def pull(
    name: str,
    revision: str | None = None,
    with_reasoner: bool = True,
    segmenter: str | None = None,
    on_bytes: Callable[[int], None] | None = None,
    dialect: str | None = None,
    options: HubOptions = _DEFAULTS,
) -> Checkpoint:
    """Find a checkpoint, and download its missing files.

    The family's dialect is found before any weights are downloaded.

    Args:
        name: "nano", a Hub id, also with its revision (owner/name@revision), or a local folder; each also with a
            segmenter (name+segmenter).
        revision: branch, tag or commit of a Hub id.
        with_reasoner: False if a server has the reasoner: its weights are then neither downloaded nor needed.
        segmenter: replaces the checkpoint's own: "nano", a Hub id, also with its revision, or a local folder.
        on_bytes: called by the download's threads with each number of arrived bytes; see `downloads.download`.
        dialect: that the user named, in place of the checkpoint's own.
        options: token, cache and network.

    Raises:
        CheckpointError: the name is unknown, the repository is gated or private, the network or the disk does not
            allow it, files are missing or malformed, or no dialect is known for the checkpoint.
    """
    name, segmenter = split_segmenter(name, segmenter)
    name, revision = split_revision(name, revision)
    folder, commit = local_folder(name), None
    if folder is None:
        if with_reasoner:
            _look_ahead(name, revision, dialect, options)
        files = _REASONER_FILES if with_reasoner else _OTHER_FILES
        folder = download(name, revision, files, options, on_bytes)
        snapshot = snapshot_of(folder)
        commit = snapshot and snapshot[1]
    elif revision is not None:
        raise CheckpointError(f"{name} is on this disk and has no revisions; leave revision={revision!r} out")
    if with_reasoner:
        check_reasoner(folder, name)
    settings = read_settings(folder, name, dialect)
    own = None if segmenter else folder
    weights, config, hub_id = find_segmenter(segmenter or settings.segmenter, own, options, on_bytes)
    if segmenter and (snapshot := snapshot_of(weights)):
        segmenter = "@".join(snapshot)
    return Checkpoint(
        name, folder, weights, config, settings.dialect, settings.options, settings.note, commit, hub_id, segmenter
    )


def _look_ahead(name: str, revision: str | None, dialect: str | None, options: HubOptions) -> Settings:
    """Return the settings of a checkpoint on the Hub; download nothing but its two small files.

    Raises:
        CheckpointError: as `pull`.
    """
    folder = download(name, revision, [SETTINGS_FILE, CONFIG_FILE], replace(options, force_download=None))
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(f"{name} has no config.json with .safetensors weights; other formats are not loaded")
    check_config(folder / CONFIG_FILE, name)
    return read_settings(folder, name, dialect)


@dataclass(frozen=True)
class DownloadPlan:
    """Files that `pull` would use of the Hub.

    Attributes:
        name: without a revision of the reasoner.
        revision: the commit of the files, so that `pull` gets the announced files; None for a local folder.
        files: with their size, and whether they are in the cache; () for nano and local folders.
    """

    name: str
    revision: str | None
    files: tuple[hub.DryRunFileInfo, ...] = ()

    @property
    def missing(self) -> int:
        """Bytes to download."""
        return sum(file.file_size or 0 for file in self.files if file.will_download)

    def __str__(self) -> str:
        """Return number, size and destination of the files."""
        if not self.files:
            return f"{self.name} is on this disk, not of the Hub"
        total = readable_size(sum(file.file_size or 0 for file in self.files))
        return (
            f"{self.name}: {len(self.files)} files, {total}, of which {readable_size(self.missing)} to download into "
            f"{constants.HF_HUB_CACHE}"
        )


def plan(
    name: str,
    revision: str | None = None,
    with_reasoner: bool = True,
    dialect: str | None = None,
    options: HubOptions = _DEFAULTS,
) -> DownloadPlan:
    """Return the files that `pull` with the same arguments would use; download the two small files of `settings`.

    Args:
        name: as `pull` takes it.
        revision: as `pull` takes it.
        with_reasoner: as `pull` takes it.
        dialect: as `pull` takes it.
        options: as `pull` takes it.

    Raises:
        CheckpointError: as `pull`.
    """
    name, segmenter = split_segmenter(name)
    name, revision = split_revision(name, revision)
    files: list[hub.DryRunFileInfo] = []
    folder = local_folder(name)
    if folder is None:
        files = dry_run(name, revision, _REASONER_FILES if with_reasoner else _OTHER_FILES, options)
        if not files:
            raise CheckpointError(f"{name} has no config.json with .safetensors weights; other formats are not loaded")
        revision = files[0].commit_hash
        if with_reasoner:
            own = _look_ahead(name, revision, dialect, options).segmenter
        else:
            small = download(name, revision, [SETTINGS_FILE, CONFIG_FILE], options)
            own = read_settings(small, name, dialect).segmenter
        if not segmenter and not any(file.filename.startswith(f"{own}/") for file in files):
            files += dry_run(*segmenter_files(own), options)
    elif not segmenter:
        own = read_settings(folder, name, dialect).segmenter
        files = [] if segmenter_folder(own, folder) else dry_run(*segmenter_files(own), options)
    if segmenter and segmenter_folder(segmenter) is None:
        files += dry_run(*segmenter_files(segmenter), options)
    return DownloadPlan(f"{name}+{segmenter}" if segmenter else name, revision, tuple(files))


def verify(checkpoint: Checkpoint) -> int:
    """Compare the checksums of downloaded files with the Hub's, and remove damaged files.

    `pull` downloads removed files again.

    Returns:
        The number of compared files; 0 for nano and local folders.

    Raises:
        CheckpointError: files are damaged, or the Hub does not answer.
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


def check_available(name: str, with_reasoner: bool = True, dialect: str | None = None) -> None:
    """Raise unless a name may be a Hub id, or names a usable checkpoint on this disk.

    Asks no network.

    Args:
        name: as `pull` takes it.
        with_reasoner: False where a server has the reasoner.
        dialect: as `pull` takes it.

    Raises:
        CheckpointError: the name can be no checkpoint, files of a local checkpoint are missing or malformed, or no
            dialect is known for it.
    """
    check_name(name)
    reasoner, segmenter = split_segmenter(name)
    bare, revision = split_revision(reasoner)
    folder = local_folder(bare)
    if folder is not None:
        if revision is not None:
            raise CheckpointError(f"{bare} is on this disk and has no revisions; leave @{revision} out")
        check_folder(folder, bare, with_reasoner, dialect)
    if segmenter and (own := segmenter_folder(segmenter)):
        check_segmenter(own)


def is_on_disk(
    name: str, with_reasoner: bool = True, dialect: str | None = None, options: HubOptions = _DEFAULTS
) -> bool:
    """Return whether `pull` with the same arguments needs no network."""
    try:
        pull(name, with_reasoner=with_reasoner, dialect=dialect, options=replace(options, local_files_only=True))
    except CheckpointError:
        return False
    return True


def readable_size(count: int) -> str:
    """Return a number of bytes for people, for example 18.1 MB."""
    if count < 1000:
        return f"{count} B"
    for unit, factor in (("kB", 1e3), ("MB", 1e6)):
        if count < 1000 * factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1e9:.2f} GB"


def find_segmenter(
    name: str, own: Path | None, options: HubOptions, on_bytes: Callable[[int], None] | None
) -> tuple[Path, str | None, str | None]:
    """Return the files of a segmenter, its configuration in the sam2 package, and its name if that is a Hub id."""
    here = segmenter_folder(name, own)
    if here is not None:
        check_segmenter(here)
        return here, None, None
    hub_id, revision, files = segmenter_files(name)
    folder = download(hub_id, revision, files, options, on_bytes)
    if hub_id not in SAM2_REPOSITORIES:
        check_segmenter(folder)
        return folder, None, name
    config, file = SAM2_REPOSITORIES[hub_id]
    if not (folder / file).is_file():
        raise CheckpointError(f"{hub_id} is here without {file}; pull it again with network access")
    return folder / file, config, name
