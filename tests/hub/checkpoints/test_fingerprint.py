"""Fingerprints: equal for all spellings of a name, and different for different files."""

import os
import shutil
from pathlib import Path

import pytest
from genseg_hub import checkpoints
from genseg_hub.checkpoints import fingerprint
from genseg_hub.errors import CheckpointError
from genseg_hub.publishing import publish
from genseg_hub.reasoners.loading import connect
from huggingface_hub import constants

from tests.helpers.chat_server import said, serving
from tests.helpers.checkpoints import NANO
from tests.helpers.hub_server import REPO


def test_a_folder_is_the_same_however_it_is_named(folder, tmp_path, monkeypatch):
    found = fingerprint.identify(str(folder))
    assert found["model"] == f"{tmp_path.name}/checkpoint"
    assert (found["dialect"], found["segmenter"]) == ("genseg", "segmenter")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (
        fingerprint.identify(".")
        == fingerprint.identify("~/checkpoint")
        == fingerprint.identify("../checkpoint/")
        == found
    )
    copy = fingerprint.identify(str(shutil.copytree(folder, tmp_path / "copy")))
    assert copy["checksum"] == found["checksum"] == fingerprint.identify("nano")["checksum"]


@pytest.mark.parametrize("name", ["model.safetensors", "segmenter/model.safetensors", "tokenizer.json", "genseg.json"])
def test_a_folder_is_another_when_a_byte_is(folder, name):
    before = fingerprint.identify(str(folder))
    file = folder / name
    stamp, content = file.stat(), bytearray(file.read_bytes())
    if name == "genseg.json":
        content = content.replace(b'"genseg",', b'"seg_r1",')
    else:
        content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = fingerprint.identify(str(folder))
    assert after["checksum"] != before["checksum"]
    assert (after["dialect"] == before["dialect"]) == (name != "genseg.json")
    assert after["model"] == before["model"]


def test_files_without_influence_on_answers_do_not_count(folder):
    before = fingerprint.identify(str(folder))
    (folder / "README.md").write_text("another card")
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "logs" / "run.json").write_text("{}")
    assert fingerprint.identify(str(folder)) == before


def test_embedded_checkpoints_have_a_name_and_a_checksum():
    nano, start = fingerprint.identify("nano"), fingerprint.identify("nano-sft")
    assert (nano["model"], start["model"]) == ("nano", "nano-sft")
    assert nano["checksum"] != start["checksum"]


def test_a_checkpoint_of_the_hub_is_its_commit_and_its_weights_stay_there(hub, monkeypatch):
    commit = publish.push(NANO, REPO).commit
    assert fingerprint.identify(REPO) == {"model": f"{REPO}@{commit}"}
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.safetensors"))
    checkpoints.pull(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fingerprint.identify(REPO) == {"model": f"{REPO}@{commit}"}  # the commit on this disk
    shutil.rmtree(constants.HF_HUB_CACHE)
    assert fingerprint.identify(f"{REPO}@{commit}") == {"model": f"{REPO}@{commit}"}
    with pytest.raises(CheckpointError, match="cannot be reached"):
        fingerprint.identify(REPO)


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("nanno", None, "there is no checkpoint 'nanno'"),
        ("./nowhere", None, "there is no folder ./nowhere"),
        ("~nosuch/x", None, "'~nosuch/x' is not a folder"),
        ("a\0b/c", None, "is not a Hub id"),
        ("x" * 300, None, "File name too long|there is no checkpoint"),
        ("x" * 200 + "/" + "x" * 200, None, "is not a Hub id"),
        ("nano", "main", "nano is on this disk and has no revisions"),
    ],
)
def test_names_without_a_checkpoint_are_refused(name, revision, message):
    with pytest.raises(CheckpointError, match=message):
        fingerprint.identify(name, revision)


def test_a_chosen_segmenter_is_part_of_the_fingerprint(folder, tmp_path, hub):
    other = shutil.copytree(folder / "segmenter", tmp_path / "other")
    found = fingerprint.identify(f"nano+{other}")
    assert found["model"] == f"nano+{tmp_path.name}/other"
    assert found["checksum"] == fingerprint.identify("nano")["checksum"]
    assert fingerprint.loadable(f"nano+{other}", found) == f"nano+{other}"
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    assert fingerprint.identify(f"nano+{other}")["segmenter_checksum"] != found["segmenter_checksum"]
    commit = publish.push(folder, REPO).commit
    of_hub = fingerprint.identify(f"{REPO}+nano")
    assert of_hub["model"] == f"{REPO}@{commit}+nano"
    assert fingerprint.loadable(f"{REPO}+nano", of_hub) == f"{REPO}@{commit}+nano"


@pytest.mark.parametrize("known", [True, False])
def test_a_server_names_the_commit_or_the_commit_is_unknown(known, hub, folder):
    commit = publish.push(folder, REPO).commit
    name = f"{REPO}@{commit}" if known else REPO
    with serving(lambda request: said("<answer>[]</answer>")) as server:
        server.models = (200, {}, {"data": [{"id": name}]})
        _, found = connect(checkpoints.pull(f"{REPO}+nano", with_reasoner=False), server.url)
    assert found.pinned == f"{name}+nano"
    who = fingerprint.identify(f"{REPO}+nano", opened=found)
    assert (who["model"], who["served"], who["segmenter"]) == (f"{name}+nano", name, "nano")
    assert ("dialect" in who) == (not known)


def test_a_served_folder_has_a_checksum_and_a_name_on_the_server(folder):
    before = fingerprint.identify(str(folder))
    with serving(lambda request: said("<answer>[]</answer>")) as server:
        server.models = (200, {}, {"data": [{"id": "mine\n", "root": str(folder)}]})
        _, found = connect(checkpoints.pull(str(folder), with_reasoner=False), server.url)
        assert fingerprint.identify(str(folder), opened=found) == before | {"served": "mine"}
        (folder / "model.safetensors").unlink()  # the server has the weights
        assert fingerprint.identify(str(folder), opened=found)["checksum"] != before["checksum"]
