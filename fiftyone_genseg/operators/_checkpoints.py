"""What operators share about checkpoints: the choice in a form, and a download that tells how far it is."""

from __future__ import annotations

from collections.abc import Iterator
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


def announce(files: list) -> str:
    """Number, size and destination of planned files (`checkpoints.planned`)."""
    total, missing = (
        checkpoints.readable_size(sum(file.file_size or 0 for file in files if file.will_download or not only_missing))
        for only_missing in (False, True)
    )
    return f"{len(files)} files, {total}, of which {missing} to download into {constants.HF_HUB_CACHE}"


def pulling(name: str) -> Iterator[tuple[float, str]]:
    """Download what is missing of a checkpoint; yields the share that is here and a sentence, now and then.

    Raises:
        checkpoints.CheckpointError: as `checkpoints.pull`.
    """
    bare, revision = checkpoints.split_revision(name)
    files = checkpoints.planned(bare, revision)
    missing = sum(file.file_size or 0 for file in files if file.will_download)
    if not missing:
        return
    cache = Path(constants.HF_HUB_CACHE)
    # the segmenter may be another repository; every file knows the snapshot that it belongs to
    blobs = {cache / Path(file.local_path).relative_to(cache).parts[0] / "blobs" for file in files}
    before = _size(blobs)
    with ThreadPoolExecutor(1, thread_name_prefix="pull") as worker:
        download = worker.submit(checkpoints.pull, bare, files[0].commit_hash)
        while not wait([download], timeout=_POLL_SECONDS).done:
            here = min(missing, _size(blobs) - before)
            label = f"{checkpoints.readable_size(here)} of {checkpoints.readable_size(missing)} of {name}, into {cache}"
            yield here / missing, label
        download.result()


def _size(folders: set[Path]) -> int:
    sizes = []
    for file in (file for folder in folders for file in folder.glob("*")):
        try:
            sizes.append(file.stat().st_size)
        except FileNotFoundError:  # renamed meanwhile
            continue
    return sum(sizes)
