"""Files and folders are whole or absent, whatever ends their writer."""

import errno
import os
import signal
import subprocess
import sys

import datasets
import numpy as np
import pytest
import torch
from genseg_hub import whole
from genseg_hub.errors import CheckpointError
from PIL import Image
from safetensors.torch import save_file

from tests.helpers.small_disk import small_disk


def content(folder):
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_a_folder_replaces_the_one_before_and_keeps_what_is_somebodys(tmp_path):
    folder = tmp_path / "best"
    with whole.written_folder(folder) as new:
        (new / "a.safetensors").write_text("1")
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("mine")
    with whole.written_folder(folder, lambda path: path.suffix == ".safetensors") as new:
        (new / "b.safetensors").write_text("2")
        assert content(folder)["a.safetensors"] == "1", "the earlier one stays until the new one is whole"
    assert content(folder) == {"b.safetensors": "2", "notes/mine.txt": "mine"}
    assert os.listdir(tmp_path) == ["best"]


def test_an_error_keeps_the_folder_before(tmp_path):
    folder = tmp_path / "best"
    with whole.written_folder(folder) as new:
        (new / "a").write_text("1")
    with pytest.raises(FileNotFoundError), whole.written_folder(folder) as new:
        (new / "a").write_text((new / "b").read_text())
    assert content(folder) == {"a": "1"}
    assert os.listdir(tmp_path) == ["best"]


CODE = """
import os, signal, sys
from pathlib import Path
from genseg_hub import whole
folder, moment = Path(sys.argv[1]), sys.argv[2]
rename = Path.rename
def die(self, target):
    count.append(0)
    if moment == f"before rename {len(count)}": os.kill(os.getpid(), signal.SIGKILL)
    made = rename(self, target)
    if moment == f"after rename {len(count)}": os.kill(os.getpid(), signal.SIGKILL)
    return made
count, Path.rename = [], die
with whole.written_folder(folder) as new:
    (new / "a").write_text("2")
    if moment == "inside": os.kill(os.getpid(), signal.SIGKILL)
    (new / "b").write_text("2")
"""


@pytest.mark.parametrize(
    ("moment", "left"),
    [
        ("inside", {"a": "1", "b": "1"}),
        ("before rename 1", {"a": "1", "b": "1"}),
        ("after rename 1", {"a": "1", "b": "1"}),
        ("after rename 2", {"a": "2", "b": "2"}),
    ],
)
def test_a_kill_leaves_one_whole_folder_after_the_next_start(tmp_path, moment, left):
    folder = tmp_path / "best"
    with whole.written_folder(folder) as new:
        (new / "a").write_text("1")
        (new / "b").write_text("1")
    done = subprocess.run([sys.executable, "-c", CODE, str(folder), moment], check=False)
    assert done.returncode == -signal.SIGKILL
    if folder.exists():
        assert content(folder) in ({"a": "1", "b": "1"}, {"a": "2", "b": "2"})
    whole.restore(folder)
    assert content(folder) == left
    assert os.listdir(tmp_path) == ["best"]


def test_a_file_is_whole_or_the_one_before(tmp_path):
    file = tmp_path / "report.json"
    whole.write_text(file, "1")
    with pytest.raises(ZeroDivisionError), whole.written_file(file) as new:
        new.write_text(str(1 / len(new.name[:0])))
    assert (file.read_text(), os.listdir(tmp_path)) == ("1", ["report.json"])
    whole.write_text(file, "a\ud800")
    assert file.read_text() == "a?"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("PytorchStreamWriter failed: No space left on device"),
        ValueError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_a_sentence(error):
    with (
        pytest.raises(whole.DiskFullError, match="the disk is full: it stopped; free some space, then run the same"),
        whole.disk_full_in_words("it stopped"),
    ):
        raise RuntimeError("saving failed") from error
    with pytest.raises(OSError, match="Permission"), whole.disk_full_in_words("it stopped"):
        raise OSError(errno.EACCES, "Permission denied")


# Each library has its own words for a full disk.
WRITERS = {
    "PyTorch": lambda file: torch.save({"a": torch.zeros(1_000_000)}, file),
    "safetensors": lambda file: save_file({"a": torch.zeros(1_000_000)}, file),
    "numpy": lambda file: np.save(file.with_suffix(".npy"), np.zeros(1_000_000)),
    "Pillow": lambda file: Image.effect_noise((2000, 2000), 99).save(file, "PNG"),
    "datasets": lambda file: datasets.Dataset.from_dict({"a": ["x" * 999] * 5000}).save_to_disk(file),
    "Python": lambda file: file.write_bytes(bytes(5_000_000)),
}


@pytest.mark.parametrize("library", WRITERS)
def test_a_full_disk_is_told_from_other_errors_of_a_library(tmp_path, library):
    with (
        small_disk(tmp_path / "disk", 1024) as disk,
        pytest.raises(whole.DiskFullError, match="the disk is full: it stopped; free some space, then run the same"),
        whole.disk_full_in_words("it stopped"),
    ):
        WRITERS[library](disk / "file")


def test_a_file_and_a_folder_that_do_not_fit_are_named(tmp_path):
    with small_disk(tmp_path / "disk", 64) as disk:
        (disk / "folder").mkdir()
        whole.write_text(disk / "file", "1")
        big = "2" * 100_000
        with pytest.raises(whole.DiskFullError, match=rf"{disk}/file was not written, and the earlier one is kept; fr"):
            whole.write_text(disk / "file", big)
        said = pytest.raises(whole.DiskFullError, match=rf"{disk}/folder was not written, and the earlier one is kept")
        with said, whole.written_folder(disk / "folder") as new:
            (new / "a").write_text(big)
        with pytest.raises(whole.DiskFullError, match=rf"{disk}/other was not written; free"):
            whole.write_text(disk / "other", big)
        assert content(disk) == {"file": "1"}
        assert sorted(os.listdir(disk)) == ["file", "folder"]


def test_a_sentence_about_a_full_disk_is_not_said_twice():
    full = OSError(errno.ENOSPC, "No space left on device", "/x/y")
    assert (
        str(whole.in_words(full)) == "the disk is full: /x/y was not written; free some space, then run the same again"
    )
    told = CheckpointError("the disk is full: point HF_HOME elsewhere")
    told.__cause__ = full
    assert whole.in_words(told) is told
    with pytest.raises(CheckpointError, match="HF_HOME"), whole.disk_full_in_words("it stopped"):
        raise told
