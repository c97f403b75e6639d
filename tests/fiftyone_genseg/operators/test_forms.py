"""Whatever is typed into a form, it shows a sentence and no traceback."""

import json
import os

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionContext
from genseg_hub import checkpoints
from genseg_hub.errors import CheckpointError
from genseg_hub.referring_dataset import to_dataset
from genseg_training.nano.refscenes import refscenes

from fiftyone_genseg.operators import _forms

LONG = "a" * 300
PATHS = ("~nosuch", "~nosuch/x", LONG, "a/" * 3000, "/tmp/a\0b", "/tmp/\ud800")
NAMES = ("a/b@", "@x", ".", "..", "/", "a/日本", "nano@x", " ", "$x", "a.b", "+", "nano+", "nano+~nosuch/x")
TWO = {"checkpoints": ["nano", "nano-sft"]}
# operator -> field -> what else is filled in, and whether a path that is none is refused
FORMS = {
    "load_referring_dataset": {
        "source": ({}, True),
        "root": ({"source": "coco"}, True),
        "split": ({"source": "coco", "root": "/"}, True),
        "name": ({"source": "owner/name"}, False),
    },
    "load_predictions": {
        "file": ({}, True),
        "field": ({"file": __file__}, False),
        "checkpoint": ({"file": __file__}, False),
    },
    "export_referring_examples": {
        "folder": ({}, True),
        "gt_field": ({"folder": "new"}, True),
        "expression_field": ({"folder": "new"}, True),
    },
    "push_checkpoint": {
        "folder": ({"repo_id": "me/x"}, True),
        "repo_id": ({"folder": "/"}, True),
        "revision": ({"folder": "/", "repo_id": "me/x"}, True),
    },
    "pull_checkpoint": {"checkpoint": ({}, True)},
    "compare_checkpoints": {
        "checkpoints": ({}, True),
        "gt_field": (TWO, True),
        "expression_field": (TWO, True),
    },
    "train_on_view": {
        "name": ({}, True),
        "checkpoint": ({"name": "new"}, True),
        "recipe": ({"name": "new"}, True),
        "mix": ({"name": "new"}, True),
        "held_out": ({"name": "new"}, True),
    },
    "referring_segment": {
        "checkpoint": ({}, True),
        "output_field": ({}, False),
        "expression_field": ({"source": "field"}, True),
    },
}


def problem(operator: foo.Operator, dataset: fo.Dataset, **params) -> str | None:
    request = {"dataset_name": dataset.name, "view": [], "params": params}
    context = ExecutionContext(operator_uri=operator.uri, request_params=request)
    properties = operator.resolve_input(context).to_json()["type"]["properties"]
    json.dumps(properties)  # as the App is told
    return properties["problem"]["error_message"] if "problem" in properties else None


def operator(name: str) -> foo.Operator:
    return foo.get_operator(f"@fiftyone-genseg/genseg/{name}")


@pytest.mark.parametrize("name", FORMS)
def test_what_is_no_path_and_no_name_gets_a_sentence(name, dataset, plugin, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = operator(name)
    for field, (rest, refused) in FORMS[name].items():
        for text in (*PATHS, *NAMES):
            value = ["nano", text] if field == "checkpoints" else text
            said = problem(asked, dataset, **rest | {field: value})
            assert said or not refused or text in NAMES, (field, text)
            assert len(said or "") < 600
            assert not (said or "").endswith("..") or len(said) > 500, said


def test_a_path_is_told_apart_from_what_is_none(tmp_path, monkeypatch):
    assert _forms.path(str(tmp_path / "new")) == tmp_path / "new"
    assert _forms.path(f"{__file__}/below") == _forms.path(__file__) / "below"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _forms.path("~/x") == tmp_path / "x"
    for text, why in (
        ("~nosuch/x", "home directory"),
        (LONG, "File name too long"),
        ("a\0b", "embedded null"),
        ("\ud800", "surrogates"),
    ):
        with pytest.raises(ValueError, match=f"cannot be used as a path: .*{why}"):
            _forms.path(text)


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    _forms.check_new_folder(tmp_path / "a" / "b")
    _forms.check_new_folder(tmp_path)
    (tmp_path / "file").touch()
    for folder, message in (
        (tmp_path, "is not an empty folder"),
        (tmp_path / "file", "is not an empty folder"),
        (tmp_path / "file" / "below", "is no folder that may be written to"),
    ):
        with pytest.raises(ValueError, match=message):
            _forms.check_new_folder(folder)
    if os.geteuid():
        with pytest.raises(ValueError, match="may be written to"):
            _forms.check_new_folder(_forms.path("/new"))


def test_a_checkpoint_that_cannot_be_used_is_refused_before_the_work(tmp_path, folder):
    for name in ("nano", "Qwen/Qwen3-VL-2B-Instruct", "me/x@v1", str(folder)):
        checkpoints.check_available(name)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        checkpoints.check_available(str(tmp_path))
    for name in ("nano@x", "nano@x+nano"):
        with pytest.raises(CheckpointError, match="nano is on this disk and has no revisions; leave @x out"):
            checkpoints.check_available(name)
    (tmp_path / "sam").mkdir()
    with pytest.raises(CheckpointError, match=r"the segmenter .* lacks config\.json and model\.safetensors"):
        checkpoints.check_available(f"nano+{tmp_path / 'sam'}")
    (folder / "x.safetensors.index.json").write_text("[]")
    for name in (str(folder), f"{folder}+nano"):
        with pytest.raises(CheckpointError, match="is damaged"):
            checkpoints.check_available(name)


def test_the_name_of_a_dataset(dataset, plugin, tmp_path):
    to_dataset(refscenes("val", 1)).save_to_disk(tmp_path / "saved")

    loading = operator("load_referring_dataset")

    def said(name, **more):
        return problem(loading, dataset, source=str(tmp_path / "saved"), name=name, **more)

    assert said("../new name") is None
    assert "is not a name" in said("a\0b")
    assert "..." in said("...")
    assert "already" in said(dataset.name)
    assert said(dataset.name, overwrite=True) is None
    assert "is too much like" in said(dataset.name.upper(), overwrite=True)
