"""Every test session has its own home, database and plugins directory."""

import os
import tempfile
from pathlib import Path

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

import pytest  # noqa: E402
from genseg_hub import GenSegR1  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = ROOT / "examples" / "photos"


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


def pytest_addoption(parser):
    parser.addoption("--screenshots", metavar="FOLDER", help="keep screenshots of the browser tests here")
