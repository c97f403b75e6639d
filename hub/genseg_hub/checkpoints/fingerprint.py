"""Fingerprints of checkpoints, so that a resumed run never mixes two models.

The fingerprint of a checkpoint on the Hub is its commit. The fingerprint of a folder is a checksum of all its bytes: a
copy that was trained further has the same names, sizes and headers. Reading all bytes is cheap beside loading the
model.
"""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from huggingface_hub.utils.sha import sha_fileobj

from genseg_hub import checkpoints
from genseg_hub.checkpoints.catalog import AGENT, EMBEDDED, NANO
from genseg_hub.checkpoints.names import split_agent
from genseg_hub.errors import CheckpointError
from genseg_hub.options import HubOptions, ReasonerOptions

_DEFAULTS, _HUB_DEFAULTS = ReasonerOptions(), HubOptions()
# Files that decide the answers of a reasoner; its own segmenter lies in a folder below.
_DECIDES = (".json", ".safetensors", ".txt", ".jinja")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def identify(
    name: str,
    revision: str | None = None,
    opened: checkpoints.Checkpoint | None = None,
    options: ReasonerOptions = _DEFAULTS,
    hub: HubOptions = _HUB_DEFAULTS,
) -> dict[str, str]:
    """Return the fingerprint of a checkpoint; load and download no weights.

    Args:
        name: as `checkpoints.pull` takes it.
        revision: as `checkpoints.pull` takes it.
        opened: the checkpoint as `reasoners.loading.connect` returned it, if a server has the reasoner.
        options: options of the reasoner that the user gave.
        hub: token, cache and network.

    Returns:
        `model`: `owner/name@commit`, an embedded checkpoint's name, or the last two parts of a folder's path.
        `dialect`, `segmenter` and `checksum` of the files that decide the answers, for a checkpoint without a commit.
        `segmenter_checksum` of a chosen segmenter's folder; `model` then ends in `+` and the segmenter's name. A chosen
        segmenter of the Hub counts by its name.
        The given options that change answers, by their names.
        `served`, the reasoner's name on its server. `model` then has a commit only if the server says which. The
        `checksum` of a folder is of the files here, because nobody can look at the files that the server loaded.

    Raises:
        CheckpointError: as `checkpoints.pull`.
    """
    checkpoints.check_name(name)
    name, chosen = checkpoints.split_segmenter(name)
    who = _reasoner(name, revision, opened, options.dialect, hub) | options.fingerprint()
    if opened and opened.served:
        who["served"] = opened.served
    return _with_segmenter(who, chosen)


def identify_served(opened: checkpoints.Checkpoint, options: ReasonerOptions = _DEFAULTS) -> dict[str, str]:
    """Return the fingerprint of a model that only its server knows.

    Args:
        opened: as `checkpoints.of_served_model` returns it.
        options: options of the reasoner that the user gave.

    Returns:
        `model` and `served`, both the model's name on its server, and the rest as `identify`.
    """
    who = {"model": opened.name, "dialect": opened.dialect, "segmenter": opened.segmenter_id or NANO}
    return _with_segmenter(who | options.fingerprint() | {"served": opened.name}, opened.chosen_segmenter)


def _with_segmenter(who: dict[str, str], chosen: str | None) -> dict[str, str]:
    """Return a fingerprint in which the chosen segmenter replaces the own one."""
    if chosen is None:
        return who
    folder = checkpoints.segmenter_folder(chosen)
    label = chosen
    if folder is not None:
        label = chosen if chosen == NANO else "/".join(folder.resolve().parts[-2:])
        label = f"{AGENT}:{label}" if split_agent(chosen)[1] else label
        who["segmenter_checksum"] = _checksum([folder])
    return who | {"model": f"{who['model']}+{label}", "segmenter": label}


def loadable(name: str, who: dict[str, str]) -> str:
    """Return the name that loads the fingerprinted checkpoint.

    A name on the Hub has the fingerprinted commit.

    Args:
        name: the name that `identify` was given.
        who: the fingerprint that `identify` returned.
    """
    reasoner, chosen = checkpoints.split_segmenter(name)
    if "checksum" not in who:
        reasoner = who["model"].partition("+")[0]
    return f"{reasoner}+{chosen}" if chosen else reasoner


def _reasoner(
    name: str, revision: str | None, opened: checkpoints.Checkpoint | None, dialect: str | None, hub: HubOptions
) -> dict[str, str]:
    """Return the fingerprint of a checkpoint with its own segmenter."""
    bare, revision = checkpoints.split_revision(name, revision)
    folder = EMBEDDED.get(bare) or Path(bare).expanduser()
    if not folder.is_dir():
        commit = opened.commit if opened else _commit(bare, revision, dialect, hub)
        if commit is None and opened:
            return {"model": bare, **checkpoints.check_folder(opened.reasoner, bare, False, dialect)}
        if commit is None:
            raise CheckpointError(f"{bare} has no commit, so its versions cannot be told apart; pull it again")
        return {"model": f"{bare}@{commit}"}
    if revision is not None:
        raise CheckpointError(f"{bare} is on this disk and has no revisions; leave {revision!r} out")
    settings = checkpoints.check_folder(folder, bare, opened is None, dialect)
    model = bare if bare in EMBEDDED else "/".join(folder.resolve().parts[-2:])
    return {"model": model, **settings, "checksum": _checksum(_folders(folder, settings["segmenter"]))}


def _commit(name: str, revision: str | None, dialect: str | None, options: HubOptions) -> str | None:
    if revision and _COMMIT.fullmatch(revision):
        return revision
    return checkpoints.plan(name, revision, dialect=dialect, options=options).revision


def _folders(folder: Path, segmenter: str) -> list[Path]:
    """Return a checkpoint's folder, and its segmenter's folder if on this disk."""
    own = checkpoints.segmenter_folder(segmenter, folder)
    return [folder] if own is None or own.resolve() == folder.resolve() else [folder, own]


def _checksum(folders: list[Path]) -> str:
    """Return the sha256 of a reasoner's files, and of a segmenter's folder if given."""
    found = [file for folder in folders for file in folder.iterdir()]
    files = sorted(file for file in found if file.suffix in _DECIDES and file.is_file())
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_digest, files))
    whole = hashlib.sha256()
    for file, digest in zip(files, digests, strict=True):
        part = "" if file.parent == folders[0] else "segmenter"
        whole.update(os.fsencode(f"{part}/{file.name}\0") + digest)
    return f"sha256:{whole.hexdigest()}"


def _digest(file: Path) -> bytes:
    with file.open("rb") as stream:
        return sha_fileobj(stream)
