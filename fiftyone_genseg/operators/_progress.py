"""Progress of operators that are generators, and a download that shows it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from genseg_hub import checkpoints
from huggingface_hub import constants

_POLL_SECONDS = 0.5


def tell(ctx, share: float, label: str) -> Iterator:
    """Show progress: in the App by a message to yield, or in the list of delegated runs."""
    if ctx.delegated:
        ctx.set_progress(share, label=label)
    else:
        yield ctx.trigger("set_progress", {"progress": share, "label": label})


def pulling(ctx, name: str) -> Generator[Any, None, checkpoints.Checkpoint]:
    """Download what is missing of a checkpoint; yields messages of its progress and returns the checkpoint.

    Raises:
        checkpoints.CheckpointError: as `checkpoints.pull`.
    """
    plan = checkpoints.plan(name)
    cache = Path(constants.HF_HUB_CACHE)
    # The segmenter may be another repository; every file knows the snapshot that it belongs to.
    blobs = {cache / Path(file.local_path).relative_to(cache).parts[0] / "blobs" for file in plan.files}
    before = _size(blobs)
    with ThreadPoolExecutor(1, thread_name_prefix="pull") as worker:
        download = worker.submit(checkpoints.pull, plan.name, plan.revision)
        while not wait([download], timeout=_POLL_SECONDS).done:
            here, missing = min(plan.missing, _size(blobs) - before), plan.missing
            words = f"{checkpoints.readable_size(here)} of {checkpoints.readable_size(missing)} of {name}, into {cache}"
            yield from tell(ctx, here / missing if missing else 1.0, words)
        return download.result()


def _size(folders: set[Path]) -> int:
    sizes = []
    for file in (file for folder in folders for file in folder.glob("*")):
        try:
            sizes.append(file.stat().st_size)
        except FileNotFoundError:  # renamed meanwhile
            continue
    return sum(sizes)
