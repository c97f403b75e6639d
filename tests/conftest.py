"""Every test session has its own home, database and plugins directory."""

import os
import shutil
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from weakref import WeakSet

_HOME = tempfile.TemporaryDirectory(prefix="genseg-tests-", ignore_cleanup_errors=True)
os.environ |= {
    "HOME": _HOME.name,
    "HF_HOME": f"{_HOME.name}/hf",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "FIFTYONE_PLUGINS_DIR": f"{_HOME.name}/plugins",
    "FIFTYONE_DATABASE_DIR": f"{_HOME.name}/mongo",
    "FIFTYONE_DATABASE_NAME": f"genseg-tests-{os.getpid()}",
    "FIFTYONE_DO_NOT_TRACK": "1",
    "FIFTYONE_DATABASE_VALIDATION": "false",
    "FIFTYONE_SHOW_PROGRESS_BARS": "false",
    "FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS": "true",
}

import hypothesis  # noqa: E402
import pytest  # noqa: E402
from genseg_hub import GenSegR1  # noqa: E402
from genseg_hub.checkpoints.catalog import EMBEDDED  # noqa: E402
from genseg_hub.publishing import publish  # noqa: E402
from huggingface_hub import constants  # noqa: E402
from huggingface_hub.utils import _http  # noqa: E402

from tests.helpers.hub_server import WRITER, HubServer  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = ROOT / "examples" / "photos"
hypothesis.settings.register_profile("tests", deadline=None)  # no test depends on speed
hypothesis.settings.load_profile("tests")
CHUNK = 1_000_000  # of downloads: smaller than the weights, for the client keeps whole chunks only


@pytest.fixture(scope="session")
def nano() -> GenSegR1:
    return GenSegR1.from_pretrained("nano", device="cpu")


@pytest.fixture(scope="session")
def plugin():
    """The plugin, linked as `genseg plugin install` links it."""
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
    """A checkpoint folder: a copy of nano."""
    return shutil.copytree(EMBEDDED["nano"], tmp_path / "checkpoint")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty Hub, the real client pointed at it with an empty cache and a token that may write."""
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
    monkeypatch.setattr(publish, "time", SimpleNamespace(sleep=server.waited.append))
    yield server
    server.shutdown()
    server.server_close()


def pytest_addoption(parser):
    parser.addoption("--screenshots", metavar="FOLDER", help="keep screenshots of the browser tests here")


@pytest.fixture
def failing_segmenter(nano):
    """Nano's, and memory is short whenever it decodes; `embeddings` are those that something still holds."""
    from genseg_hub.segmenters.sam2 import Sam2Segmenter

    class Failing(Sam2Segmenter):
        embeddings: ClassVar = WeakSet()

        def _embed(self, image):
            self.embeddings.add(embedding := super()._embed(image))
            return embedding

        def _decode(self, *args):
            raise RuntimeError("out of memory")

    return Failing(nano.segmenter._predictor.model)
