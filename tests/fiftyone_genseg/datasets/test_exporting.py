"""Samples as a training set on disk, and what an export leaves out."""

import datetime
from pathlib import Path

import datasets
import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone import ViewField as F
from fiftyone.operators.executor import ExecutionContext
from genseg_hub.images import load_image
from genseg_hub.referring_dataset import IMAGES, from_dataset, load_examples
from genseg_hub.schema import encode_mask
from genseg_training import sources
from PIL import Image
from pymongo.errors import CursorNotFound

from fiftyone_genseg import history, labels
from fiftyone_genseg.datasets import export, unusable
from fiftyone_genseg.operators.export_referring_examples import ExportReferringExamples
from fiftyone_genseg.stored_labels import documents

URI = "@fiftyone-genseg/genseg/export_referring_examples"


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


def test_an_image_is_exported_once_and_found_where_the_folder_is_moved_to(dataset, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(export, "load_image", lambda file, **options: read.append(file) or load_image(file, **options))
    export.export(dataset, tmp_path / "saved")
    files = set(dataset.values("filepath"))
    assert len(files) < len(dataset)
    assert sorted(read) == sorted(files), "each image is looked at once"
    copies = {file.read_bytes() for file in (tmp_path / "saved" / IMAGES).iterdir()}
    assert copies == {Path(file).read_bytes() for file in files}
    stored = datasets.load_from_disk(tmp_path / "saved")
    assert stored[0]["image"].size == Image.open(dataset.first().filepath).size
    assert (tmp_path / "saved" / "data-00000-of-00001.arrow").stat().st_size < 2000 * len(dataset)

    (tmp_path / "saved").rename(tmp_path / "moved")
    examples = list(from_dataset(load_examples(str(tmp_path / "moved"))))
    assert [example.expression for example in examples] == dataset.values("expression")
    for example, file, masks in zip(examples, dataset.values("filepath"), stored["masks"], strict=True):
        assert Path(example.image).parent == tmp_path / "moved" / IMAGES
        assert Path(example.image).read_bytes() == Path(file).read_bytes()
        assert list(example.masks) == masks
    rows = sources.load_source(str(tmp_path / "moved"))
    assert len(rows) == len(dataset)


def shown(results: dict) -> dict:
    """Return the parts of the operator's output form."""
    context = ExecutionContext(operator_uri=URI, request_params={"params": {}, "results": results})
    return ExportReferringExamples().resolve_output(context).to_json()["type"]["properties"]


def test_the_operator_shows_what_was_left_out(dataset, plugin, tmp_path):
    whole = foo.execute_operator(URI, {"dataset": dataset}, params={"folder": str(tmp_path / "whole")}).result
    assert whole == {"examples": 16, "folder": str(tmp_path / "whole"), "left_out": ""}
    assert list(shown(whole)) == ["examples", "folder"]
    broken = dataset.first()
    Path(broken.filepath).write_bytes(b"no image")
    lost = len(dataset.match({"filepath": broken.filepath}))
    rest = foo.execute_operator(URI, {"dataset": dataset}, params={"folder": str(tmp_path / "rest")}).result
    words = f"{lost} of 16 examples left out, unreadable image: the first is {broken.expression!r} on sample"
    assert rest["examples"] == 16 - lost
    assert rest["left_out"].startswith(words)
    assert shown(rest)["not_written"]["view"]["description"] == rest["left_out"]
    assert history.records()[0].text == f"{16 - lost} examples in {tmp_path / 'rest'}. {rest['left_out']}"


def as_fiftyone_reads(view: fo.DatasetView, name: str) -> list[tuple]:
    """Return file, expression, masks and a fact of each example, from FiftyOne's own samples."""
    found = []
    for sample in view:
        with Image.open(sample.filepath) as image:
            size = image.size
        masks = tuple(encode_mask(mask) for mask in labels.instance_masks(sample.ground_truth, size))
        found.append((sample.filepath, sample[name], masks, sample["shown"], sample["day"]))
    return found


@pytest.mark.parametrize("name", ["expression", "caption.text"])
def test_an_export_is_of_what_a_view_shows(dataset, name):
    dataset.add_sample_field("shown", fo.BooleanField)
    dataset.add_sample_field("day", fo.DateField)
    for number, sample in enumerate(dataset):
        for detection in sample.ground_truth.detections:
            detection.label = "even" if number % 2 else "odd"
        sample["caption"] = fo.DynamicEmbeddedDocument(text=f"caption {number}")
        if number % 3:
            sample["shown"], sample["day"] = bool(number % 2), datetime.date(2026, 1, 1 + number)
        sample.save()
    dataset.add_dynamic_sample_fields()
    views = {
        "all": dataset.view(),
        "labels": dataset.filter_labels("ground_truth", F("label") == "odd"),
        "order": dataset.sort_by("filepath", reverse=True),
        "shuffled": dataset.shuffle(seed=5),
        "part": dataset[3:9],
        "changed": dataset.set_field("expression", "another"),
    }
    for view in views.values():
        found = export.examples(view, "ground_truth", name, carried={"shown": "shown", "day": "day"})
        rows = [(e.image, e.expression, e.masks, e.attributes["shown"], e.attributes["day"]) for e in found]
        assert rows == as_fiftyone_reads(view, name)
    assert {row[3] for row in rows} == {None, True, False}


def test_expressions_whose_true_masks_a_filter_hides_are_no_examples_without_a_target(dataset, tmp_path):
    with_target = dataset.match(F("ground_truth.detections").length() > 0)
    none = dataset.filter_labels("ground_truth", F("label") == "of no label", only_matches=False)
    left_out = unusable.Unusable()
    found = list(export.examples(none, "ground_truth", "expression", unusable=left_out))
    assert len(found) == len(dataset) - len(with_target)
    assert not any(example.masks for example in found)
    assert left_out == {unusable.HIDDEN: len(with_target)}
    with pytest.raises(ValueError, match="true masks hidden by the view"):
        export.export(none.select(with_target.values("id")), tmp_path / "nothing")


def test_one_expression_takes_the_true_masks_that_name_it(dataset):
    sample = dataset.match(F("ground_truth.detections").length() > 0).first()
    masks = sample.ground_truth.detections[:1]
    other = fo.Detection(label="x", bounding_box=[0, 0, 0.5, 0.5], mask=np.ones((9, 9), bool), expression="another")
    sample.ground_truth.detections = [*masks, other]
    sample.save()
    dataset.add_dynamic_sample_fields()
    chosen = dataset.select(sample.id)
    assert [len(e.masks) for e in export.examples(chosen, "ground_truth", "expression")] == [2]
    masks[0]["expression"] = sample.expression
    sample.save()
    assert [len(e.masks) for e in export.examples(chosen, "ground_truth", "expression")] == [1]


def test_the_true_masks_may_be_inside_another_field(dataset):
    for sample in dataset:
        sample["boxed"] = fo.DynamicEmbeddedDocument(truth=sample.ground_truth.copy())
        sample.save()
    dataset.add_dynamic_sample_fields()
    found = list(export.examples(dataset, "boxed.truth", "expression"))
    assert [e.masks for e in found] == [e.masks for e in export.examples(dataset, "ground_truth", "expression")]
    assert any(example.masks for example in found)


@pytest.mark.parametrize("name", ["expression", "nothing", "line"])
def test_a_field_without_detections_is_no_ground_truth(dataset, tmp_path, name):
    dataset.add_sample_field("line", fo.EmbeddedDocumentField, embedded_doc_type=fo.Polylines)
    with pytest.raises(ValueError, match=f"The ground truth field '{name}' holds no Detections"):
        export.export(dataset, tmp_path / "out", gt_field=name)
    assert not (tmp_path / "out").exists()


def test_labels_without_an_id_or_with_the_same_one_are_all_exported(dataset):
    sample = next(sample for sample in dataset if len(sample.ground_truth.detections) > 1)
    wanted = next(
        e for e in export.examples(dataset, "ground_truth", "expression") if e.expression == sample.expression
    )
    stored = dataset._sample_collection.find_one({"_id": sample._id})["ground_truth"]["detections"]
    for changed in (
        [{key: value for key, value in each.items() if key != "_id"} for each in stored],
        [each | {"_id": stored[0]["_id"]} for each in stored],
    ):
        dataset._sample_collection.update_one({"_id": sample._id}, {"$set": {"ground_truth.detections": changed}})
        found = {e.example_id: e.masks for e in export.examples(dataset, "ground_truth", "expression")}
        assert found[wanted.example_id] == wanted.masks


def test_masks_that_no_chosen_expression_names_stay_unread(dataset, tmp_path):
    """The files of other expressions may be gone."""
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5] = 255
    file = tmp_path / "mask.png"
    Image.fromarray(mask).save(file)
    sample = dataset.first()
    box = [0.25, 0.25, 0.5, 0.5]
    sample["asked"] = ["here", "gone"]
    sample["truth"] = fo.Detections(
        detections=[
            fo.Detection(bounding_box=box, mask_path=str(file), expression="here"),
            fo.Detection(bounding_box=box, mask_path=str(tmp_path / "gone.png"), expression="gone"),
        ]
    )
    sample.save()
    dataset.add_dynamic_sample_fields()
    left_out = unusable.Unusable()
    (found,) = export.examples(dataset, "truth", "asked", {(sample.id, "here")}, unusable=left_out)
    assert not left_out
    assert len(found.masks) == 1


def test_a_mask_whose_bytes_are_broken_is_left_out_alone(dataset):
    broken = next(sample for sample in dataset if sample.ground_truth.detections)
    key = {"_id": broken._id}
    dataset._sample_collection.update_one(key, {"$set": {"ground_truth.detections.0.mask": b"no array"}})
    left_out = unusable.Unusable()
    found = list(export.examples(dataset, "ground_truth", "expression", unusable=left_out))
    assert len(found) == 15
    assert broken.expression in left_out.details["unusable mask"]
    assert "cannot be used: its bytes in the database are no array" in left_out.details["unusable mask"]


def test_an_export_goes_on_when_mongodb_has_forgotten_the_query(dataset, monkeypatch):
    whole = dataset.values("id")
    real = fo.DatasetView._aggregate
    queries = []

    def forgets(view, **options):
        queries.append(view)
        for number, document in enumerate(real(view, **options)):
            if number == 6 and len(queries) < 3:
                raise CursorNotFound("cursor id 1 not found")
            yield document

    monkeypatch.setattr(fo.DatasetView, "_aggregate", forgets)
    assert [str(document["_id"]) for document in documents(dataset.view())] == whole
    assert len(queries) == 3
