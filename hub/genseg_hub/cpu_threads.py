"""The cores of a CPU, divided among threads that compute at the same time.

PyTorch gives all of them to each thread, and two such threads wait for each other at every operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch


class Cores:
    """Those that PyTorch computes with in the thread that makes this.

    Args:
        divided: False leaves PyTorch as it is, for what computes elsewhere.
    """

    _lock = Lock()
    _sharing = 0  # threads that do now, in the process
    _whole = 0  # what the first of them had

    def __init__(self, divided: bool):
        with Cores._lock:
            # A new thread gets the share of one that shares now.
            self.count = Cores._whole if Cores._sharing else torch.get_num_threads()
        self._divided = divided

    @contextmanager
    def share(self, among: int) -> Iterator[None]:
        """Compute with one of `among` equal shares in this thread; one core at least."""
        if not self._divided:
            yield
            return
        # At its first call a thread takes the number that holds for new threads, whatever it was told before; and
        # that number follows every call of `set_num_threads`, so it is set back.
        torch.get_num_threads()
        with Cores._lock:
            if not Cores._sharing:
                Cores._whole = self.count
            Cores._sharing += 1
            torch.set_num_threads(max(1, self.count // among))
        try:
            yield
        finally:
            with Cores._lock:
                torch.set_num_threads(self.count)
                Cores._sharing -= 1
