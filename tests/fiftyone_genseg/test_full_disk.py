"""A full disk is one sentence that names what was not written. Nothing half stays, and with more space it works."""

import json
import re

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.referring_dataset import to_dataset
from genseg_hub.whole import DiskFullError
from genseg_training.nano.refscenes import refscenes

from fiftyone_genseg import default_checkpoint, demo, training_runs
from fiftyone_genseg.datasets import export
from fiftyone_genseg.datasets.importing import ReferringDatasetImporter
from tests.fiftyone_genseg.operators.test_pull_checkpoint import messages
from tests.helpers.checkpoints import run
from tests.helpers.segmenting import PHOTOS
from tests.helpers.small_disk import PAGE, fill, free, small_disk

EXPORT = "@fiftyone-genseg/genseg/export_referring_examples"
LOAD = "@fiftyone-genseg/genseg/load_referring_dataset"


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", 4096) as folder:
        yield folder


def names(folder) -> set[str]:
    return {file.name for file in folder.rglob("*")} - {"full"}


def assert_one_sentence(done, outcome: str) -> None:
    assert done.exit_code == 1
    said = [line for line in done.output.splitlines() if line.startswith(("error", "Traceback"))]
    (sentence,) = said
    assert re.fullmatch(rf"error: the disk is full: {outcome}; free some space, then run the same again", sentence)


@pytest.mark.parametrize(
    ("moment", "outcome"),
    [("refscenes_dataset", r"the demo, whose files are in \S+/out, could not make the dataset"),
     ("draw_overview", r"\S+/out/overview.png was not written"),
     ("write_text", r"\S+/out/report.json was not written")],
)  # fmt: skip
def test_the_demo(plugin, disk, monkeypatch, moment, outcome):
    owner = demo.whole if moment == "write_text" else demo
    original = getattr(owner, moment)

    def full(*arguments):
        fill(disk)
        return original(*arguments)

    monkeypatch.setattr(owner, moment, full)
    command = ("demo", "--headless", "--scenes", 1, "--model", "nano", "--device", "cpu", "--out", disk / "out")
    assert_one_sentence(run(*command), outcome)
    assert not [name for name in names(disk) if name.endswith(".new")]
    monkeypatch.undo()
    free(disk)
    done = run(*command)
    assert done.exit_code == 0, done.output
    assert json.loads((disk / "out" / "report.json").read_text())["n"] == 4
    fo.delete_dataset(demo.DATASET)


@pytest.mark.parametrize("option", ["--out", "--rows"])
def test_figures_of_an_evaluation(disk, option):
    fill(disk)
    file = disk / "figures.json"
    done = run("evaluate", "refscenes", "--limit", 4, "--device", "cpu", option, file)
    assert_one_sentence(done, f"{file} was not written")
    assert "cIoU" in done.output, "the figures are shown all the same"
    assert names(disk) == set()


def test_the_picture_of_an_answer(disk):
    fill(disk)
    photo, picture = PHOTOS / "000000000030.jpg", disk / "picture.png"
    done = run("segment", photo, "the vase", "--model", "nano", "--device", "cpu", "--out", picture, "--json")
    assert done.exit_code == 0, "the answer is printed all the same"
    assert f"error: the disk is full: {picture} was not written; free some space" in done.output
    assert '"instances"' in done.output
    assert names(disk) == set()


def test_a_message_of_an_operator(plugin, dataset, disk, tmp_path, monkeypatch):
    to_dataset(refscenes("val", 4)).save_to_disk(tmp_path / "saved")
    monkeypatch.setattr(fo.config, "default_dataset_dir", str(disk))
    fill(disk)
    told = messages(LOAD, dataset, source=str(tmp_path / "saved"), name="full-disk")
    (message,) = [params["message"] for kind, params in told if kind == "notify"]
    said = rf"Nothing was loaded: the disk is full: the images in {disk}/full-disk/images are incomplete; free some"
    assert re.match(said, message)
    assert not fo.dataset_exists("full-disk")
    assert not [name for name in names(disk) if "." in name]
    free(disk)
    assert len(list(ReferringDatasetImporter(to_dataset(refscenes("val", 4)), disk / "full-disk" / "images"))) == 4


def test_an_export(plugin, dataset, disk):
    fill(disk, leave=PAGE)
    folder = disk / "exported"
    with pytest.raises(ExecutionError, match=rf"the disk is full: nothing was exported to {folder}; free some space"):
        foo.execute_operator(EXPORT, {"dataset": dataset}, params={"folder": str(folder)})
    assert export.is_free(folder)
    assert names(disk) <= {"exported"}
    free(disk)
    assert export.export(dataset, folder) == 16


def test_the_memory_of_the_last_checkpoint(disk, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HOME", str(disk))
    default_checkpoint.remember("me/first")
    file = disk / ".fiftyone" / "genseg.json"
    before = file.read_text()
    fill(disk)
    default_checkpoint.remember("me/second")
    assert f"me/second is not remembered for the next run: the disk is full: {file} was not written" in caplog.text
    assert "the earlier one is kept" in caplog.text
    assert (file.read_text(), names(disk)) == (before, {".fiftyone", "genseg.json"})
    free(disk)
    default_checkpoint.remember("me/second")
    assert "me/second" in file.read_text()


def test_a_training_run_that_is_prepared(dataset, disk, monkeypatch):
    monkeypatch.setattr(fo.config, "model_zoo_dir", str(disk))
    found = list(export.examples(dataset, "ground_truth", "expression"))
    plan = training_runs.Plan("new", str(EMBEDDED["nano"]))
    fill(disk, leave=PAGE)
    with pytest.raises(DiskFullError, match=rf"the disk is full: {disk}/genseg/new was not written; free some space"):
        training_runs.prepare(plan, found)
    assert names(disk) <= {"genseg"}
    free(disk)
    assert training_runs.begun(training_runs.prepare(plan, found).name)
