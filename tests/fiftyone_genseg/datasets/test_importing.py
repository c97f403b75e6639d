"""Benchmarks and datasets of referring examples as FiftyOne samples, and back."""

import json
from pathlib import Path

import datasets
import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionContext, ExecutionError
from genseg_hub import archives
from genseg_hub.evaluation.metrics import measure
from genseg_hub.images import load_image
from genseg_hub.referring_dataset import FEATURES, from_dataset, to_dataset, to_rows
from genseg_hub.schema import ReferringExample, decode_mask, encode_mask
from genseg_training.nano.refscenes import refscenes
from PIL import Image

import fiftyone_genseg
from fiftyone_genseg import labels
from fiftyone_genseg.datasets import export, importing, unusable
from fiftyone_genseg.datasets.importing import ReferringDatasetImporter, add_predictions
from fiftyone_genseg.operators.load_referring_dataset import LoadDatasetRequest, LoadReferringDataset
from tests.fiftyone_genseg.operators.test_pull_checkpoint import messages, progress
from tests.helpers import archive_files

URI = "@fiftyone-genseg/genseg/load_referring_dataset"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(fo.config, "default_dataset_dir", str(tmp_path / "fiftyone"))


@pytest.fixture
def name(tmp_path):
    yield tmp_path.name
    for made in fo.list_datasets(f"{tmp_path.name}*"):
        fo.delete_dataset(made)


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


