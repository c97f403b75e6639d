"""Measure how the costs of work on a dataset grow with its size.

python benchmarks/dataset_size.py                           # 1,000, 10,000 and 100,000 samples
python benchmarks/dataset_size.py --quick                   # 1,000 and 3,000
python benchmarks/dataset_size.py --sizes 1000 10000

FiftyOne and its database are real, and so is all code of this project but the model. A stand-in for the model opens
each image and answers with a fixed mask (`size.Known`), so the figures are of reading, writing and everything after it.
Each sample has one expression and its true mask. Its image is one of 100 files of RefScenes.

The script measures, in this order: the first stored answer of a run, the answers to all other expressions, the same run
again with everything done, an evaluation, opening the two panels of the run, an export, and the deletion of the run and
of the dataset.

Wall-clock seconds depend on the load of the machine, which the table shows beside them. The load counts the processes
that wanted a core in the last minute, this process and MongoDB included. The CPU time of this process and of MongoDB
depends on the load less. Memory is the peak of this process over its size before the work. The bar: a sample of the
largest dataset costs at most a quarter more CPU time than a sample of the cheapest smaller dataset.
"""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from own_database import fo  # isort: skip
import numpy as np
import psutil
from bson import ObjectId
from panels import WORDS, send
from side_by_side import Row, parser, report
from size import Known, images

from fiftyone_genseg import evaluate, labels, plugin
from fiftyone_genseg.datasets.export import export
from fiftyone_genseg.panels import _runs
from fiftyone_genseg.segmentation.engines.local import local_engine
from fiftyone_genseg.segmentation.request import SegmentRequest
from fiftyone_genseg.segmentation.run import segment_view

SIZES, QUICK = (1_000, 10_000, 100_000), (1_000, 3_000)
DISTINCT = 400  # samples that FiftyOne makes; the others are copies with new ids, which is faster
SLOWER = 1.25
# The part of the work that grows, by its name in the table.
LIMITS = {
    "first answer": "the ids of all samples are read first",
    "answers, written": "one update of each sample, in this process",
    "resume, everything done": "the stored answers of all samples are read, 1,000 at once",
    "evaluation": "each sample's labels are read and its results written",
    "panels, opened": "the run's table is in memory, one row for each expression",
    "export": "all rows are in memory until the folder is written",
    "deletion of run and dataset": "MongoDB takes the run's fields out of each sample",
}


@dataclass(frozen=True)
class Cost:
    """Costs of one work on one dataset.

    Attributes:
        samples: samples of the dataset.
        seconds: seconds of the clock.
        here: seconds of the CPU in this process.
        database: seconds of the CPU in MongoDB.
        megabytes: peak of this process over its size before.
        load: load of the machine in the last minute.
    """

    samples: int
    seconds: float
    here: float
    database: float
    megabytes: float
    load: float

    @property
    def each(self) -> float:
        """Return the milliseconds of the CPU for a sample."""
        return 1000 * (self.here + self.database) / self.samples


