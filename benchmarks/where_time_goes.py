"""Measure the CPU time of each part of segmenting.

OMP_NUM_THREADS=1 python benchmarks/where_time_goes.py

The work is 300 expressions of RefScenes, three per image, in batches of 32.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from genseg_hub import GenSegR1, Prediction, questions
from pipeline import BATCH_SIZE, files

seconds: Counter[str] = Counter()
calls: Counter[str] = Counter()


def timed(owner: Any, name: str) -> None:
    """Replace a function by one that counts its calls and its threads' CPU time."""
    function = getattr(owner, name)

    def run(*arguments, **options):
        started = time.thread_time()
        try:
            return function(*arguments, **options)
        finally:
            seconds[name] += time.thread_time() - started
            calls[name] += 1

    setattr(owner, name, run)


def main() -> None:
    """Print the CPU time of each part and the lengths of the answers."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    model = GenSegR1.from_pretrained("nano", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        examples = files(Path(folder))
        list(model.segment_many(examples[:16], BATCH_SIZE))  # warm
        for owner, name in (
            (model.reasoner, "prefill"),
            (model.reasoner, "step"),
            (model.reasoner, "join"),
            (model.segmenter, "segment"),
            (model.segmenter, "_embed"),
            (questions, "load_image"),
            (model.dialect, "parse"),
        ):
            timed(owner, name)
        started = time.process_time()
        results = list(model.segment_many(examples, BATCH_SIZE))
        print(f"all: {time.process_time() - started:.2f} s of CPU")
    for name in seconds:
        print(f"{name}: {seconds[name]:.2f} s in {calls[name]} calls")
    tokenizer = model.reasoner.processor.tokenizer
    lengths = [len(tokenizer(r.response.text)["input_ids"]) for r in results if isinstance(r, Prediction)]
    longest = sum(max(lengths[start : start + BATCH_SIZE]) for start in range(0, len(lengths), BATCH_SIZE))
    print(f"answers: {min(lengths)} to {max(lengths)} tokens, {sum(lengths) / len(lengths):.0f} in the mean")
    print(f"batches that run until their longest answer ends: {longest + -(-len(lengths) // BATCH_SIZE)} passes")


if __name__ == "__main__":
    main()
