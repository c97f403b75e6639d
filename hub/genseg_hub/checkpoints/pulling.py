"""Find the files behind a checkpoint's name on this disk, or download them.

A checkpoint is a name that resolves to a reasoner, a segmenter and a dialect. This module loads no weights into memory.
Files that are whole in the cache need no Hub, see `downloads.download`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import huggingface_hub as hub

from genseg_hub.checkpoints.catalog import AGENT, ITSELF, SAM2_REPOSITORIES, SAM3
from genseg_hub.checkpoints.downloads import download, snapshot_of
from genseg_hub.checkpoints.faults import explained
from genseg_hub.checkpoints.names import (
    SEGMENTER_FILES,
    check_name,
    local_folder,
    segmenter_files,
    segmenter_folder,
    split_agent,
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
from genseg_hub.checkpoints.settings import (
    CONFIG_FILE,
    SETTINGS_FILE,
    WORD_TYPES,
    Settings,
    check_no_pointer,
    read_settings,
    takes_words,
)
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
        segmenter: folder in this project's or in Transformers' format, or a weights file of SAM2_REPOSITORIES. SAM 3
            that takes words for the agent.
        segmenter_config: configuration in the sam2 package; None if the folder has its own.
        dialect: name of a dialect; "" for SAM 3, which takes words.
        options: how its author found right to load it; without a dialect.
        note: how the dialect was found, if that may surprise; "" otherwise.
        commit: Hub commit of the reasoner's files; None for nano and local folders.
        segmenter_id: Hub id of the segmenter, with its revision if one was named; None for a local segmenter.
        chosen_segmenter: the segmenter that replaces the checkpoint's own: "nano", a folder, or `owner/name@commit`;
            None for the own one.
        agent: whether the reasoner uses SAM 3 as the SAM 3 agent does, see `names.split_agent`.
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
    agent: bool = False
    served: str | None = None

    @property
    def pinned(self) -> str:
        """Return the name that loads this very checkpoint again.

        On the Hub the name is `owner/name@commit`, with the chosen segmenter.
        """
        name = f"{self.name}@{self.commit}" if self.commit else self.name
        return f"{name}+{self.chosen_segmenter}" if self.chosen_segmenter else name

    @property
    def takes_words(self) -> bool:
        """Return whether the checkpoint is SAM 3, which takes words itself.

        SAM 3 has no reasoner and no dialect, and is its own segmenter.
        """
        return self.segmenter == self.reasoner

    def check_reasons(self, purpose: str) -> None:
        """Raise CheckpointError unless the checkpoint is a reasoner with a segmenter.

        SAM 3 has no reasoner. The reasoner of an agent is named without the agent.

        Args:
            purpose: what a reasoner is needed for, "served" or "trained".
        """
        if self.takes_words or self.agent:
            kind = f"an agent; name its reasoner alone, {self.name}" if self.agent else "SAM 3, which has no reasoner"
            raise CheckpointError(f"{self.pinned} cannot be {purpose}: it is {kind}")


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
        dialect: dialect that the user named, in place of the checkpoint's own.
        options: token, cache and network.
        newest: ask the Hub for the newest commit. If the Hub fails, the cached files are used, with a warning.

    Raises:
        HubError: the Hub failed, and the files are not in the cache.
        CheckpointError: the name is unknown, the repository is gated or private, the network or the disk does not allow
            the download, files are missing or malformed, or no dialect is known for the checkpoint.
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
    check_chosen(segmenter, settings.segmenter, name)
    own = None if segmenter else folder
    used = segmenter or settings.segmenter
    weights, config, hub_id = find_segmenter(used, own, options, on_bytes, newest)
    return Checkpoint(
        name,
        folder,
        weights,
        config,
        settings.dialect,
        settings.options,
        settings.note,
        commit,
        hub_id,
        segmenter and pinned_segmenter(segmenter, weights),
        split_agent(used)[1],
    )


def pinned_segmenter(name: str, files: Path) -> str:
    """Return the name that loads the same segmenter again; on the Hub with commit.

    Args:
        name: as the user chose it.
        files: files that `find_segmenter` found.
    """
    snapshot, (_, agent) = snapshot_of(files), split_agent(name)
    if snapshot is None:
        return name
    return f"{AGENT}:{'@'.join(snapshot)}" if agent else "@".join(snapshot)


def check_chosen(segmenter: str | None, own: str, name: str) -> None:
    """Raise CheckpointError for a segmenter chosen for SAM 3, which is its own one."""
    if segmenter and own == ITSELF:
        raise CheckpointError(f"{name} is SAM 3, which makes its own masks; leave the segmenter {segmenter!r} out")


def look_ahead(name: str, revision: str | None, dialect: str | None, options: HubOptions) -> Settings:
    """Return the settings of a checkpoint on the Hub, from its two small files.

    Raises:
        CheckpointError: as `pull`.
    """
    folder = download(name, revision, [SETTINGS_FILE, CONFIG_FILE], replace(options, force_download=None))
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(f"{name} has no config.json with .safetensors weights; other formats are not loaded")
    check_config(folder / CONFIG_FILE, name)
    return read_settings(folder, name, dialect)


def verify(checkpoint: Checkpoint) -> int:
    """Compare the checksums of downloaded files with the Hub's.

    Damaged files are removed. `pull` downloads removed files again.

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

    The check asks no network.

    Args:
        name: as `pull` takes it.
        with_reasoner: False if a server has the reasoner.
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
        check_chosen(segmenter, check_folder(folder, bare, with_reasoner, dialect)["segmenter"], bare)
    if segmenter and (own := segmenter_folder(segmenter)):
        check_segmenter(own)
        check_agent(segmenter, own)