class Peak(threading.Thread):
    """Watch the resident size of this process until `stop`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._process, self._stopped = psutil.Process(), threading.Event()
        self._before = self._highest = self._process.memory_info().rss

    def run(self) -> None:
        """Look ten times a second."""
        while not self._stopped.wait(0.1):
            self._highest = max(self._highest, self._process.memory_info().rss)

    def stop(self) -> float:
        """Return by how many MB the process grew at most."""
        self._stopped.set()
        self.join()
        return (max(self._highest, self._process.memory_info().rss) - self._before) / 1e6


def measured(work: Callable[[], object], samples: int) -> Cost:
    """Do some work on a dataset of so many samples and return its costs."""
    gc.collect()
    server = psutil.Process(fo.core.odm.get_db_conn().client.admin.command("serverStatus")["pid"])
    processes = psutil.Process(), server
    before = [sum(process.cpu_times()[:2]) for process in processes]
    peak, started = Peak(), time.perf_counter()
    peak.start()
    work()
    seconds, megabytes = time.perf_counter() - started, peak.stop()
    spent = [sum(process.cpu_times()[:2]) - begun for process, begun in zip(processes, before, strict=True)]
    return Cost(samples, seconds, *spent, megabytes, os.getloadavg()[0])


def make(count: int, paths: list[Path]) -> fo.Dataset:
    """Make a dataset of samples with an expression and its true mask.

    15 % of the `count` samples have no target.
    """
    rng = np.random.default_rng(0)
    dataset = fo.Dataset(f"sized-{count}", persistent=True)
    samples = []
    for number in range(min(DISTINCT, count)):
        mask = np.zeros((256, 256), dtype=bool)
        left, top = rng.integers(0, 80, 2)
        mask[top : top + 90, left : left + 90] = True
        truth = [] if rng.random() < 0.15 else [labels.detection_from_mask(mask, label=labels.LABEL)]
        metadata = fo.ImageMetadata(width=256, height=256)
        text = " ".join(rng.choice(WORDS, 5))
        samples.append(
            fo.Sample(
                str(paths[number % len(paths)]),
                metadata=metadata,
                expression=text,
                ground_truth=fo.Detections(detections=truth),
            )
        )
    dataset.add_samples(samples, progress=False)
    stored = list(dataset._sample_collection.find())
    for start in range(len(stored), count, len(stored)):
        copies = stored[: count - start]
        for copy in copies:
            copy["_id"] = ObjectId()
            copy["expression"] = " ".join(rng.choice(WORDS, 5))
            for detection in copy["ground_truth"]["detections"]:
                detection["_id"] = ObjectId()
        dataset._sample_collection.insert_many(copies)
    dataset.reload()
    return dataset


def costs(count: int, paths: list[Path]) -> dict[str, Cost]:
    """Do all work on a dataset of `count` samples."""
    dataset, engine = make(count, paths), local_engine(Known())

    def first() -> None:
        run = segment_view(dataset, SegmentRequest(expression_field="expression", batch_size=8), engine)
        next(summary for summary in run if summary.done)
        run.close()

    def segment() -> None:
        for summary in segment_view(dataset, SegmentRequest(expression_field="expression", batch_size=64), engine):
            done = summary.done
        assert done == count, f"{done} of {count} expressions are done"

    def panels() -> None:
        _runs._results.cache_clear()
        _runs._attributes.cache_clear()
        _runs._slices.cache_clear()
        fo.load_dataset(dataset.name).clear_cache()
        for panel in ("referring_evaluation", "failure_slices"):
            send(panel, dataset, "on_load")

    def exported() -> None:
        with tempfile.TemporaryDirectory() as folder:
            made = export(dataset, Path(folder, "export"))
        assert made == count, f"{made} of {count} examples were exported"

    def delete() -> None:
        dataset.delete_evaluation("run")
        dataset.delete()

    works: dict[str, Callable[[], object]] = {
        "first answer": first,
        "answers, written": segment,
        "resume, everything done": segment,
        "evaluation": lambda: evaluate(dataset, eval_key="run", progress=False),
        "panels, opened": panels,
        "export": exported,
        "deletion of run and dataset": delete,
    }
    found = {}
    for name, work in works.items():
        found[name] = measured(work, count)
        print(f"{count:,} samples, {name}: {found[name].seconds:.2f} s", flush=True)
    return found


def table(found: list[dict[str, Cost]]) -> str:
    """Return the costs as a Markdown table."""
    head = (
        "work",
        "samples",
        "seconds",
        "samples/s",
        "CPU ms a sample",
        "in MongoDB",
        "memory",
        "load",
        "it grows with",
    )
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * 7}---|"]
    for name, limit in LIMITS.items():
        for cost in (of_size[name] for of_size in found):
            cells = (
                name,
                f"{cost.samples:,}",
                f"{cost.seconds:.2f}",
                f"{cost.samples / cost.seconds:,.0f}",
                f"{cost.each:.3f}",
                f"{1000 * cost.database / cost.samples:.3f}",
                f"{cost.megabytes:+.0f} MB",
                f"{cost.load:.1f}",
                limit,
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def row(name: str, found: list[Cost]) -> Row:
    """Compare the largest dataset with the cheapest smaller one."""
    largest, cheapest = found[-1], min(found[:-1], key=lambda cost: cost.each)
    ratio = largest.each / cheapest.each
    work = f"{name}, {largest.samples:,} samples"
    against = f"the costs of a sample among {cheapest.samples:,}"
    figure = f"{ratio:.2f}x the CPU time per sample, {largest.megabytes:+.0f} MB"
    as_many = cheapest.seconds * largest.samples / cheapest.samples
    bar, note = f"<= {SLOWER:g}x", LIMITS[name]
    return Row("10", work, against, bar, [largest.seconds], [as_many], figure, ratio <= SLOWER, note, load=largest.load)


def main() -> None:
    """Measure each size, print the table and report the rows."""
    known = parser(__doc__)
    known.add_argument("--sizes", type=int, nargs="+", help="samples of each dataset, ascending")
    options = known.parse_args()
    sizes = options.sizes or (QUICK if options.quick else SIZES)
    if len(sizes) < 2 or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
        known.error(f"give at least two sizes above 0, ascending, not {' '.join(map(str, sizes))}")
    plugin.install()
    paths = images(100)
    costs(100, paths)  # imports and registers everything
    found = [costs(size, paths) for size in sizes]
    print(table(found), flush=True)
    report([row(name, [of_size[name] for of_size in found]) for name in LIMITS], options.out)


if __name__ == "__main__":
    main()
