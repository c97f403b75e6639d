"""Measure how seconds per expression and memory grow with the dataset.

python benchmarks/size.py

FiftyOne and its database are real. Images are 100 files of RefScenes, each in many samples. "Segmenting with nano" runs
all of nano on made-up expressions. "Without the model" runs the code around it (reading, the stream, writing) with one
fixed mask as every answer. So 10,000 samples take minutes, and the model hides no growth. "Evaluating" reads the labels
of evaluation.py, which have no image files.

The bar: after a warm-up, an expression of the largest size costs at most a quarter more than an expression of the
cheapest smaller size. The largest size needs at most 200 MB more memory than the smallest. (Comparing with the smallest
size alone would hide growth, because it bears the costs that each run has once.) Memory is the peak resident size of
this process between two writes, minus its size before the run. The database does not count.
"""

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
from side_by_side import Row, parser, report

from fiftyone_genseg.evaluation.measuring import measure
from fiftyone_genseg.evaluation.request import EvaluationRequest
from fiftyone_genseg.evaluation.writing import write
from fiftyone_genseg.segmentation.engines.local import local_engine
from fiftyone_genseg.segmentation.request import SegmentRequest
from fiftyone_genseg.segmentation.run import segment_view

SLOWER, MEGABYTES = 1.25, 200
WARM_UP = 16


class Known:
    """A stand-in for a model: it opens each image and answers with the same mask."""

    checkpoint = reasoner = None

    def segment_many(self, examples: Iterable[ReferringExample], batch_size: int) -> Iterator[Prediction]:
        """Yield the fixed answer to each example."""
        for example in examples:
            with Image.open(example.image) as image:
                size = image.size
            mask = np.zeros((size[1], size[0]), dtype=bool)
            mask[20:90, 30:100] = True
            box = (30.0, 20.0, 100.0, 90.0)
            response = Response("known", "", (InstancePrompt(box, ((60.0, 50.0), (70.0, 60.0))),))
            yield Prediction(response, (mask,), (0.9,), size)


def images(count: int) -> list[Path]:
    """Write images of RefScenes val and return their files."""
    folder = Path(HOME.name) / "images"
    folder.mkdir(exist_ok=True)
    paths = []
    for number, example in enumerate(refscenes.refscenes("val", count * refscenes.EXPRESSIONS_PER_SCENE)):
        if number % refscenes.EXPRESSIONS_PER_SCENE == 0:
            paths.append(folder / f"{number}.png")
            Image.fromarray(np.asarray(example.image)).save(paths[-1])
    return paths


def measured(steps: Iterable, count: int) -> tuple[float, float]:
    """Return the seconds per expression of a run, and by how many MB its memory grew."""
    gc.collect()
    process = psutil.Process()
    before = highest = process.memory_info().rss
    started = time.perf_counter()
    for _ in steps:
        highest = max(highest, process.memory_info().rss)
    return (time.perf_counter() - started) / count, (highest - before) / 1e6


def segmenting(model, paths: list[Path], samples: int, asked: int) -> tuple[float, float]:
    """Segment so many samples with so many expressions each, and return as `measured`."""
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(str(path)) for path in itertools.islice(itertools.cycle(paths), samples)])
    words = [f"the red circle {number}" for number in range(asked)]
    run = segment_view(dataset, SegmentRequest(tuple(words), batch_size=8), local_engine(model))
    figures = measured(run, samples * asked)
    dataset.delete()
    return figures


def evaluating(samples: int) -> tuple[float, float]:
    """Evaluate so many samples, and return as `measured`."""
    dataset = expressions("sized", samples)
    config = EvaluationRequest(eval_key="run").config(dataset)

    def steps() -> Iterator[float]:
        found = yield from measure(dataset, config)
        yield from write(found, "run")

    figures = measured(steps(), samples)
    dataset.delete()
    return figures


def row(work: str, sizes: list[int], run) -> Row:
    """Run each size and compare the largest with the smaller ones."""
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
    """Measure four kinds of work and report the rows."""
    known = parser(__doc__)
    known.add_argument(
        "--sizes", type=int, nargs="+", help="100, 1,000 and 10,000 by default; with --quick 100 and 300"
    )
    known.add_argument(
        "--model-sizes", type=int, nargs="+", help="samples that nano segments, 100 and 1,000; with --quick 8 and 24"
    )
    options = known.parse_args()
    sizes = options.sizes or ([100, 300] if options.quick else [100, 1000, 10_000])
    model_sizes = options.model_sizes or ([8, 24] if options.quick else [100, 1000])
    per_image = [1, 8] if options.quick else [1, 8, 32]
    paths = images(100)
    nano = GenSegR1.from_pretrained("nano", device="cpu")
    report(
        [
            row("evaluating samples", sizes, evaluating),
            row("segmenting without the model, samples", sizes, lambda n: segmenting(Known(), paths, n, 1)),
            row("segmenting with nano, samples", model_sizes, lambda n: segmenting(nano, paths, n, 1)),
            row("segmenting with nano, expressions an image", per_image, lambda n: segmenting(nano, paths, 8, n)),
        ],
        options.out,
    )


if __name__ == "__main__":
    main()
