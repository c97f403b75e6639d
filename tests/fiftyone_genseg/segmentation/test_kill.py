"""Killed at any moment and started again, a run in the background equals one that was never interrupted."""

import random
import subprocess
import sys
import time
from pathlib import Path

import fiftyone.operators as foo
import pytest
from fiftyone.operators.delegated import DelegatedOperationService

from fiftyone_genseg.demo import refscenes_dataset
from tests.fiftyone_genseg.segmentation.test_run import run, snapshot

URI = "@fiftyone-genseg/genseg/referring_segment"
EXPRESSIONS = 48


@pytest.fixture
def two_datasets(tmp_path):
    made = [refscenes_dataset(f"kill-{name}", tmp_path / name, EXPRESSIONS // 4) for name in ("a", "b")]
    yield made
    for dataset in made:
        dataset.delete()


class Orchestrator:
    """`fiftyone delegated launch`, in a process of its own, which finds the database that this process started."""

    def __init__(self):
        fiftyone = Path(sys.executable).with_name("fiftyone")
        self.process = subprocess.Popen([fiftyone, "delegated", "launch"], stdout=subprocess.DEVNULL)

    def wait(self, condition):
        while not condition():
            assert self.process.poll() is None, "the orchestrator ended"
            time.sleep(0.05)

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def launch():
    started = []

    def start() -> Orchestrator:
        started.append(Orchestrator())
        return started[-1]

    yield start
    for orchestrator in started:
        orchestrator.kill()


def results(dataset):
    return list(snapshot(dataset).values())


def ids(dataset) -> dict:
    """Sample id -> ids of the masks, where there is a result."""
    return {
        sample.id: [mask.id for mask in sample["genseg"].detections] for sample in dataset.exists("genseg_responses")
    }


def test_a_delegated_run_that_is_killed_twice(two_datasets, nano, plugin, launch):
    killed, whole = two_datasets
    service = DelegatedOperationService()

    def now():
        return service.get(operation.id)

    def done() -> int:
        return round((now().status.progress or 0) * EXPRESSIONS) if now().status else 0

    params = {"batch_size": 4, "device": "cpu"}
    foo.execute_operator(URI, {"dataset": killed}, params=params, request_delegation=True)
    (operation,) = service.list_operations(operator=URI, dataset_id=killed._doc.id)
    rng = random.Random(0)
    stored: dict = {}
    for _ in range(2):
        stop_at = len(stored) + rng.randint(4, 12)
        orchestrator = launch()
        orchestrator.wait(lambda stop_at=stop_at: done() >= stop_at)
        time.sleep(rng.uniform(0, 0.5))
        orchestrator.kill()
        assert now().run_state == "running", "nobody is there to say that it was killed"
        killed.reload()
        before, stored = stored, ids(killed)
        assert len(before) < len(stored) < EXPRESSIONS
        assert before.items() <= stored.items()
        service.set_failed(operation.id)  # fiftyone delegated fail
        operation = service.rerun_operation(operation.id)  # fiftyone delegated rerun
    orchestrator = launch()
    orchestrator.wait(lambda: now().run_state != "running" and now().run_state != "queued")
    assert now().run_state == "completed", now().result.error
    assert now().status.label.endswith(f", {len(stored)} skipped"), "what is stored is not asked again"
    killed.reload()
    assert stored.items() <= ids(killed).items()
    run(whole, nano, expression_field="expression", batch_size=4)
    assert results(killed) == results(whole)
