"""Find the files behind a checkpoint's name on this disk, or download them.

A checkpoint is a name that resolves to a reasoner, a segmenter and a dialect. This module loads no weights into memory.
What is whole in the cache needs no Hub, see `downloads.download`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import huggingface_hub as hub

from genseg_hub.checkpoints.catalog import SAM2_REPOSITORIES
from genseg_hub.checkpoints.downloads import download, snapshot_of
from genseg_hub.checkpoints.faults import explained
from genseg_hub.checkpoints.names import (
    SEGMENTER_FILES,
    check_name,
    local_folder,
    segmenter_files,
    segmenter_folder,
    split_revision,
    split_segmenter,
)
from genseg_hub.checkpoints.network import limit_requests
from genseg_hub.checkpoints.safety import (
    check_config,
    check_folder,
    check_reasoner,
    check_segmenter,
)
from genseg_hub.checkpoints.settings import CONFIG_FILE, SETTINGS_FILE, Settings, check_no_pointer, read_settings
from genseg_hub.errors import CheckpointError, HubError
from genseg_hub.options import HubOptions, ReasonerOptions

_DEFAULTS = HubOptions()
# Everything a reasoner needs, and no file that can carry code.
REASONER_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "segmenter/*"]
# Files of the same repository that are needed if a server has the reasoner's weights; a segmenter is a sub-folder.
OTHER_FILES = [
    SETTINGS_FILE,
    CONFIG_FILE,
    "generation_config.json",
    "chat_template.*",
    "tokenizer_config.json",
    *(f"*/{file}" for file in SEGMENTER_FILES),
]


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
    newest: bool = False,
) -> Checkpoint:
    """Find a checkpoint, and download its missing files.

    A checkpoint whose files are all in the cache needs no request, unless the name has a branch or a tag. The family's
    dialect is found before any weights are downloaded.

    Args:
        name: "nano", a Hub id, also with its revision (owner/name@revision), or a local folder; each also with a
            segmenter (name+segmenter).
        revision: branch, tag or commit of a Hub id.
        with_reasoner: False if a server has the reasoner: its weights are then neither downloaded nor needed.
        segmenter: replaces the checkpoint's own: "nano", a Hub id, also with its revision, or a local folder.
        on_bytes: called by the download's threads with each number of arrived bytes; see `downloads.download`.
        dialect: that the user named, in place of the checkpoint's own.
        options: token, cache and network.
        newest: ask the Hub for the newest commit. Where the Hub fails, the cached files are used, with a warning.

    Raises:
        HubError: the Hub failed, and the files are not in the cache.
        CheckpointError: the name is unknown, the repository is gated or private, the network or the disk does not
            allow it, files are missing or malformed, or no dialect is known for the checkpoint.
    """
    name, segmenter = split_segmenter(name, segmenter)
    name, revision = split_revision(name, revision)
    folder, commit = local_folder(name), None
    if folder is None:

        def check(resolved: hub.ResolvedRevision) -> None:
            if with_reasoner:
                look_ahead(name, resolved.resolved, dialect, options)

        files = REASONER_FILES if with_reasoner else OTHER_FILES
        folder = download(name, revision, files, options, on_bytes, newest, check)
        snapshot = snapshot_of(folder)
        commit = snapshot and snapshot[1]
    elif revision is not None:
        raise CheckpointError(f"{name} is on this disk and has no revisions; leave revision={revision!r} out")
    if with_reasoner:
        check_reasoner(folder, name)
    settings = read_settings(folder, name, dialect)
    own = None if segmenter else folder
    weights, config, hub_id = find_segmenter(segmenter or settings.segmenter, own, options, on_bytes, newest)
    if segmenter and (snapshot := snapshot_of(weights)):
        segmenter = "@".join(snapshot)
    return Checkpoint(
        name, folder, weights, config, settings.dialect, settings.options, settings.note, commit, hub_id, segmenter
    )


def look_ahead(name: str, revision: str | None, dialect: str | None, options: HubOptions) -> Settings:
    """Return the settings of a checkpoint on the Hub; download nothing but its two small files.

    Raises:
        CheckpointError: as `pull`.
    """
    folder = download(name, revision, [SETTINGS_FILE, CONFIG_FILE], replace(options, force_download=None))
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(f"{name} has no config.json with .safetensors weights; other formats are not loaded")
    check_config(folder / CONFIG_FILE, name)
    return read_settings(folder, name, dialect)


def verify(checkpoint: Checkpoint) -> int:
    """Compare the checksums of downloaded files with the Hub's, and remove damaged files.

    `pull` downloads removed files again.

    Returns:
        The number of compared files; 0 for nano and local folders.

    Raises:
        HubError: the Hub failed.
        CheckpointError: files are damaged.
    """
    compared = 0
    for name, commit in sorted({*filter(None, map(snapshot_of, (checkpoint.reasoner, checkpoint.segmenter)))}):
        try:
            with explained(name, commit):
                limit_requests()
                result = hub.HfApi().verify_repo_checksums(name, revision=commit)
        except HubError as error:
            raise HubError(
                f"{error.fault}: the checksums of {name} were not compared; its files are in the cache, at {commit}"
            ) from error
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


def find_segmenter(
    name: str,
    own: Path | None,
    options: HubOptions,
    on_bytes: Callable[[int], None] | None = None,
    newest: bool = False,
) -> tuple[Path, str | None, str | None]:
    """Return the files of a segmenter, its configuration in the sam2 package, and its name if that is a Hub id."""
    here = segmenter_folder(name, own)
    if here is not None:
        check_segmenter(here)
        return here, None, None
    hub_id, revision, files = segmenter_files(name)
    folder = download(hub_id, revision, files, options, on_bytes, newest)
    if hub_id not in SAM2_REPOSITORIES:
        check_segmenter(folder)
        return folder, None, name
    config, file = SAM2_REPOSITORIES[hub_id]
    if not (folder / file).is_file():
        raise CheckpointError(f"{hub_id} is here without {file}; pull it again with network access")
    check_no_pointer(folder / file, hub_id)
    return folder / file, config, name
