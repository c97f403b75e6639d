"""Operators that are generators: how they run, end and stop, their progress, and a download that shows it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone.operators as foo
from genseg_hub import checkpoints
from huggingface_hub import constants

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Done:
    """What a run says at its end.

    Attributes:
        text: a sentence.
        variant: of the App's notification.
        then: what the App is told next, such as `ctx.ops.reload_dataset`; not called where the run is delegated.
    """

    text: str
    variant: str = "success"
    then: tuple[Callable[[], Any], ...] = ()


def config(name: str, label: str, description: str) -> foo.OperatorConfig:
    """An operator that is a generator, in the App or in the background, whose form follows what is typed."""
    return foo.OperatorConfig(
        name=name,
        label=label,
        description=description,
        dynamic=True,
        execute_as_generator=True,
        allow_immediate_execution=True,
        allow_delegated_execution=True,
    )


def run(ctx, work: Generator[Any, None, Done], stopped: str) -> Iterator:
    """Pass on the messages of some work and say how it ended.

    Nothing leaves a generator but messages: in the App an error is shown by one, after the words `stopped`. It is
    raised where the run is delegated, which records it, and for callers from Python that ask for it.
    """
    try:
        done = yield from work
    except Exception as error:
        if ctx.delegated or ctx.params.get("raise_errors"):
            raise
        yield ctx.ops.notify(f"{stopped}: {error}", variant="error")
        return
    if ctx.delegated:
        ctx.set_progress(1.0, label=done.text)
        return
    yield ctx.ops.notify(done.text, variant=done.variant)
    for message in done.then:
        yield message()


def tell(ctx, share: float, label: str) -> Iterator:
    """Show progress: in the App by a message to yield, or in the list of delegated runs."""
    if ctx.delegated:
        ctx.set_progress(share, label=label)
    else:
        yield ctx.trigger("set_progress", {"progress": share, "label": label})


def pulling(ctx, name: str, with_reasoner: bool = True) -> Generator[Any, None, checkpoints.Checkpoint]:
    """Download what is missing of a checkpoint; yields messages of its progress and returns the checkpoint.

    Args:
        name, with_reasoner: as `checkpoints.pull` takes them.

    Raises:
        CheckpointError: as `checkpoints.pull`.
    """
    plan = checkpoints.plan(name, with_reasoner=with_reasoner)
    cache = Path(constants.HF_HUB_CACHE)
    # The segmenter may be another repository; every file knows the snapshot that it belongs to.
    blobs = {cache / Path(file.local_path).relative_to(cache).parts[0] / "blobs" for file in plan.files}
    before = _size(blobs)
    with ThreadPoolExecutor(1, thread_name_prefix="pull") as worker:
        download = worker.submit(checkpoints.pull, plan.name, plan.revision, with_reasoner=with_reasoner)
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
