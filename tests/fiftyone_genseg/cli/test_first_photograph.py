"""A terminal never gives masks of nano, or unreadable answers, for results; and the demo with photographs."""

import json

import fiftyone as fo
import pytest
from genseg_hub.publishing import publish
from PIL import Image

from fiftyone_genseg import machine
from fiftyone_genseg.demo import PHOTOS as DATASET
from fiftyone_genseg.demo import refscenes_dataset
from tests.conftest import PHOTOS
from tests.helpers.chat_server import said, serving
from tests.helpers.checkpoints import run
from tests.helpers.families import save_family

QWEN = "Qwen/Qwen3-VL-2B-Instruct"
NANO = "warning: nano knows rendered shapes only. For photographs type: --model Qwen/Qwen3-VL-4B-Instruct, or --server"
PHOTO = PHOTOS / "images" / "000000000030.jpg"


@pytest.fixture
def qwen(tmp_path):
    """Return the folder of a checkpoint whose answers cannot be read."""
    return save_family(tmp_path / "qwen", "qwen3_vl")


@pytest.fixture(autouse=True)
def _cpu(monkeypatch):
    """Have a machine on which the smallest checkpoint fits."""
    monkeypatch.setattr(machine, "gpus", tuple)
    monkeypatch.setattr(machine, "cpu", lambda: machine.Device("cpu", "", 32.0))


def test_nano_by_default_is_told_and_nano_by_choice_is_not(hub):
    by_default = run("segment", PHOTO, "the vase", "--device", "cpu")
    assert by_default.exit_code == 0, by_default.output
    assert by_default.stderr.startswith(NANO)
    by_choice = run("segment", PHOTO, "the vase", "--device", "cpu", "--model", "nano")
    assert "rendered" not in by_choice.stderr
    assert by_choice.stdout == by_default.stdout


def test_a_dataset_of_rendered_shapes_is_for_nano(hub, tmp_path):
    rendered = refscenes_dataset("test-rendered", tmp_path / "images", 1)
    plain = fo.Dataset("test-plain")
    plain.add_samples([fo.Sample(filepath=str(PHOTO))], progress=False)
    command = ("--expression", "all shapes", "--device", "cpu")
    assert NANO not in run("segment-dataset", rendered.name, *command).stderr
    assert NANO in run("segment-dataset", plain.name, *command).stderr
    for dataset in (rendered, plain):
        dataset.delete()


def test_answers_that_cannot_be_read_are_told_in_words(dataset, qwen):
    options = ("--device", "cpu", "--model", qwen)
    result = run("segment-dataset", dataset.name, "--expression", "all shapes", *options)
    assert result.exit_code == 0, result.output
    assert "16 unparsable (16 x the answer" in result.stdout
    assert "warning: More than half of the answers could not be read. Try another dialect" in result.stderr
    result = run("segment", PHOTO, "the vase", *options)
    assert "the answer was not clean: the answer" in result.stdout


def test_photographs_are_refused_to_nano_by_default(hub, tmp_path):
    result = run("demo", "--photos", "--headless", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: nano knows rendered shapes only.")
    assert f"type: --model {QWEN}, or --server ..." in result.stderr
    assert not (tmp_path / "out").exists()


def test_without_the_checkpoint_and_the_network_photographs_get_a_sentence(hub, tmp_path):
    with hub.fault("GET|HEAD", "reset"):
        result = run("demo", "--photos", "--headless", "--out", tmp_path / "out", "--model", QWEN)
    assert result.exit_code == 1
    assert f"error: {QWEN} is not on this disk" in result.stderr
    assert "cannot be reached" in result.stderr
    assert result.stderr.count("error:") == 1
    assert "Traceback" not in result.output


def test_photographs_are_segmented_evaluated_and_drawn(hub, qwen, tmp_path):
    commit = publish.push(qwen, QWEN).commit
    out = tmp_path / "out"
    command = ("demo", "--photos", "--headless", "--device", "cpu", "--out", out)
    result = run(*command, "--model", f"{QWEN}+nano")
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text())
    assert report["benchmark"] == "16 photographs of COCO 2017"
    assert (report["n"], report["responses"]) == (48, {"unparsable": 48})
    assert len(report["by"]["kind"]) == 3
    assert "warning: More than half of the answers could not be read" in result.stderr
    with Image.open(out / "overview.png") as overview:
        assert overview.width > 500
    photos = fo.load_dataset(DATASET)
    assert photos.distinct("genseg_responses.checkpoint") == [f"{QWEN}@{commit}+nano"]
    assert photos.list_evaluations() == ["demo"]
    again = run(*command)  # what is on this disk now is the default
    assert again.exit_code == 0, again.output
    assert f"checkpoint {QWEN}: it is on this disk and fits this machine" in again.stderr


def test_a_server_answers_about_the_photographs(hub, qwen, tmp_path):
    publish.push(qwen, QWEN)
    answer = '[{"bbox_2d": [100, 100, 600, 600], "points": [[300, 300], [400, 400]]}]'
    with serving(lambda request: said(answer)) as server:
        where = ("--server", server.url, "--served-model", "served", "--model", f"{QWEN}+nano", "--device", "cpu")
        result = run("demo", "--photos", "--headless", "--out", tmp_path / "out", *where)
        assert result.exit_code == 0, result.output
        assert len(server.requests) == 48
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["responses"] == {"segmented": 48}
    assert "warning" not in result.stderr
