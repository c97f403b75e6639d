"""Expressions per second of the local engine and of workers on Ray, each with one thread, through the whole road:
dataset, engine, MongoDB.

python benchmarks/scaling.py --expressions 400 --workers 1 2

"loading included" is the time of the whole run: cluster, processes, models, answers, writes. "excluded" is the rate
while all workers are at work: from when the last one begins its first unit until the first one ends its last, units at
the edges counted in part. Efficiency is the latter rate over that of one worker, times the number of workers.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import fiftyone as fo
import torch

from fiftyone_genseg import demo, segmentation
from fiftyone_genseg.segmentation import engines, ray_engine

NAME = "genseg-scaling-benchmark"
_SPANS = "GENSEG_SPANS"


class TimedWorker(ray_engine.Worker):
    """A worker that notes when it works."""

    def __call__(self, unit):
        begin = time.time()
        rows = super().__call__(unit)
        with Path(os.environ[_SPANS], str(os.getpid())).open("a") as spans:
            spans.write(json.dumps([begin, time.time(), len(rows), torch.get_num_threads()]) + "\n")
        return rows


def measure(dataset: fo.Dataset, engine: str, model: str, batch_size: int, workers: int) -> tuple[float, float]:
    """Expressions per second, loading included and excluded."""
    os.environ[_SPANS] = folder = tempfile.mkdtemp()
    started = time.time()
    with engines.opened(engine, model, workers=workers) as (answers, pinned):
        loaded = time.time()
        run = segmentation.segment_view(
            dataset,
            answers,
            pinned,
            "genseg",
            expression_field="expression",
            existing="overwrite",
            batch_size=batch_size,
        )
        for summary in run:
            print(f"\r{engine} {workers}: {summary.done} of {summary.total}", end="", flush=True)
        ended = time.time()
    included = summary.total / (time.time() - started)
    if summary.done != summary.total or summary.statuses["failed"]:
        raise RuntimeError(f"the run is not whole: {summary.to_dict()}")
    if engine == engines.LOCAL:
        return included, summary.total / (ended - loaded)
    files = [file.read_text().splitlines() for file in Path(folder).iterdir()]
    spans = [[json.loads(line) for line in lines] for lines in files]
    if len(spans) != workers or sum(rows for own in spans for _, _, rows, _ in own) != summary.total:
        raise RuntimeError("a worker did nothing, or a unit was answered twice: take more expressions")
    if {threads for own in spans for *_, threads in own} != {1}:
        raise RuntimeError("a worker had several threads")
    begin, end = max(own[0][0] for own in spans), min(own[-1][1] for own in spans)
    answered = sum(
        rows * max(0.0, min(end, until) - max(begin, since)) / (until - since)
        for own in spans
        for since, until, rows, _ in own
    )
    return included, answered / (end - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expressions", type=int, default=400)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    if (
        os.environ.get("OMP_NUM_THREADS") != "1"
    ):  # read when torch is imported; it is that of the segmenter's thread, too
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"OMP_NUM_THREADS": "1"})
    ray_engine.Worker = TimedWorker
    with tempfile.TemporaryDirectory() as folder:
        dataset = demo.refscenes_dataset(NAME, Path(folder), -(-options.expressions // 4))
        rows, count = [], len(dataset)
        for engine, workers in [(engines.LOCAL, 1), *((engines.RAY, workers) for workers in options.workers)]:
            rows.append((engine, workers, *measure(dataset, engine, options.model, options.batch_size, workers)))
        dataset.delete()
    single = next((rate for engine, workers, _, rate in rows if engine == engines.RAY and workers == 1), None)
    print(f"\r{options.model}, {count} expressions of RefScenes val, batch size {options.batch_size}\n")
    print("| engine | workers | expressions/s, loading included | excluded | efficiency |\n|---|---:|---:|---:|---:|")
    for engine, workers, included, excluded in rows:
        share = f"{excluded / single / workers:.2f}" if single and engine == engines.RAY else ""
        print(f"| {engine} | {workers} | {included:.2f} | {excluded:.2f} | {share} |")


if __name__ == "__main__":
    main()
