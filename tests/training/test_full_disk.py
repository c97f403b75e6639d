"""A training run on a full disk ends with a sentence, keeps what is whole, and goes on when there is space."""

import shutil

import pytest
from genseg_training import cli

from tests.helpers.grpo_runs import options
from tests.helpers.small_disk import fill, free, small_disk


def test_a_checkpoint_that_does_not_fit(tmp_path):
    with small_disk(tmp_path / "disk", 8 * 1024) as disk:
        folder = disk / "run"
        with pytest.raises(
            SystemExit, match=rf"error: the disk is full: the run stopped; whole checkpoints in {folder}"
        ):
            cli.main(options(folder))
        assert not (folder / "best").exists()


def test_the_best_checkpoint_that_does_not_fit(finished_r1, tmp_path):
    size = sum(file.stat().st_size for file in finished_r1.rglob("*") if file.is_file())
    with small_disk(tmp_path / "disk", size // 1024 + 8 * 1024) as disk:
        folder = shutil.copytree(finished_r1, disk / "run")
        shutil.rmtree(folder / "best")
        fill(disk, leave=1024 * 1024)
        with pytest.raises(
            SystemExit, match=rf"error: the disk is full: {folder}/best was not written; free some space"
        ):
            cli.main(options(folder))
        assert not [file for file in folder.iterdir() if "best" in file.name]
        assert {file.name for file in folder.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
        free(disk)
        cli.main(options(folder))
        assert (folder / "best" / "model.safetensors").stat().st_size > 1_000_000
