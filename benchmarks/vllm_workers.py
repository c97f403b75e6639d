"""Compare vLLM on Ray's workers, one of which is killed, with Transformers here.

OMP_NUM_THREADS=1 python benchmarks/vllm_workers.py --expressions 200

Expressions of RefScenes val go from a dataset through each engine into MongoDB. When a third of the answers of the
workers is stored, SIGKILL ends one of them. Needs vLLM in this environment; without a GPU, a vLLM for CPUs.
"""

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path

import fiftyone as fo
import numpy as np

from fiftyone_genseg import demo, labels
from fiftyone_genseg.segmentation import engines
from fiftyone_genseg.segmentation.engines import ray as ray_engine
from fiftyone_genseg.segmentation.request import LOCAL, RAY, SegmentRequest
from fiftyone_genseg.segmentation.run import segment_view

NAME = "genseg-vllm-benchmark"
_PIDS = "GENSEG_WORKER_PIDS"


class NamedWorker(ray_engine.Worker):
    """A worker that leaves its process id in a folder when it has its model."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        backend = type(self.model.reasoner).__name__ if self.model else self.problem
        Path(os.environ[_PIDS], str(os.getpid())).write_text(backend)


def run(dataset: fo.Dataset, request: SegmentRequest, kill: bool) -> tuple[float, float]:
    """Segment a dataset, and return the seconds of loading and of everything after it.

    Args:
        dataset: dataset with an expression on each sample.
        request: what to ask.
        kill: whether one worker is killed when a third of the answers is stored.
    """
    begin = time.perf_counter()
    first = killed = None
    with engines.opened(request) as engine:
        opened = time.perf_counter()
        for summary in segment_view(dataset, request, engine):
            first = first or (summary.done and time.perf_counter())
            print(f"\r{request.engine}: {summary.done} of {summary.total}", end="", flush=True)
            if kill and not killed and 3 * summary.done >= summary.total:
                killed = int(min(os.listdir(os.environ[_PIDS]), key=int))
                os.kill(killed, signal.SIGKILL)
        ended = time.perf_counter()
    if summary.done != summary.total or summary.statuses["failed"] or (kill and not killed):
        raise RuntimeError(f"some expressions have no result, or no worker was killed: {summary}")
    return opened - begin, ended - opened


def compare(here: fo.Dataset, there: fo.Dataset) -> tuple[int, int, float]:
    """Return the numbers of equal texts and masks, and the least mask IoU."""
    texts = masks = 0
    least = 1.0
    for one, other in zip(here, there, strict=True):
        ((mine,), (its,)) = (sample["genseg_responses"] for sample in (one, other))
        boxes = [[d.bounding_box for d in sample["genseg_boxes"].detections] for sample in (one, other)]
        texts += (mine.reasoning, mine.status) == (its.reasoning, its.status) and boxes[0] == boxes[1]
        size = fo.ImageMetadata.build_for(one.filepath)
        unions = [labels.union_mask(sample["genseg"], (size.width, size.height)) for sample in (one, other)]
        masks += np.array_equal(*unions)
        if unions[0].any() or unions[1].any():
            least = min(least, (unions[0] & unions[1]).sum() / (unions[0] | unions[1]).sum())
    return texts, masks, least


def main() -> None:
    """Run both engines, and print their rates and how their results agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expressions", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--backend", default="vllm")
    parser.add_argument("--spare", action="store_true", help="kill no worker")
    options = parser.parse_args()
    ray_engine.Worker = NamedWorker
    common = {"expression_field": "expression", "checkpoint": options.model, "batch_size": options.batch_size}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as pids:
        os.environ[_PIDS] = pids
        here = demo.refscenes_dataset(f"{NAME}-{LOCAL}", Path(folder), -(-options.expressions // 4))
        there = here.clone(f"{NAME}-{RAY}")
        seconds = [run(here, SegmentRequest(**common), False)]
        its = {"backend": options.backend}
        request = SegmentRequest(**common, engine=RAY, workers=options.workers, model_options=its)
        seconds.append(run(there, request, not options.spare))
        backends = sorted(file.read_text() for file in Path(pids).iterdir())
        texts, masks, least = compare(here, there)
        count = len(here)
        for dataset in (here, there):
            dataset.delete()
    print(f"\r{options.model}, {count} expressions, batch size {options.batch_size}; workers: {', '.join(backends)}")
    for name, (loading, rest) in zip(("one process", "workers"), seconds, strict=True):
        print(f"{name}: opened in {loading:.1f} s, {count / rest:.1f} expressions/s (workers: their loading included)")
    print(f"same text and boxes {texts} of {count}, same mask {masks} of {count}, least mask IoU {least:.3f}")


if __name__ == "__main__":
    main()
