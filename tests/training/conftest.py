"""Finished runs of GRPO, which several tests look at or go on from."""

import shutil

import datasets
import pytest
import torch
from genseg_training import cli

from tests.helpers.grpo_runs import options


@pytest.fixture(scope="session")
def finished_r1(tmp_path_factory):
    """Finish a run of nano_r1, evaluated at each of its two steps; tests only read it."""
    folder = tmp_path_factory.mktemp("finished") / "r1"
    cli.main(options(folder))
    return folder


@pytest.fixture
def copy_of_r1(finished_r1, tmp_path):
    """Copy the run of nano_r1, for a test that goes on from it."""
    return shutil.copytree(finished_r1, tmp_path / "r1")


@pytest.fixture(scope="session")
def finished_r1_g(tmp_path_factory):
    """Finish a run of nano_r1_g on one thread, evaluated at every second of its four steps; tests only read it."""
    folder = tmp_path_factory.mktemp("finished") / "r1_g"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cli.main(options(folder, "nano_r1_g", max_steps=4, eval_steps=2))
    finally:
        torch.set_num_threads(threads)
    return folder


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Make an empty folder for archives, with its own cache of `datasets`."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    folder = tmp_path / "archives"
    folder.mkdir()
    return folder
