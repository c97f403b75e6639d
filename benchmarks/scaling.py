"""Measure expressions per second of the local engine and of workers on Ray.

python benchmarks/scaling.py --expressions 400 --workers 1 2

Each has one thread; expressions go from a dataset through the engine into MongoDB. "loading included" is the rate of
the whole run: cluster, processes, models, answers, writes. "excluded" is the rate while all workers are busy: from the
moment the last worker begins its first unit until the first worker ends its last one. Units at the edges count in part.
Efficiency is the rate without loading, divided by the rate of one worker times the number of workers.
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

from fiftyone_genseg import demo
from fiftyone_genseg.segmentation import engines
from fiftyone_genseg.segmentation.engines import ray as ray_engine
from fiftyone_genseg.segmentation.request import LOCAL, RAY, SegmentRequest
from fiftyone_genseg.segmentation.run import segment_view

NAME = "genseg-scaling-benchmark"
_SPANS = "GENSEG_SPANS"


class TimedWorker(ray_engine.Worker):
    """A worker that records when it works."""

    def __call__(self, unit):
        """Answer a unit and append its begin, end, rows and threads to a file."""
        begin = time.time()
        rows = super().__call__(unit)
        with Path(os.environ[_SPANS], str(os.getpid())).open("a") as spans:
            spans.write(json.dumps([begin, time.time(), len(rows), torch.get_num_threads()]) + "\n")
        return rows


def measure(dataset: fo.Dataset, engine: str, model: str, batch_size: int, workers: int) -> tuple[float, float]:
    """Return expressions per second, loading included and excluded.

    Args:
        dataset: dataset with an expression on each sample.
        engine: local or ray.
        model: name of the checkpoint.
        batch_size: expressions answered at once.
        workers: processes on Ray.
    """
    os.environ[_SPANS] = folder = tempfile.mkdtemp()
    started = time.time()
    request = SegmentRequest(
        expression_field="expression",
        checkpoint=model,
        existing="overwrite",
        batch_size=batch_size,
        engine=engine,
        workers=workers,
    )
    with engines.opened(request) as opened:
        loaded = time.time()
        for summary in segment_view(dataset, request, opened):
            print(f"\r{engine} {workers}: {summary.done} of {summary.total}", end="", flush=True)
        ended = time.time()
    included = summary.total / (time.time() - started)
    if summary.done != summary.total or summary.statuses["failed"]:
        raise RuntimeError(f"some expressions have no result: {summary}")
    if engine == LOCAL:
        return included, summary.total / (ended - loaded)
    files = [file.read_text().splitlines() for file in Path(folder).iterdir()]
    spans = [[json.loads(line) for line in lines] for lines in files]
    if len(spans) != workers or sum(rows for own in spans for _, _, rows, _ in own) != summary.total:
        raise RuntimeError("a worker did nothing, or a unit was answered twice; take more expressions")
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
    """Measure each engine and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expressions", type=int, default=400)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    # torch reads this when it is imported, also for the segmenter's thread.
    if os.environ.get("OMP_NUM_THREADS") != "1":
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"OMP_NUM_THREADS": "1"})
    ray_engine.Worker = TimedWorker
    with tempfile.TemporaryDirectory() as folder:
        dataset = demo.refscenes_dataset(NAME, Path(folder), -(-options.expressions // 4))
        rows, count = [], len(dataset)
        for engine, workers in [(LOCAL, 1), *((RAY, workers) for workers in options.workers)]:
            rows.append((engine, workers, *measure(dataset, engine, options.model, options.batch_size, workers)))
        dataset.delete()
    single = next((rate for engine, workers, _, rate in rows if engine == RAY and workers == 1), None)
    print(f"\r{options.model}, {count} expressions of RefScenes val, batch size {options.batch_size}\n")
    print("| engine | workers | expressions/s, loading included | excluded | efficiency |\n|---|---:|---:|---:|---:|")
    for engine, workers, included, excluded in rows:
        share = f"{excluded / single / workers:.2f}" if single and engine == RAY else ""
        print(f"| {engine} | {workers} | {included:.2f} | {excluded:.2f} | {share} |")


if __name__ == "__main__":
    main()
