"""Which checkpoint it is that answers: what must be the same where its answers of another day are still used.

A checkpoint of the Hub is its commit. Folders have none and are told apart by what is in them, every byte: a copy that
was trained further has the same names, sizes and headers. Reading it all is cheap beside loading it.
"""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from huggingface_hub.utils.sha import sha_fileobj

from genseg_hub import checkpoints
from genseg_hub.checkpoints.catalog import EMBEDDED, NANO
from genseg_hub.errors import CheckpointError

# What decides the answers of a reasoner; a segmenter of its own lies in a folder below.
_DECIDES = (".json", ".safetensors", ".txt", ".jinja")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def identify(name: str, revision: str | None = None, opened: checkpoints.Checkpoint | None = None) -> dict[str, str]:
    """Find out which checkpoint a name stands for, without its weights in memory, and without those of the Hub here.

    Args:
        name, revision: as `checkpoints.pull` takes them.
        opened: the same as `pipeline.connect` gave it, where a server has the reasoner.

    Returns:
        `model`: `owner/name@commit`, which is a name to load it by, that of an embedded checkpoint, or the last two
        parts of a folder's path. Of those without a commit also `dialect`, `segmenter` and `checksum`, of the files
        that decide the answers. With a segmenter chosen in place of its own, `model` ends in `+` and the segmenter,
        and a folder's `segmenter_checksum` is there, too; one of the Hub counts by its name.
        With a server also `served`, its name there. `model` has the commit only where the server says which; of a
        folder `checksum` is of the files here, since what the server has loaded cannot be looked at.

    Raises:
        CheckpointError: as `checkpoints.pull`.
    """
    checkpoints.check_name(name)
    name, chosen = checkpoints.split_segmenter(name)
    who = _reasoner(name, revision, opened)
    if opened and opened.served:
        who["served"] = opened.served
    if chosen is None:
        return who
    folder = checkpoints.segmenter_folder(chosen)
    label = chosen
    if folder is not None:
        label = chosen if chosen == NANO else "/".join(folder.resolve().parts[-2:])
        who["segmenter_checksum"] = _checksum([folder])
    return who | {"model": f"{who['model']}+{label}", "segmenter": label}


def loadable(name: str, who: dict[str, str]) -> str:
    """The name by which what `identify(name)` found is loaded: of the Hub that very commit."""
    reasoner, chosen = checkpoints.split_segmenter(name)
    if "checksum" not in who:
        reasoner = who["model"].partition("+")[0]
    return f"{reasoner}+{chosen}" if chosen else reasoner


def _reasoner(name: str, revision: str | None, opened: checkpoints.Checkpoint | None) -> dict[str, str]:
    """What `identify` says of a checkpoint with its own segmenter."""
    bare, revision = checkpoints.split_revision(name, revision)
    folder = EMBEDDED.get(bare) or Path(bare).expanduser()
    if not folder.is_dir():
        commit = opened.commit if opened else _commit(bare, revision)
        if commit is None and opened:
            return {"model": bare, **checkpoints.check_folder(opened.reasoner, bare, with_reasoner=False)}
        if commit is None:
            raise CheckpointError(f"{bare} has no commit by which its versions could be told apart")
        return {"model": f"{bare}@{commit}"}
    if revision is not None:
        raise CheckpointError(f"{bare} is on this disk and has no revisions; leave {revision!r} out")
    settings = checkpoints.check_folder(folder, bare, with_reasoner=opened is None)
    model = bare if bare in EMBEDDED else "/".join(folder.resolve().parts[-2:])
    return {"model": model, **settings, "checksum": _checksum(_folders(folder, settings["segmenter"]))}


def _commit(name: str, revision: str | None) -> str | None:
    if revision and _COMMIT.fullmatch(revision):
        return revision
    try:
        return checkpoints.plan(name, revision).revision
    except CheckpointError:  # without a network, what is here is taken, as `pull` does
        try:
            return checkpoints.pull(name, revision, local_files_only=True).commit
        except CheckpointError:
            pass
        raise


def _folders(folder: Path, segmenter: str) -> list[Path]:
    """A checkpoint's folder, and that of its segmenter where it is here."""
    own = checkpoints.segmenter_folder(segmenter, folder)
    return [folder] if own is None else [folder, own]


def _checksum(folders: list[Path]) -> str:
    """sha256 of the files of a folder, and of that of its segmenter if one follows."""
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
