"""Every test process has its own home, database and plugins directory; all share one MongoDB."""

import json
import os
import shutil
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from weakref import WeakSet

from tests.helpers import database

_HOME = tempfile.TemporaryDirectory(prefix="genseg-tests-", ignore_cleanup_errors=True)
_MONGOD = None
if "FIFTYONE_DATABASE_URI" not in os.environ:  # workers of pytest-xdist inherit the one that their parent has set
    os.environ["FIFTYONE_DATABASE_URI"], _MONGOD = database.start(Path(_HOME.name) / "mongo")
if "PYTEST_XDIST_WORKER" in os.environ:  # before PyTorch is imported: workers side by side have a core each
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ |= {
    "HOME": _HOME.name,
    "HF_HOME": f"{_HOME.name}/hf",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "FIFTYONE_PLUGINS_DIR": f"{_HOME.name}/plugins",
    "FIFTYONE_DATABASE_NAME": f"genseg-tests-{os.getpid()}",
    "FIFTYONE_DO_NOT_TRACK": "1",
    "FIFTYONE_DATABASE_VALIDATION": "false",
    "FIFTYONE_SHOW_PROGRESS_BARS": "false",
    "FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS": "true",
}

os.environ.pop("GENSEG_CHECKPOINT", None)  # of the person who runs the tests

import hypothesis  # noqa: E402
import pymongo  # noqa: E402
import pytest  # noqa: E402
from genseg_hub import GenSegR1  # noqa: E402
from genseg_hub.checkpoints.catalog import EMBEDDED  # noqa: E402
from genseg_hub.publishing import commits  # noqa: E402
from huggingface_hub import constants, file_download  # noqa: E402
from huggingface_hub.utils import _http  # noqa: E402

from tests.helpers.hub_server import WRITER, HubServer  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = ROOT / "examples" / "photos"
# Seconds of each test with all of its cases, setting up included: `make durations` records them.
DURATIONS, SLOW_SECONDS, LEAST_RECORDED = ROOT / "tests" / "durations.json", 1.0, 0.5
_SECONDS = Counter[str]()
hypothesis.settings.register_profile("tests", deadline=None)  # no test depends on speed
hypothesis.settings.load_profile("tests")
CHUNK = 1_000_000  # of downloads: smaller than the weights, for the client keeps whole chunks only


@pytest.fixture(autouse=True)
def _nothing_was_used_before():
    """Forget the checkpoint that an earlier test used, so that the default is nano."""
    (Path(_HOME.name) / ".fiftyone" / "genseg.json").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def nano() -> GenSegR1:
    return GenSegR1.from_pretrained("nano", device="cpu")


@pytest.fixture(scope="session")
def plugin():
    """Link the plugin as `genseg plugin install` does, and return the link."""
    from fiftyone_genseg import plugin

    return plugin.install()


@pytest.fixture
def dataset(tmp_path):
    """RefScenes val: 4 scenes with 4 expressions each, one sample per expression."""
    from fiftyone_genseg.demo import refscenes_dataset

    made = refscenes_dataset(f"test-{tmp_path.name}", tmp_path / "images", 4)
    yield made
    made.delete()


@pytest.fixture
def folder(tmp_path):
    """Return a checkpoint folder, a copy of nano."""
    return shutil.copytree(EMBEDDED["nano"], tmp_path / "checkpoint")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Start an empty Hub, and point the real client at it with an empty cache and a token that may write."""
    server = HubServer()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    # The client's pauses between its retries are not what is tested
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(commits, "time", SimpleNamespace(sleep=server.waited.append))
    yield server
    server.shutdown()
    server.server_close()


def pytest_addoption(parser):
    parser.addoption("--screenshots", metavar="FOLDER", help="keep screenshots of the browser tests here")
    parser.addoption("--record-durations", action="store_true", help="write the seconds of slow tests anew")


def pytest_collection_modifyitems(items):
    """Mark tests as slow by what they took when durations were recorded, and run the slowest files first.

    A new test is quick until then. With the slowest files first, no process waits at the end for another's.
    """
    seconds = json.loads(DURATIONS.read_text())
    of_file = Counter[str]()
    for test, took in seconds.items():
        of_file[test.partition("::")[0]] += took
    for item in items:
        if seconds.get(_function(item.nodeid), 0) >= SLOW_SECONDS:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: -of_file[item.nodeid.partition("::")[0]])


def pytest_runtest_logreport(report):
    _SECONDS[_function(report.nodeid)] += report.duration


def pytest_sessionfinish(session):
    name = os.environ["FIFTYONE_DATABASE_NAME"]
    with pymongo.MongoClient(os.environ["FIFTYONE_DATABASE_URI"]) as client:
        client.drop_database(name)
    if session.config.getoption("--record-durations") and "PYTEST_XDIST_WORKER" not in os.environ:
        found = {test: round(took, 1) for test, took in sorted(_SECONDS.items()) if took >= LEAST_RECORDED}
        DURATIONS.write_text(json.dumps(found, indent=1) + "\n")


def pytest_unconfigure():
    if _MONGOD:
        _MONGOD.terminate()
        _MONGOD.wait()


def _function(nodeid: str) -> str:
    """Return a test's name without its parameters: all of its cases are quick or slow together."""
    return nodeid.partition("[")[0]


@pytest.fixture
def failing_segmenter(nano):
    """Nano's, and memory is short whenever it decodes; `embeddings` are those that something still holds."""
    from genseg_hub.segmenters.sam2 import Sam2Segmenter

    class Failing(Sam2Segmenter):
        embeddings: ClassVar = WeakSet()

        def _embed(self, *args):
            self.embeddings.add(embedding := super()._embed(*args))
            return embedding

        def _decode(self, *args):
            raise RuntimeError("out of memory")

    return Failing(nano.segmenter._predictor.model)
