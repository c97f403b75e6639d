"""Killed at any moment and started again, a run equals one that was never interrupted."""

import os
import random
import signal
import subprocess
import sys
import time

import fiftyone as fo
import pytest

from fiftyone_genseg.demo import refscenes_dataset

from .test_segmentation import run, snapshot

# A server that other processes can reach: the one that this process's FiftyOne started.
WORKER = """
import sys
import fiftyone as fo
from fiftyone_genseg.segmentation import segment_view
from genseg_hub import GenSegR1
model = GenSegR1.from_pretrained("nano", device="cpu")
dataset = fo.load_dataset(sys.argv[1])
for summary in segment_view(dataset, model, "nano", "genseg", expression_field="expression", batch_size=4):
    print(summary.done, flush=True)
"""


@pytest.fixture
def two_datasets(tmp_path):
    made = [refscenes_dataset(f"kill-{name}", tmp_path / name, 50) for name in ("a", "b")]
    yield made
    for dataset in made:
        dataset.delete()


def results(dataset):
    return list(snapshot(dataset).values())


def test_killed_three_times(two_datasets, nano):
    killed, whole = two_datasets
    run(whole, nano, expression_field="expression", batch_size=4)
    rng = random.Random(0)
    progress = []
    for _ in range(3):
        worker = subprocess.Popen([sys.executable, "-c", WORKER, killed.name], stdout=subprocess.PIPE, text=True)
        started = int(worker.stdout.readline())
        progress.append(started)
        stop_at = started + rng.randint(8, 40)
        for line in worker.stdout:
            if int(line) >= stop_at:
                break
        time.sleep(rng.uniform(0, 0.5))
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        killed.reload()
        progress.append(len(killed.exists("genseg_responses")))
    assert 0 < progress[1] < progress[3] < progress[5] < len(killed) == 200
    summary = run(killed, nano, expression_field="expression", batch_size=4)
    assert summary.skipped == progress[5]
    assert results(killed) == results(whole)
    assert isinstance(killed, fo.Dataset)
