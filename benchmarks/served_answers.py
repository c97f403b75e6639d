"""Compare a server's answers and speed with this process's, with equal weights.

genseg serve nano --port 8000 &
python benchmarks/served_answers.py --server http://127.0.0.1:8000/v1 --limit 200

Greedy decoding does not make two engines bit-identical, because they add floats in other orders. A few answers differ.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from genseg_hub import Failure, GenSegR1
from genseg_training.nano.refscenes import refscenes


def main() -> None:
    """Print both speeds and how many answers agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True, help="address of the server")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--limit", type=int, default=200, help="expressions of RefScenes val")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--media-folder", help="folder that the server reads images from")
    arguments = parser.parse_args()
    examples = list(refscenes("val", arguments.limit))
    served = GenSegR1.from_pretrained(arguments.model, server=arguments.server, media_folder=arguments.media_folder)
    results = {}
    for name, model in (("server", served), ("this process", GenSegR1.from_pretrained(arguments.model))):
        model.segment(examples[0].image, examples[0].expression)  # warm
        begun = time.perf_counter()
        results[name] = list(model.segment_many(examples, arguments.batch_size))
        print(f"{name}: {len(examples) / (time.perf_counter() - begun):.1f} expressions per second")
    pairs = list(zip(*results.values(), strict=True))
    failed = sum(isinstance(result, Failure) for pair in pairs for result in pair)
    answered = [pair for pair in pairs if not any(isinstance(result, Failure) for result in pair)]
    texts = sum(one.response.text == other.response.text for one, other in answered)
    masks = sum(np.array_equal(one.mask, other.mask) for one, other in answered)
    print(f"of {len(pairs)} answers {texts} have the same text, {masks} the same mask, {failed} failed")


if __name__ == "__main__":
    main()
