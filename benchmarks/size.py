"""Cost against size: seconds per expression and memory as datasets, and expressions per image, grow.

python benchmarks/size.py

Real are FiftyOne and its database, the images of RefScenes as files (100 of them, each in many samples), and in
"segmenting with nano" all of nano; its expressions are made up. "Without the model" is the road around it (reading, the
stream, writing) with one fixed mask as the answer to everything, so that 10,000 samples take minutes and the model does
not hide what grows. "Evaluating" is of the labels of evaluation.py, which have no image files.

The bar: the largest costs per expression at most a quarter more than the cheapest of the smaller ones, after a warm-up,
and needs at most 200 MB more memory than the smallest. (The smallest itself is no measure: what a run costs once would
hide what grows.) Memory is the resident size of this process, without the database's, at the highest moment between
two writes, less what it was before the run.
"""

import argparse
import gc
import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from own_database import HOME, fo  # isort: skip
import numpy as np
import psutil
from evaluation import expressions
from genseg_hub import GenSegR1
from genseg_hub.schema import InstancePrompt, Prediction, ReferringExample, Response
from genseg_training.nano import refscenes
from PIL import Image
from side_by_side import Row, report

from fiftyone_genseg.evaluation.measuring import Runner
from fiftyone_genseg.segmentation import segment_view
from fiftyone_genseg.segmentation.engines import in_process

SLOWER, MEGABYTES = 1.25, 200
WARM_UP = 16


class Known:
    """In place of a model: the same mask for every example, after the image was opened."""

    def segment_many(self, examples: Iterable[ReferringExample], batch_size: int) -> Iterator[Prediction]:
        for example in examples:
            with Image.open(example.image) as image:
                size = image.size
            mask = np.zeros((size[1], size[0]), dtype=bool)
            mask[20:90, 30:100] = True
            box = (30.0, 20.0, 100.0, 90.0)
            response = Response("known", "", (InstancePrompt(box, ((60.0, 50.0), (70.0, 60.0))),))
            yield Prediction(response, (mask,), (0.9,), size)


def images(count: int) -> list[Path]:
    """The images of RefScenes val as files."""
    folder = Path(HOME.name) / "images"
    folder.mkdir(exist_ok=True)
    paths = []
    for number, example in enumerate(refscenes.refscenes("val", count * refscenes.EXPRESSIONS_PER_SCENE)):
        if number % refscenes.EXPRESSIONS_PER_SCENE == 0:
            paths.append(folder / f"{number}.png")
            Image.fromarray(np.asarray(example.image)).save(paths[-1])
    return paths


def measured(steps: Iterable, count: int) -> tuple[float, float]:
    """Seconds per expression and MB of growth of a run, step by step."""
    gc.collect()
    process = psutil.Process()
    before = highest = process.memory_info().rss
    started = time.perf_counter()
    for _ in steps:
        highest = max(highest, process.memory_info().rss)
    return (time.perf_counter() - started) / count, (highest - before) / 1e6


def segmenting(model, paths: list[Path], samples: int, asked: int) -> tuple[float, float]:
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(str(path)) for path in itertools.islice(itertools.cycle(paths), samples)])
    words = [f"the red circle {number}" for number in range(asked)]
    its = measured(segment_view(dataset, in_process(model), "known", "genseg", words, batch_size=8), samples * asked)
    dataset.delete()
    return its


def evaluating(samples: int) -> tuple[float, float]:
    dataset = expressions("sized", samples)
    its = measured(Runner(dataset, "genseg", "ground_truth", "run").run(), samples)
    dataset.delete()
    return its


def row(work: str, sizes: list[int], run) -> Row:
    run(WARM_UP)
    found = {size: run(size) for size in sizes}
    for size, (seconds, megabytes) in found.items():
        print(f"{work}, {size:,}: {seconds * 1000:.2f} ms per expression, {megabytes:+.0f} MB", flush=True)
    seconds, memory = zip(*found.values(), strict=True)
    cheapest = min(seconds[:-1])
    ratio, growth = seconds[-1] / cheapest, memory[-1] - memory[0]
    each = ", ".join(f"{size:,}: {found[size][0] * 1000:.2f} ms" for size in sizes)
    figure = f"{ratio:.2f}x the time per expression, {growth:+.0f} MB"
    holds = ratio <= SLOWER and growth <= MEGABYTES
    bar = f"<= {SLOWER:g}x and <= {MEGABYTES} MB more"
    return Row("9", work, f"{sizes[-1]:,} against fewer", bar, [seconds[-1]], [cheapest], figure, holds, each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--model-sizes", type=int, nargs="+", default=[100, 1000], help="samples that nano segments")
    options = parser.parse_known_args()[0]
    paths = images(100)
    nano = GenSegR1.from_pretrained("nano", device="cpu")
    report(
        [
            row("evaluating samples", options.sizes, evaluating),
            row("segmenting without the model, samples", options.sizes, lambda n: segmenting(Known(), paths, n, 1)),
            row("segmenting with nano, samples", options.model_sizes, lambda n: segmenting(nano, paths, n, 1)),
            row("segmenting with nano, expressions an image", [1, 8, 32], lambda n: segmenting(nano, paths, 8, n)),
        ]
    )


if __name__ == "__main__":
    main()