def damaged(folder: Path) -> datasets.Dataset:
    """16 examples about 4 scenes, of which the first and the last eight can be used."""
    rows = list(to_rows(refscenes("val", 16)))
    whole = rows[0]["image"]["bytes"]
    target = next(row["masks"] for row in rows if row["masks"])
    rows[1]["image"], rows[1]["image_id"] = {"bytes": b"not an image", "path": None}, "other"
    rows[2]["image"], rows[2]["image_id"] = {"bytes": whole[: len(whole) // 2], "path": None}, "half"
    rows[3]["image"], rows[3]["image_id"] = {"bytes": None, "path": str(folder / "nowhere.png")}, "none"
    rows[4]["masks"] = [{"size": [1, 1], "counts": "01"}]
    rows[5]["masks"] = [encode_mask(np.zeros(target[0]["size"], bool))]
    rows[6]["masks"] = None
    rows[7]["expression"] = " \n"
    return datasets.Dataset.from_list(rows, features=FEATURES)


def test_examples_that_cannot_be_used_are_left_out_and_counted(name, plugin, tmp_path):
    examples = damaged(tmp_path)
    importer = ReferringDatasetImporter(examples, tmp_path / "images")
    for _ in range(2):  # an importer can be read again
        samples = list(importer)
        assert [sample.example_id for sample in samples] == [examples[i]["example_id"] for i in (0, *range(8, 16))]
        assert importer.unusable == {"unreadable image": 3, "unusable mask": 2, "malformed row": 2}
    assert "3 of 16 examples left out, unreadable image: the first is number 2, " in importer.report
    assert "a mask is of [1, 1] pixels" in importer.report
    examples.select([0, 1, 2, *range(4, 16)]).save_to_disk(tmp_path / "saved")
    told = messages(URI, fo.Dataset(f"{name}-open"), source=str(tmp_path / "saved"), name=name)
    ((_, last),) = [t for t in told if t[0] == "notify"]
    assert last["variant"] == "warning"
    assert f"{name} has 9 expressions. 2 of 15 examples left out" in last["message"]
    assert progress(told)[-1][0] == 1
    assert [kind for kind, _ in told][-1] == "open_dataset"
    examples.select([1, 2, 4]).save_to_disk(tmp_path / "bad")
    with pytest.raises(ExecutionError, match=r"3 of 3 examples cannot be used, which is more than half\. 2 of 3"):
        load(source=str(tmp_path / "bad"), name=f"{name}-bad")
    assert not fo.dataset_exists(f"{name}-bad")
    assert not len(
        fo.Dataset.from_importer(ReferringDatasetImporter(examples.select([]), tmp_path), name=f"{name}-bad")
    )


def test_more_than_half_that_cannot_be_used_is_an_error(tmp_path):
    examples = damaged(tmp_path)
    assert len(list(ReferringDatasetImporter(examples.select([0, 1, 8, 4]), tmp_path / "images"))) == 2
    with pytest.raises(ValueError, match=r"2 of 3 examples cannot be used, which is more than half\. .* number 2, "):
        list(ReferringDatasetImporter(examples.select([0, 1, 4]), tmp_path / "images"))


def test_an_export_leaves_out_what_cannot_be_read(dataset, tmp_path, caplog):
    broken = dataset.first()
    other_images = [sample for sample in dataset if sample.filepath != broken.filepath]
    Path(broken.filepath).write_bytes(b"no image")
    lost = len(dataset) - len(other_images)
    empty = next(sample for sample in other_images if sample.ground_truth.detections)
    empty.ground_truth.detections[0].mask = np.zeros((4, 4), bool)
    empty.ground_truth.detections = empty.ground_truth.detections[:1]
    empty.save()
    left_out = unusable.Unusable()
    count = export.export(dataset, tmp_path / "saved", unusable=left_out)
    assert left_out == {"unreadable image": lost, "unusable mask": 1}
    assert count == len(datasets.load_from_disk(tmp_path / "saved")) == 16 - lost - 1
    assert f"1 of 16 examples left out, unusable mask: the first is {empty.expression!r} on sample {empty.id}, its" in (
        caplog.text
    )
    for sample in other_images:
        if sample.filepath != dataset.last().filepath:
            Path(sample.filepath).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"\d+ of 16 examples cannot be used, which is more than half"):
        export.export(dataset, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_is_wrong_with_the_disk_stops_and_leaves_no_half_image(tmp_path, monkeypatch):
    examples = to_dataset(refscenes("val", 1))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        list(ReferringDatasetImporter(examples, tmp_path / "file"))

    def half(image, file, *_):
        Path(file).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="no space left"):
        list(ReferringDatasetImporter(examples, tmp_path))
    monkeypatch.undo()
    (sample,) = ReferringDatasetImporter(examples, tmp_path)
    assert np.asarray(Image.open(sample.filepath)).any()


def test_neighbours_share_an_image(tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(importing, "load_image", lambda image: decoded.append(image) or load_image(image))
    samples = list(ReferringDatasetImporter(to_dataset(refscenes("val", 8)), tmp_path))
    assert len({sample.filepath for sample in samples}) == len(decoded) == 2


def test_no_name_leads_out_of_the_images_folder(name, plugin, tmp_path):
    to_dataset(refscenes("val", 4)).save_to_disk(tmp_path / "saved")
    dataset = load(source=str(tmp_path / "saved"), name=f"{name}/../../../escape")
    for sample in dataset:
        assert Path(sample.filepath).resolve().is_relative_to(tmp_path / "fiftyone")


def test_ignored_pixels_are_kept(name, tmp_path):
    archive_files.reasonseg(tmp_path / "data")
    examples, _ = archives.load_archive("reasonseg", tmp_path / "data", "val")
    dataset = fo.Dataset.from_importer(ReferringDatasetImporter(examples, tmp_path / "images"), name=name)
    first, second = dataset
    (ignored,) = labels.instance_masks(first.ignore, (40, 30))
    assert ignored.sum() == 16
    assert second.ignore is None
    assert first.is_sentence is True
    assert not (tmp_path / "images").exists()
    # A prediction that also has the ignored pixels is perfect when they count neither way, as in `genseg benchmark`.
    dataset.clone_sample_field("ground_truth", "filled")
    first.reload()
    first["filled"].detections += [detection.copy() for detection in first.ignore.detections]
    first.save()
    plain = fiftyone_genseg.evaluate(dataset, "filled", "ground_truth", ignore_field="", progress=False)
    assert plain.figures()["ciou"] < 1
    results = fiftyone_genseg.evaluate(dataset, "filled", "ground_truth", progress=False)
    assert results.config.ignore_field == "ignore"
    assert results.figures()["ciou"] == results.figures()["miou"] == 1
    example = next(from_dataset(examples))
    assert results.table["target_area"].iloc[0] == measure(example.masks, None, ignore=example.ignore).target_area
    with pytest.raises(ValueError, match="the ignore field 'expression' holds no Detections"):
        fiftyone_genseg.evaluate(dataset, "filled", "ground_truth", ignore_field="expression", progress=False)


def test_the_form_says_what_is_missing(name, tmp_path):
    properties = form(source="refcocog", root=str(tmp_path))
    assert "refs(umd).p; needed is" in properties["problem"]["error_message"]
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
    with pytest.raises(ExecutionError, match=r"needed is, under .*ReasonSeg/val"):
        load(source="reasonseg", root=str(tmp_path / "nowhere"), split="val", name=name)
    monkeypatch.setattr(labels, "ground_truth", lambda *masks: 1 / 0)
    with pytest.raises(ExecutionError, match="division by zero"):
        load(source="reasonseg", root=str(tmp_path / "data"), split="val", name=name)
    assert not fo.dataset_exists(name)
    fo.Dataset(name, persistent=True).add_sample(fo.Sample("mine.jpg"))
    with pytest.raises(ExecutionError, match="division by zero"):
        load(source="reasonseg", root=str(tmp_path / "data"), split="val", name=name, overwrite=True)
    assert len(fo.load_dataset(name)) == 1  # what was to be replaced is still there


@pytest.fixture
def photos(name, tmp_path):
    archive_files.grefcoco(tmp_path / "data")
    examples, _ = archives.load_archive("grefcoco", tmp_path / "data", "val")
    dataset = fo.Dataset.from_importer(ReferringDatasetImporter(examples, tmp_path / "images"), name=name)
    return dataset, list(from_dataset(examples))


LOAD = "@fiftyone-genseg/genseg/load_predictions"


def load_predictions(dataset, file, **params):
    request = {"file": str(file), "raise_errors": True} | params
    foo.execute_operator(LOAD, {"dataset": dataset}, params=request)
    dataset.reload()


def test_predictions_made_elsewhere_are_stored_and_evaluated(photos, plugin, tmp_path):
    dataset, examples = photos
    lines = [{"example_id": e.example_id, "instances": [{"mask": m} for m in e.masks]} for e in examples[:-2]]
    lines += [{"example_id": examples[-2].example_id, "failure": "no answer"}, {"example_id": "other", "instances": []}]
    file = tmp_path / "their-model.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    load_predictions(dataset, file)
    statuses = dataset.count_values("their_model_responses.status")
    assert statuses["failed"] == 1
    assert statuses["no_target"] == sum(not e.masks for e in examples[:-2])
    assert dataset.distinct("their_model_responses.checkpoint") == ["their-model.jsonl"]
    results = fiftyone_genseg.evaluate(dataset, "their_model", "ground_truth", progress=False)
    assert (results.table["iou"] == 1).sum() == len(examples) - 2
    # COCO's results go into another field, and loading again replaces instead of adding.
    entries = [{"image_id": e.example_id, "segmentation": m} for e in examples for m in e.masks]
    file = tmp_path / "results.json"
    file.write_text(json.dumps(entries))
    for _ in range(2):
        load_predictions(dataset, file, field="coco", checkpoint="theirs")
    assert dataset.count("coco.detections") == len(entries)
    assert dataset.distinct("coco.detections.checkpoint") == ["theirs"]


def test_predictions_that_do_not_fit_change_nothing(photos, plugin, tmp_path):
    dataset, examples = photos
    file = tmp_path / "mine.jsonl"
    line = {"example_id": examples[0].example_id, "instances": [{"mask": {"size": [1, 1], "counts": "01"}}]}
    good = {"example_id": examples[-1].example_id, "instances": []}
    no_target = next(example for example in examples if not example.masks)
    for text, message in (
        (json.dumps(good) + "\n" + json.dumps(line), r"for an image of \(1, 1\) \(width, height\), the sample's is"),
        (json.dumps(line | {"example_id": no_target.example_id}), r"for an image of \(1, 1\)"),
        (json.dumps({"example_id": no_target.example_id, "image_size": [1, 1], "instances": []}), r"image of \(1, 1\)"),
        (json.dumps(good | {"example_id": "other"}), "is about these samples; their example_id are like"),
        (json.dumps(good) + "\n{", "line 2 of .* is not a prediction"),
    ):
        file.write_text(text + "\n")
        with pytest.raises(ExecutionError, match=message):
            load_predictions(dataset, file)
        dataset.reload()
        assert dataset.get_field("mine") is None
    with pytest.raises(ExecutionError, match="There is no file"):
        load_predictions(dataset, tmp_path / "nowhere")
    with pytest.raises(ExecutionError, match="already holds something else"):
        load_predictions(dataset, file, field="expression")


def test_a_prediction_that_may_be_of_two_samples_is_refused(photos, plugin, tmp_path):
    dataset, examples = photos
    twin = fo.Sample(dataset.first().filepath, tags=["other"])
    twin["example_id"], twin["expression"] = examples[0].example_id, "another benchmark's"
    dataset.add_sample(twin)
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"example_id": examples[0].example_id, "instances": []}) + "\n")
    with pytest.raises(
        ExecutionError, match=r"could be about several samples each, the first has the example_id .* choose a view"
    ):
        load_predictions(dataset, file)
    assert dataset.get_field("mine") is None
    list(add_predictions(dataset.match_tags("other", bool=False), file, "mine"))
    assert dataset.exists("mine_responses").values("example_id") == [examples[0].example_id]
    assert not dataset[twin.id]["mine_responses"]


