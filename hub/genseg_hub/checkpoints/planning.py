"""Plan downloads: the files of a checkpoint, their sizes, and which are here."""

from __future__ import annotations

from dataclasses import dataclass

import huggingface_hub as hub
from huggingface_hub import constants

from genseg_hub.checkpoints.catalog import ITSELF
from genseg_hub.checkpoints.downloads import download, dry_run
from genseg_hub.checkpoints.names import (
    local_folder,
    segmenter_files,
    segmenter_folder,
    split_agent,
    split_revision,
    split_segmenter,
)
from genseg_hub.checkpoints.pulling import OTHER_FILES, REASONER_FILES, look_ahead
from genseg_hub.checkpoints.settings import CONFIG_FILE, SETTINGS_FILE, read_settings
from genseg_hub.errors import CheckpointError
from genseg_hub.options import HubOptions

_DEFAULTS = HubOptions()


@dataclass(frozen=True)
class DownloadPlan:
    """Files that `pull` would use of the Hub.

    Attributes:
        name: name of the checkpoint, without the reasoner's revision.
        revision: the commit of the files; None for a local folder.
        asked: the branch or tag that was asked for; None for the main branch.
        files: files with their size, and whether they are in the cache; () for nano and local folders.
    """

    name: str
    revision: str | None
    files: tuple[hub.DryRunFileInfo, ...] = ()
    asked: str | None = None

    @property
    def resolved(self) -> hub.ResolvedRevision | None:
        """Return the revision with which `pull` gets these files; None for a folder."""
        if self.revision is None:
            return None
        return hub.ResolvedRevision(resolved=self.revision, initial=self.asked or None)

    @property
    def missing(self) -> int:
        """Return the number of bytes to download."""
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
    newest: bool = False,
) -> DownloadPlan:
    """Return the files that `pull` with the same arguments would use.

    Only the two small files of `settings` are downloaded. As in `pull`, files that are whole in the cache need no
    request.

    Args:
        name: as `pull` takes it.
        revision: as `pull` takes it.
        with_reasoner: as `pull` takes it.
        dialect: as `pull` takes it.
        options: as `pull` takes it.
        newest: as `pull` takes it.

    Raises:
        CheckpointError: as `pull`.
    """
    name, segmenter = split_segmenter(name)
    name, asked = split_revision(name, revision)
    files: list[hub.DryRunFileInfo] = []
    folder, revision = local_folder(name), asked
    if folder is None:
        files = dry_run(name, asked, REASONER_FILES if with_reasoner else OTHER_FILES, options, newest)
        if not files:
            raise CheckpointError(f"{name} has no config.json with .safetensors weights; other formats are not loaded")
        revision = files[0].commit_hash
        if with_reasoner:
            own = look_ahead(name, revision, dialect, options).segmenter
        else:
            small = download(name, revision, [SETTINGS_FILE, CONFIG_FILE], options)
            own = read_settings(small, name, dialect).segmenter
        part, _ = split_agent(own)
        in_folder = part == ITSELF or any(file.filename.startswith(f"{part}/") for file in files)
        if not segmenter and not in_folder:
            files += dry_run(*segmenter_files(own), options, newest)
    elif not segmenter:
        own = read_settings(folder, name, dialect).segmenter
        files = [] if segmenter_folder(own, folder) else dry_run(*segmenter_files(own), options, newest)
    if segmenter and segmenter_folder(segmenter) is None:
        files += dry_run(*segmenter_files(segmenter), options, newest)
    return DownloadPlan(f"{name}+{segmenter}" if segmenter else name, revision, tuple(files), asked)


def readable_size(count: int) -> str:
    """Return a number of bytes for people, for example 18.1 MB."""
    if count < 1000:
        return f"{count} B"
    for unit, factor in (("kB", 1e3), ("MB", 1e6)):
        if count < 1000 * factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1e9:.2f} GB"
