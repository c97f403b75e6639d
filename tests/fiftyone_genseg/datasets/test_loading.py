"""The operator "Load referring dataset": benchmarks, folders and Hub datasets as samples, and back."""

import json
from pathlib import Path

import datasets
import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionContext, ExecutionError
from genseg_hub import archives
from genseg_hub.images import load_image
from genseg_hub.referring_dataset import from_dataset, to_dataset
from genseg_hub.schema import decode_mask
from genseg_training.nano.refscenes import refscenes
from huggingface_hub import constants
from PIL import Image

import fiftyone_genseg
from fiftyone_genseg import labels
from fiftyone_genseg.datasets import export
from fiftyone_genseg.operators.load_referring_dataset import LoadDatasetRequest, LoadReferringDataset
from tests.helpers import archive_files

URI = "@fiftyone-genseg/genseg/load_referring_dataset"


def load(**params) -> fo.Dataset:
    foo.execute_operator(URI, params=params | {"raise_errors": True})
    return fo.load_dataset(params["name"])


def form(**params) -> dict:
    context = ExecutionContext(operator_uri=URI, request_params={"params": params})
    return LoadReferringDataset().resolve_input(context).to_json()["type"]["properties"]


def pixels(examples) -> dict:
    """(expression, image) -> the union of its masks and how many there are."""
    found = {}
    for example in examples:
        image = load_image(example.image)
        union = np.zeros(image.size[::-1], bool)
        for mask in example.masks:
            union |= decode_mask(mask)
        found[example.expression, image.tobytes()] = (union.tobytes(), len(example.masks))
    return found


def test_a_benchmark_becomes_samples_and_goes_back_whole(name, plugin, tmp_path):
    archive_files.grefcoco(tmp_path / "data")
    dataset = load(source="grefcoco", root=str(tmp_path / "data"), split="val", name=name)
    examples, _ = archives.load_archive("grefcoco", tmp_path / "data", "val")
    assert len(dataset) == len(examples) == 96
    assert dataset.persistent
    for example, sample in zip(from_dataset(examples), dataset, strict=True):
        assert (sample.expression, sample.example_id, sample.image_id) == (
            example.expression,
            example.example_id,
            example.image_id,
        )
        assert sample.filepath == example.image
        assert sample.ref_id == example.attributes["ref_id"]
        masks = labels.instance_masks(sample.ground_truth, Image.open(sample.filepath).size)
        assert len(masks) == len(example.masks)
        assert all(np.array_equal(a, decode_mask(b)) for a, b in zip(masks, example.masks, strict=True))
    assert (
        len(dataset.match(fo.ViewField("ground_truth.detections").length() == 0)) == 64 - 32
    )  # two for each no-target
    assert dataset.distinct("ground_truth.detections.label") == ["thing"]
    # What was loaded can be evaluated: the truth against itself.
    dataset.clone_sample_field("ground_truth", "perfect")
    figures = fiftyone_genseg.evaluate(dataset, "perfect", "ground_truth", progress=False).figures()
    assert figures["ciou"] == figures["miou"] == figures["n_acc"] == 1
    export.export(dataset, tmp_path / "saved")
    again = datasets.load_from_disk(tmp_path / "saved")
    assert pixels(from_dataset(again)) == pixels(from_dataset(examples))


def test_a_folder_with_images_inside_becomes_files(name, plugin, tmp_path):
    before = list(refscenes("val", 8))
    to_dataset(before, datasets.Features({"kind": datasets.Value("string")})).save_to_disk(tmp_path / "saved")
    dataset = load(source=str(tmp_path / "saved"), name=name, limit=6)
    assert len(dataset) == 6
    assert len(dataset.distinct("filepath")) == 2  # four expressions share a scene
    for example, sample in zip(before, dataset, strict=False):
        assert np.array_equal(np.asarray(Image.open(sample.filepath)), example.image)
        assert sample.filepath.startswith(str(tmp_path / "fiftyone" / fo.core.utils.to_slug(name)))
        assert sample.kind == example.attributes["kind"]


def test_no_name_leads_out_of_the_images_folder(name, plugin, tmp_path):
    to_dataset(refscenes("val", 4)).save_to_disk(tmp_path / "saved")
    dataset = load(source=str(tmp_path / "saved"), name=f"{name}/../../../escape")
    for sample in dataset:
        assert Path(sample.filepath).resolve().is_relative_to(tmp_path / "fiftyone")


