"""The checkpoint of a run for which the user names none."""

import json

import fiftyone as fo
import pytest
from genseg_hub import checkpoints
from genseg_hub.publishing import publish

from fiftyone_genseg import default_checkpoint, machine
from tests.helpers.checkpoints import run
from tests.helpers.families import save_family
from tests.helpers.hub_server import REPO

QWEN = "Qwen/Qwen3-VL-2B-Instruct"


@pytest.fixture
def app_config(tmp_path, monkeypatch):
    """Return where FiftyOne would read the settings of plugins."""
    file = tmp_path / "app_config.json"
    monkeypatch.setenv("FIFTYONE_APP_CONFIG_PATH", str(file))
    return file


@pytest.fixture
def pulled(hub, tmp_path):
    """Pull a tiny checkpoint with the name of one for photographs."""
    publish.push(save_family(tmp_path / "qwen", "qwen3_vl"), QWEN)
    checkpoints.pull(QWEN)


def with_memory(monkeypatch, gigabytes: float) -> None:
    monkeypatch.setattr(machine, "gpus", tuple)
    monkeypatch.setattr(machine, "cpu", lambda: machine.Device("cpu", "", gigabytes))


def test_nano_is_left_where_nothing_is_set(hub, app_config):
    assert default_checkpoint.find().name == "nano"


def test_the_variable_counts_before_the_setting(app_config, monkeypatch):
    app_config.write_text(json.dumps({"plugins": {"@fiftyone-genseg/genseg": {"checkpoint": "me/set"}}}))
    found = default_checkpoint.find()
    assert found.name == "me/set"
    assert str(app_config) in found.why
    monkeypatch.setenv("GENSEG_CHECKPOINT", "me/named")
    assert default_checkpoint.find() == ("me/named", "GENSEG_CHECKPOINT names it")


def test_fiftyone_reads_the_same_setting(app_config):
    app_config.write_text(json.dumps({"plugins": {"@fiftyone-genseg/genseg": {"checkpoint": "me/set"}}}))
    settings = fo.core.config.load_app_config().plugins
    assert settings["@fiftyone-genseg/genseg"]["checkpoint"] == default_checkpoint.find().name


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", '{"plugins": null}', '{"plugins": {"@fiftyone-genseg/genseg": 1}}']
)
def test_a_configuration_that_says_nothing_is_passed_over(hub, app_config, text):
    app_config.write_text(text)
    assert default_checkpoint.find().name == "nano"


def test_the_recommended_checkpoint_counts_once_it_is_on_this_disk(pulled, app_config, monkeypatch):
    with_memory(monkeypatch, 32.0)
    assert default_checkpoint.find() == (QWEN, "it is on this disk and fits this machine")
    with_memory(monkeypatch, 4.0)
    assert default_checkpoint.find().name == "nano"


def test_the_checkpoint_that_was_used_last_is_remembered(hub, app_config, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    default_checkpoint.remember(folder.name)
    assert default_checkpoint.find() == (str(folder), "it was used last")
    default_checkpoint.remember("nano+./checkpoint/segmenter")
    assert default_checkpoint.find().name == str(folder)
    default_checkpoint.remember(f"{folder.name}+{folder.name}/segmenter")
    assert default_checkpoint.find().name == f"{folder}+{folder}/segmenter"
    (folder / "model.safetensors").unlink()
    assert default_checkpoint.find().name == "nano"


def test_a_revision_is_remembered_and_what_is_not_here_is_not_downloaded(hub, app_config, folder):
    commit = publish.push(folder, REPO).commit
    default_checkpoint.remember(REPO, commit)
    hub.requests.clear()
    assert default_checkpoint.find().name == "nano"
    assert hub.requests == []
    checkpoints.pull(REPO, commit)
    assert default_checkpoint.find().name == f"{REPO}@{commit}"


def test_a_home_that_cannot_be_written_to_is_no_error(hub, app_config, tmp_path, monkeypatch):
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    default_checkpoint.remember("me/other")
    assert default_checkpoint.find().name == "nano"


def test_a_run_remembers_its_checkpoint(hub, dataset, folder, app_config):
    command = ["segment-dataset", dataset.name, "--device", "cpu", "--expression", "all shapes"]
    first = run(*command, "--model", folder, "--output-field", "first")
    assert first.exit_code == 0, first.output
    again = run(*command, "--output-field", "again")
    assert again.exit_code == 0, again.output
    assert f"checkpoint {folder}: it was used last" in again.stderr
    dataset.reload()
    assert dataset.distinct("again_responses.checkpoint") == [str(folder)]