def is_sam3(name: str, options: HubOptions = _DEFAULTS) -> bool:
    """Return whether a name is known to mean SAM 3; ask no network.

    SAM 3 takes words and has no reasoner.

    Args:
        name: as `pull` takes it. A Hub id is known if its config.json is in the cache, or if it is facebook/sam3.
        options: token and cache.

    Raises:
        CheckpointError: the name can be no checkpoint, or config.json cannot be read.
    """
    bare, revision = split_revision(split_segmenter(name)[0])
    folder = local_folder(bare)
    if folder is None:
        try:
            folder = download(bare, revision, [CONFIG_FILE], replace(options, local_files_only=True))
        except CheckpointError:
            return bare == SAM3
    return takes_words(folder, bare)


def is_on_disk(
    name: str, with_reasoner: bool = True, dialect: str | None = None, options: HubOptions = _DEFAULTS
) -> bool:
    """Return whether `pull` with the same arguments needs no network."""
    try:
        pull(name, with_reasoner=with_reasoner, dialect=dialect, options=replace(options, local_files_only=True))
    except CheckpointError:
        return False
    return True


def check_agent(segmenter: str, folder: Path) -> None:
    """Raise CheckpointError if the SAM 3 agent's segmenter takes no words."""
    if split_agent(segmenter)[1] and not takes_words(folder, segmenter):
        raise CheckpointError(
            f"{segmenter}: the agent needs SAM 3 that takes words, with the model_type {' or '.join(WORD_TYPES)}"
        )


def find_segmenter(
    name: str,
    own: Path | None,
    options: HubOptions,
    on_bytes: Callable[[int], None] | None = None,
    newest: bool = False,
) -> tuple[Path, str | None, str | None]:
    """Return the files, the configuration and the Hub id of a segmenter.

    The configuration is a name in the sam2 package; None if the files have their own. The id is None for a folder.
    """
    here = segmenter_folder(name, own)
    if here is not None:
        check_segmenter(here)
        check_agent(name, here)
        return here, None, None
    hub_id, revision, files = segmenter_files(name)
    folder = download(hub_id, revision, files, options, on_bytes, newest)
    if hub_id not in SAM2_REPOSITORIES:
        check_segmenter(folder)
        check_agent(name, folder)
        return folder, None, name
    config, file = SAM2_REPOSITORIES[hub_id]
    if not (folder / file).is_file():
        raise CheckpointError(f"{hub_id} is here without {file}; pull it again with network access")
    check_no_pointer(folder / file, hub_id)
    return folder / file, config, name