def test_a_line_of_a_run_is_of_its_own_expression_and_image_only(photos, tmp_path):
    dataset, examples = photos
    example, file = examples[0], tmp_path / "run.jsonl"
    line = {"example_id": example.example_id, "image_id": example.image_id, "expression": example.expression}
    for other in {"expression": "something else"}, {"image_id": "another"}:
        file.write_text(json.dumps(line | {"failure": "out of memory"} | other) + "\n")
        with pytest.raises(ValueError, match=r"no prediction in .* is about these samples"):
            list(add_predictions(dataset, file, "mine"))
    file.write_text(json.dumps(line | {"failure": "out of memory"}) + "\n")
    *_, summary = add_predictions(dataset, file, "mine")
    assert summary.done == 1


@pytest.mark.parametrize(
    ("typed", "normal"),
    [("the  red   shape", "the red shape"), ("cafe\u0301", "caf\u00e9")],
    ids=["white space", "composition"],
)
def test_spellings_of_an_expression_are_one(photos, tmp_path, typed, normal):
    dataset, examples = photos
    assert importing.to_sample(ReferringExample("a.png", typed), tmp_path / "a.png").expression == normal
    sample, example, file = dataset.first(), examples[0], tmp_path / "run.jsonl"
    for stored, said in ((typed, normal), (normal, typed)):
        sample["expression"] = stored  # of a dataset that somebody else made
        sample.save()
        answer = {"answer": "[]", "instances": [{"mask": mask} for mask in example.masks]}
        line = {"example_id": example.example_id, "image_id": example.image_id, "expression": said}
        file.write_text(json.dumps(line | answer) + "\n")
        *_, summary = add_predictions(dataset, file, "mine")
        assert summary.done == 1
        sample.reload()
        assert [response.expression for response in sample["mine_responses"]] == [normal]
        assert {detection.expression for detection in sample["mine"].detections} == {normal}


def test_the_last_prediction_counts_and_the_image_may_be_gone(photos, tmp_path):
    dataset, examples = photos
    sample, example = dataset.first(), examples[0]
    sample.filepath = str(tmp_path / "gone.jpg")
    sample.save()
    file = tmp_path / "mine.jsonl"
    lines = [
        {"example_id": example.example_id, "failure": "out of memory"},
        {"example_id": example.example_id, "answer": "[]", "instances": [{"mask": mask} for mask in example.masks]},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    *_, summary = add_predictions(dataset, file, "mine")
    assert (summary.total, summary.done) == (1, 1)
    assert dataset.count_values("mine_responses.status") == {"segmented": 1}
