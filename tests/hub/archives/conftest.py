"""Fixtures of the tests of archives."""

import datasets
import pytest


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Make an empty folder for archives, with its own cache of `datasets`."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    folder = tmp_path / "archives"
    folder.mkdir()
    return folder
