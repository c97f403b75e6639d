"""The database is killed in the middle of a run: what the summary counted is stored."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pymongo
import pytest

from tests.helpers import database

# Answers without a model, as fast as they can be written.
RUN = """
import sys
import fiftyone as fo
import numpy as np
from genseg_hub.schema import InstancePrompt, Prediction, Response
from fiftyone_genseg.segmentation.request import SegmentRequest
from fiftyone_genseg.segmentation.run import segment_view

class Engine:
    checkpoint = "none"
    def answer(self, examples, batch_size):
        for example in examples:
            prompt = InstancePrompt((1.0, 1.0, 5.0, 5.0), ((2.0, 2.0),))
            yield example, Prediction(Response("", "because", (prompt,)), (np.ones((8, 8), bool),), (0.5,), (8, 8))

dataset = fo.Dataset("killed", persistent=True)
dataset.add_samples([fo.Sample(filepath=f"/no/{number}.png") for number in range(5000)], progress=False)
for summary in segment_view(dataset, SegmentRequest(("a thing",), batch_size=4), Engine()):
    print(summary.done, flush=True)
"""


def counted(file: Path) -> int:
    """Return the last whole number that a run printed."""
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return int(lines[-1]) if lines else 0


@pytest.mark.parametrize("moment", [20, 41, 83])
def test_what_was_counted_is_stored(tmp_path, moment):
    folder, file = tmp_path / "mongo", tmp_path / "counts"
    address, mongod = database.start(folder)
    environment = os.environ | {"FIFTYONE_DATABASE_URI": address, "HOME": str(tmp_path)}
    with file.open("w") as output:
        run = subprocess.Popen([sys.executable, "-c", RUN], env=environment, stdout=output, stderr=subprocess.DEVNULL)
    try:
        while counted(file) < moment:
            assert run.poll() is None
            time.sleep(0.01)
        mongod.kill()  # SIGKILL: it can write nothing more
        mongod.wait()
        time.sleep(0.5)
    finally:
        run.kill()
        run.wait()
        mongod.kill()
    address, mongod = database.start(folder)
    try:
        with pymongo.MongoClient(address) as client:
            tables = client[os.environ["FIFTYONE_DATABASE_NAME"]]
            samples = tables[tables.datasets.find_one({"name": "killed"})["sample_collection_name"]]
            stored = samples.count_documents({"genseg_responses.status": "segmented"})
    finally:
        mongod.terminate()
        mongod.wait()
    assert stored >= counted(file) >= moment
