"""What operators share about checkpoints: the choice in a form, and a download that tells how far it is."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from fiftyone.operators import types
from genseg_hub import checkpoints
from huggingface_hub import constants

from fiftyone_genseg import training

_POLL_SECONDS = 0.5


def choices() -> types.AutocompleteView:
    """Known names and the checkpoints that were trained here; any other may be typed."""
    view = types.AutocompleteView(allow_user_input=True)
    for known in checkpoints.KNOWN:
        where = "on this disk" if checkpoints.is_on_disk(known.name) else "will be downloaded"
        view.add_choice(
            known.name,
            label=f"{known.name} ({known.parameters} parameters, {where})",
            description=f"needs {known.needs}",
        )
    for name, folder in training.trained().items():
        view.add_choice(str(folder), label=f"{name} (trained here)", description=str(folder))
    return view


def pulling(name: str) -> Generator[tuple[float, str], None, checkpoints.Checkpoint]:
    """Download what is missing of a checkpoint; yields the share that is here and a sentence, now and then, and returns
    the checkpoint.

    Raises:
        checkpoints.CheckpointError: as `checkpoints.pull`.
    """
    bare, revision = checkpoints.split_revision(name)
    files = checkpoints.planned(bare, revision)
    missing = sum(file.file_size or 0 for file in files if file.will_download)
    revision = files[0].commit_hash if files else revision  # even if the branch moves on meanwhile
    if not missing:
        return checkpoints.pull(bare, revision)
    cache = Path(constants.HF_HUB_CACHE)
    # the segmenter may be another repository; every file knows the snapshot that it belongs to
    blobs = {cache / Path(file.local_path).relative_to(cache).parts[0] / "blobs" for file in files}
    before = _size(blobs)
    with ThreadPoolExecutor(1, thread_name_prefix="pull") as worker:
        download = worker.submit(checkpoints.pull, bare, revision)
        while not wait([download], timeout=_POLL_SECONDS).done:
            here = min(missing, _size(blobs) - before)
            label = f"{checkpoints.readable_size(here)} of {checkpoints.readable_size(missing)} of {name}, into {cache}"
            yield here / missing, label
        return download.result()


def _size(folders: set[Path]) -> int:
    sizes = []
    for file in (file for folder in folders for file in folder.glob("*")):
        try:
            sizes.append(file.stat().st_size)
        except FileNotFoundError:  # renamed meanwhile
            continue
    return sum(sizes)
