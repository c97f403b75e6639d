"""Compare photographs of 12 megapixels with the small scenes that they enlarge.

python benchmarks/photographs.py [--images 12] [--batch-size 32]

The table has CPU time, memory and masks. Scenes of RefScenes are enlarged to 4032 x 3024 pixels, with noise, and saved
as JPEG. Nano answers one expression about each. "Whole" gives the reasoner's resize and the segmenter's resize the
whole decoded photograph, as for small images. Memory is the growth of the process after answers about all scenes and
one photograph.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from genseg_hub import GenSegR1, Prediction, ReferringExample, questions
from genseg_training.nano.refscenes import refscenes
from PIL import Image

SIZE = (4032, 3024)


def files(folder: Path, count: int) -> tuple[list[ReferringExample], list[ReferringExample]]:
    """Return examples of enlarged scenes, and of the scenes."""
    scenes = {example.image_id: example for example in refscenes("val", 10 * count) if example.masks}
    rng = np.random.default_rng(0)
    large, small = [], []
    for number, scene in enumerate(list(scenes.values())[:count]):
        image = Image.fromarray(scene.image)
        image.save(folder / f"{number}.png")
        noisy = np.asarray(image.resize(SIZE, Image.Resampling.BICUBIC)) + rng.normal(0, 3, (*SIZE[::-1], 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=92)
        large.append(ReferringExample(folder / f"{number}.jpg", scene.expression))
        small.append(ReferringExample(folder / f"{number}.png", scene.expression))
    return large, small


def measured(model: GenSegR1, examples: list[ReferringExample], batch_size: int) -> tuple[list, float, float]:
    """Return the results, CPU seconds per example, and the process's growth in bytes."""
    model.release()
    process, stopped, most = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not stopped.wait(0.01):
            most[0] = max(most[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.process_time()
    results = []
    for result in model.segment_many(examples, batch_size):
        if not isinstance(result, Prediction):
            raise AssertionError(result.message)
        results.append((result.response, result.to_dict(), np.packbits(result.mask)))
    seconds = (time.process_time() - started) / len(examples)
    stopped.set()
    watcher.join()
    return results, seconds, most[0]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    model = GenSegR1.from_pretrained("nano", device="cpu")
    with tempfile.TemporaryDirectory() as name:
        large, small = files(Path(name), options.images)
        list(model.segment_many([*small, large[0]], options.batch_size))  # warm
        _, seconds, grown = measured(model, small, options.batch_size)
        print(f"scenes as they are: {1000 * seconds:.0f} ms of CPU an image with its RLE, +{grown / 1e6:.0f} MB")
        reduced, seconds, grown = measured(model, large, options.batch_size)
        print(f"12 megapixels, reduced once: {1000 * seconds:.0f} ms, +{grown / 1e6:.0f} MB")
        questions.WHOLE_PIXELS = 10**9
        whole, seconds, grown = measured(model, large, options.batch_size)
        print(f"12 megapixels, whole: {1000 * seconds:.0f} ms, +{grown / 1e6:.0f} MB")
    equal = sum(a[0].instances == b[0].instances for a, b in zip(reduced, whole, strict=True))
    ious = []
    for (_, _, a), (_, _, b) in zip(reduced, whole, strict=True):
        both, either = np.bitwise_count(a & b).sum(), np.bitwise_count(a | b).sum()
        ious.append(1.0 if not either else both / either)
    print(f"boxes and points equal: {equal} of {len(whole)}; mask IoU mean {np.mean(ious):.4f}, least {min(ious):.4f}")


if __name__ == "__main__":
    main()
