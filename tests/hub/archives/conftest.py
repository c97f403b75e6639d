"""What the tests of archives share."""

import datasets
import pytest


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty folder for archives, which are read into a cache of their own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    folder = tmp_path / "archives"
    folder.mkdir()
    return folder
