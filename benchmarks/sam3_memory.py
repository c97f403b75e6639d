"""Time and weigh SAM 3 by words at its real size, with random weights.

    python benchmarks/sam3_memory.py --phrases 4

Random weights cost what Meta's weights cost, and find nothing.
"""

from __future__ import annotations

import argparse
import threading
import time

import numpy as np
import psutil
import torch
import transformers
from genseg_hub.segmenters.words import Words
from transformers.convert_slow_tokenizer import bytes_to_unicode


def main() -> None:
    """Print the seconds and the memory of one image."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--phrases", type=int, default=4, help="phrases that are answered together")
    arguments = parser.parse_args()
    letters = list(bytes_to_unicode().values())
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(vocab={word: i for i, word in enumerate(vocabulary)}, merges=[])
    processor = transformers.Sam3Processor(transformers.Sam3ImageProcessor(), tokenizer)
    words = Words(transformers.Sam3Model(transformers.Sam3Config()), processor)
    weights = sum(parameter.numel() for parameter in words._model.parameters())
    before = psutil.Process().memory_info().rss
    print(f"{weights / 1e6:.0f} M parameters, {4 * weights / 1e9:.2f} GB in float32; {torch.get_num_threads()} threads")
    image = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), dtype=np.uint8)
    phrases = ["cat", "dog", "tree", "car", "cup", "hat", "sky", "boat"][: arguments.phrases]
    for what, asked, key in (("one image and one phrase", phrases[:1], "a"), ("its other phrases", phrases[1:], "a")):
        if not asked:
            continue
        begun = time.perf_counter()
        with _Peak() as peak:
            words.find(image, asked, key)
        seconds = time.perf_counter() - begun
        print(f"{what} ({len(asked)}): {seconds:.1f} s, {(peak.bytes - before) / 1e9:.2f} GB above the weights at most")


class _Peak:
    """The largest resident memory in a `with` statement, looked at every 10 ms."""

    def __enter__(self) -> _Peak:
        self.bytes, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.bytes = max(self.bytes, psutil.Process().memory_info().rss)


if __name__ == "__main__":
    main()
