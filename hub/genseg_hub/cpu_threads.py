"""Divide CPU cores among threads that compute at the same time.

PyTorch gives every thread all cores, and then two computing threads wait for each other at every operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch


class Cores:
    """CPU threads that PyTorch uses in the calling thread.

    Args:
        divided: False changes nothing in PyTorch, because the work runs on another device.
    """

    _lock = Lock()
    _sharing = 0  # threads of the process that share now
    _whole = 0  # cores that the first of them had

    def __init__(self, divided: bool):
        with Cores._lock:
            # A new thread inherits the reduced number of a thread that shares now.
            self.count = Cores._whole if Cores._sharing else torch.get_num_threads()
        self._divided = divided

    @contextmanager
    def share(self, among: int) -> Iterator[None]:
        """Compute with one of `among` equal shares of the cores in this thread.

        The share has one core at least.
        """
        if not self._divided:
            yield
            return
        # A thread's first call of PyTorch resets its number to the number of new threads, so it is made before.
        # Every call of `set_num_threads` also changes the number of new threads, so `finally` sets it back.
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