def test_the_form_says_what_is_missing(name, tmp_path):
    properties = form(source="refcocog", root=str(tmp_path))
    assert "refs(umd).p; expected under" in properties["problem"]["error_message"]
    assert "refcocog.zip of github.com/lichengunc/refer" in json.dumps(properties["archive"])
    assert properties["split"]["type"]["values"] == ["train", "val", "test"]
    assert properties["name"]["default"] == "refcocog"
    assert form(source="refcoco+", root=str(tmp_path), split="val")["name"]["default"] == "refcocoplus-val"
    assert "neither a benchmark, nor a folder" in form(source="nothing")["problem"]["error_message"]
    fo.Dataset(name)
    archive_files.reasonseg(tmp_path)
    given = {"source": "reasonseg", "root": str(tmp_path), "split": "val", "name": name}
    assert f"There is a dataset '{name}' already" in form(**given)["problem"]["error_message"]
    assert "problem" not in form(**given, overwrite=True)
    assert "Choose a benchmark" in form()["problem"]["error_message"]  # Execute is grey, and this says why


def test_a_form_and_a_run_have_the_same_defaults(monkeypatch):
    monkeypatch.setenv("GENSEG_BENCHMARKS", "/data")
    request = LoadDatasetRequest.from_params({"source": "refcoco+", "root": None, "name": " "})
    assert request == LoadDatasetRequest("refcoco+", "refcocoplus", "/data", "val", None, False)
    properties = form(source="refcoco+", root="/mine", name="mine")
    assert [properties[name]["default"] for name in ("split", "name")] == ["val", "refcocoplus"]
    assert "/data" in json.dumps(properties["root"])
    # the split of a benchmark that was chosen before
    assert LoadDatasetRequest.from_params({"source": "me/x:test", "split": "val"}).name == "x-test"


def test_what_cannot_be_loaded_leaves_no_dataset(name, plugin, tmp_path, monkeypatch):
    archive_files.reasonseg(tmp_path / "data")
    with pytest.raises(ExecutionError, match=r"expected under .*ReasonSeg/val"):
        load(source="reasonseg", root=str(tmp_path / "nowhere"), split="val", name=name)
    monkeypatch.setattr(labels, "ground_truth", lambda *masks: 1 / 0)
    with pytest.raises(ExecutionError, match="division by zero"):
        load(source="reasonseg", root=str(tmp_path / "data"), split="val", name=name)
    assert not fo.dataset_exists(name)
    fo.Dataset(name, persistent=True).add_sample(fo.Sample("mine.jpg"))
    with pytest.raises(ExecutionError, match="division by zero"):
        load(source="reasonseg", root=str(tmp_path / "data"), split="val", name=name, overwrite=True)
    assert len(fo.load_dataset(name)) == 1  # what was to be replaced is still there


def test_archives_of_the_root_folder_come_first(tmp_path, monkeypatch):
    monkeypatch.delenv("GENSEG_BENCHMARKS", raising=False)
    names = [choice["value"] for choice in form()["source"]["view"]["choices"]]
    assert sorted(names) == sorted(archives.by_name())
    archive_files.reasonseg(tmp_path)
    for given in ({"root": str(tmp_path)}, {"root": {"absolute_path": str(tmp_path)}}):
        first, *others = form(**given)["source"]["view"]["choices"]
        assert (first["value"], first["label"]) == ("reasonseg", f"reasonseg (in {tmp_path})")
        assert {choice["label"] for choice in others} == {*names} - {"reasonseg"}


def test_a_folder_is_chosen_in_the_file_explorer(name, plugin, tmp_path):
    to_dataset(list(refscenes("val", 8))).save_to_disk(tmp_path / "Saved")
    properties = form(kind="folder", source="refcoco")  # chosen before the kind was changed
    assert properties["folder"]["view"]["name"] == "FileExplorerView"
    assert properties["folder"]["view"]["choose_dir"] is True
    assert "Choose a benchmark, a folder" in properties["problem"]["error_message"]
    assert not {"source", "root", "split"} & properties.keys()
    chosen = {"kind": "folder", "folder": {"absolute_path": str(tmp_path / "Saved")}}
    properties = form(**chosen)
    assert "problem" not in properties
    assert properties["name"]["default"] == "Saved"
    assert len(load(**chosen, name=name)) == 8


def test_datasets_of_the_hub_keep_their_case(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for folder in ("datasets--Me--My-Things", "models--Me--Model"):
        (tmp_path / folder).mkdir()
    field = form(kind="hub_dataset")["hub_dataset"]
    assert [choice["value"] for choice in field["view"]["choices"]] == ["Me/My-Things"]
    assert field["view"]["allow_user_input"] is True
    chosen = {"kind": "hub_dataset", "hub_dataset": "Me/My-Things:Test", "folder": "/elsewhere"}
    assert LoadDatasetRequest.from_params(chosen).source == "Me/My-Things:Test"
    assert form(**chosen)["name"]["default"] == "My-Things-Test"
    assert "problem" not in form(**chosen)
