"""Fixtures of the tests of the model."""

import datasets
import pytest
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.segmenters.sam2 import load_sam2


@pytest.fixture(scope="session")
def nano_sam2():
    """Load nano's SAM 2, a model of the sam2 package."""
    return load_sam2(EMBEDDED["nano"] / "segmenter")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Make an empty folder for archives, with its own cache of `datasets`."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    folder = tmp_path / "archives"
    folder.mkdir()
    return folder
