"""Follow an answer that another thread generates."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar

_HEARTBEAT = 0.5  # seconds after which a text is yielded again, so that the caller can stop
_T = TypeVar("_T")


def follow(future: Future[_T], texts: SimpleQueue[str | None]) -> Iterator[str]:
    """Yield the newest text until a future is done.

    Args:
        future: the answer.
        texts: queue into which the other thread puts the text so far.
    """
    future.add_done_callback(lambda _: texts.put(None))
    text = ""
    while True:
        new: list[str | None] = []
        try:
            new.append(texts.get(timeout=_HEARTBEAT))
            while True:
                new.append(texts.get_nowait())
        except Empty:
            pass
        text = next((it for it in reversed(new) if it is not None), text)
        if new != [None]:
            yield text
        if None in new:
            return
