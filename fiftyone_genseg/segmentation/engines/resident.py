"""Keep the model of the last run, so that the next run starts at once.

One model is kept. A run with another checkpoint or other options releases it before it loads its own. So does an idle
time, by default ten minutes, which the environment variable GENSEG_KEEP_SECONDS sets; 0 keeps nothing.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from genseg_hub import checkpoints
from genseg_hub.options import HubOptions, pick

from fiftyone_genseg.segmentation.request import SegmentRequest

if TYPE_CHECKING:  # the App imports every operator, and PyTorch would take it seconds
    from genseg_hub import GenSegR1

VARIABLE = "GENSEG_KEEP_SECONDS"
_DEFAULT_SECONDS = 600.0


@dataclass
class _Kept:
    key: Hashable
    model: GenSegR1
    timer: threading.Timer


_lock = threading.Lock()
_kept: _Kept | None = None


def keep_seconds() -> float:
    """Return the seconds that an idle model is kept.

    Raises:
        ValueError: GENSEG_KEEP_SECONDS is no number of seconds.
    """
    text = os.environ.get(VARIABLE, "").strip()
    try:
        seconds = float(text) if text else _DEFAULT_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < threading.TIMEOUT_MAX:
        raise ValueError(f"{VARIABLE} must be a number of seconds (0 keeps no model), not {text!r}")
    return seconds


def key_of(request: SegmentRequest) -> Hashable:
    """Return a key that is equal for two requests of the same model.

    A checkpoint of the Hub counts by its commit, and a folder by the sizes and times of its files. With a server, only
    the request counts.
    """
    options = dict(request.model_options)
    if request.server:
        asked = request.server, request.served_model, request.name, request.revision, request.segmenter
        return *asked, request.device, repr(sorted(options.items()))
    found = checkpoints.pull(
        str(request.name),
        request.revision,
        dialect=options.get("dialect"),
        options=replace(pick(HubOptions, options), force_download=None),
    )
    folders = {found.reasoner, found.segmenter if found.segmenter.is_dir() else found.segmenter.parent}
    files = sorted(file for folder in folders for file in folder.iterdir() if file.is_file())
    stamps = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return found.pinned, stamps, request.device, repr(sorted(options.items()))


@contextmanager
def lent(key: Hashable, load: Callable[[], GenSegR1]) -> Iterator[GenSegR1]:
    """Lend the kept model to a run, or load one; keep it when the run ends.

    While a model is lent, another run loads its own, because a segmenter works on one image at a time.

    Args:
        key: as `key_of` returns it.
        load: loads the model.
    """
    global _kept
    seconds = keep_seconds()
    with _lock:
        kept, _kept = _kept, None
    if kept:
        kept.timer.cancel()
    same = kept.model if kept and kept.key == key else None
    if kept and same is None:
        kept = None
        _free()
    model = same or load()
    kept = same = None
    try:
        yield model
    finally:
        if seconds:
            timer = threading.Timer(seconds, _expire, [key])
            timer.daemon = True
            with _lock:
                earlier, _kept = _kept, _Kept(key, model, timer)
            if earlier:
                earlier.timer.cancel()
            timer.start()


def release() -> str | None:
    """Release the kept model, and return its checkpoint's name; None for no model."""
    global _kept
    with _lock:
        kept, _kept = _kept, None
    if kept is None:
        return None
    kept.timer.cancel()
    name = kept.model.checkpoint.pinned if kept.model.checkpoint else "a model"
    del kept
    _free()
    return name


def _expire(key: Hashable) -> None:
    with _lock:
        mine = _kept is not None and _kept.key == key
    if mine:
        release()


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
