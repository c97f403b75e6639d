"""The fields of a result: what they hold, what the App shows of them, and results that earlier versions wrote."""

import json

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from bson import ObjectId
from genseg_hub.schema import Failure, InstancePrompt, Prediction, Response, ResponseError

import fiftyone_genseg
from fiftyone_genseg import outputs
from fiftyone_genseg.asking import corrections
from fiftyone_genseg.cards import cards
from fiftyone_genseg.demo import refscenes_dataset
from fiftyone_genseg.segmentation.request import SegmentRequest
from fiftyone_genseg.segmentation.run import Target, write
from fiftyone_genseg.segmentation.summary import Summary
from tests.helpers.squares import HEIGHT, WIDTH, one_of_each, square

FIELDS = ("genseg", "genseg_boxes", "genseg_points", "genseg_outcome", "genseg_responses")
CAR, DOG = "the red car", "the dog"


def found(x=5, reasoning="It is there."):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:15, x : x + 10] = True
    prompt = InstancePrompt((float(x), 5.0, x + 10.0, 15.0), ((x + 5.0, 10.0), (x + 6.0, 11.0)))
    return Prediction(Response("", reasoning, (prompt,)), (mask,), (0.9,), (WIDTH, HEIGHT), "genseg")


NOTHING = Prediction(Response("", "There is none."), (), (), (WIDTH, HEIGHT), "genseg")
GARBLED = Prediction(Response("", error=ResponseError.INVALID_JSON), (), (), (WIDTH, HEIGHT), "genseg")
FAILED = Failure("no file", ValueError())


@pytest.fixture
def dataset(make):
    return make({"expression": "a"}, {"expression": "b"})


def store(dataset, *results, request=None):
    """Store (expression, result) pairs on the first sample, as a run of a request does."""
    request = request or SegmentRequest(tuple(expression for expression, _ in results))
    outputs.declare_fields(dataset, "genseg")
    target = Target("genseg", "nano", labels=request.labels)
    write(dataset, {dataset.first().id: list(results)}, target, Summary())
    return dataset.first()


def names(labels):
    return [(label.label, label["expression"]) for label in labels]


def test_masks_are_labelled_with_their_expression_or_its_class(dataset):
    sample = store(dataset, (CAR, found()), (DOG, found(20)), request=SegmentRequest(f"{CAR} -> car\n{DOG}"))
    expected = [("car", CAR), (DOG, DOG)]
    assert names(sample["genseg"].detections) == expected
    assert names(sample["genseg_boxes"].detections) == expected
    assert names(sample["genseg_points"].keypoints) == expected


def test_masks_of_a_field_of_expressions_have_one_label(dataset):
    request = SegmentRequest(expression_field="expression", classes={CAR: "car"})
    sample = store(dataset, (CAR, found()), (DOG, found(20)), request=request)
    assert names(sample["genseg"].detections) == [("car", CAR), ("referred", DOG)]


@pytest.mark.parametrize(("classes", "expected"), [({}, [DOG, CAR]), ({CAR: "vehicle", DOG: "animal"}, None)])
def test_fiftyones_exports_have_the_classes(dataset, tmp_path, classes, expected):
    expected = sorted(expected or classes.values())
    store(dataset, (CAR, found()), (DOG, found(20)), request=SegmentRequest((CAR, DOG), classes=classes))
    coco, yolo = tmp_path / "coco", tmp_path / "yolo"
    dataset.export(str(coco), dataset_type=fo.types.COCODetectionDataset, label_field="genseg", progress=False)
    categories = json.loads((coco / "labels.json").read_text())["categories"]
    assert sorted(category["name"] for category in categories) == expected
    dataset.export(
        str(yolo), dataset_type=fo.types.YOLOv5Dataset, label_field="genseg", classes=expected, progress=False
    )
    assert all(name in (yolo / "dataset.yaml").read_text() for name in expected)
    (lines,) = [text for file in yolo.rglob("labels/**/*.txt") if (text := file.read_text())]
    assert sorted(line.split()[0] for line in lines.splitlines()) == ["0", "1"]


@pytest.mark.parametrize(
    ("results", "label"),
    [
        ([(CAR, found()), (DOG, found())], "segmented"),
        ([(CAR, NOTHING)], "no-target"),
        ([(CAR, GARBLED)], "unparsable"),
        ([(CAR, FAILED)], "failed"),
        ([(CAR, found()), (DOG, NOTHING)], "mixed"),
    ],
)
def test_a_sample_has_an_outcome(dataset, results, label):
    sample = store(dataset, *results)
    assert sample["genseg_outcome"].label == label
    assert sample["genseg_outcome"]["expressions"] == len(results)
    assert dataset.count_values("genseg_outcome.label") == {label: 1, None: 1}


def test_results_of_one_expression_are_replaced_and_others_stay(dataset):
    store(dataset, (CAR, found()), (DOG, found(20)))
    sample = store(dataset, (CAR, NOTHING))
    for labels in (sample["genseg"].detections, sample["genseg_boxes"].detections, sample["genseg_points"].keypoints):
        assert [label["expression"] for label in labels] == [DOG]
    assert sample["genseg_outcome"].label == "mixed"
    sample = store(dataset, (DOG, FAILED))
    assert len(sample["genseg"].detections) == len(sample["genseg_boxes"].detections) == 1, "a failure keeps them"
    assert [card.outcome for card in cards(sample, "genseg")] == ["no-target", "failed"]


def test_all_fields_are_described_and_in_one_group_of_the_sidebar(dataset):
    dataset.add_sample_field("genseg_outcome", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    field = dataset.get_field("genseg_outcome")
    field.description = "mine"
    field.save()
    dataset.delete_sample_field("genseg_outcome")
    store(dataset, (CAR, found()))
    described = {path: field.description for path, field in dataset.get_field_schema(flat=True).items()}
    for path in FIELDS:
        assert described[path]
    for path in ("genseg.detections", "genseg_boxes.detections", "genseg_points.keypoints", "genseg_responses"):
        assert described[f"{path}.expression"]
        assert described[f"{path}.checkpoint"]
    (group,) = [group for group in dataset.app_config.sidebar_groups if group.name == "genseg"]
    assert group.paths[: len(FIELDS)] == list(FIELDS)


READ_ONLY = {
    "genseg.detections.expression": [["x"], []],
    "genseg_boxes.detections.checkpoint": [["x"], []],
    "genseg_points.keypoints.expression": [["x"], []],
    "genseg_outcome.label": ["failed", None],
    "genseg_outcome.expressions": [7, None],
    "genseg_responses.status": [["failed"], []],
}


def test_what_a_run_wrote_down_cannot_be_edited(dataset):
    store(dataset, (CAR, found()))
    for path, values in READ_ONLY.items():
        before = dataset.values(path)
        with pytest.raises(ValueError, match=f"Cannot edit read-only field '{path}'"):
            dataset.set_values(path, values)
        assert dataset.values(path) == before
    masks, outcome = (dataset.generate_label_schemas(name) for name in ("genseg", "genseg_outcome"))
    assert outcome["read_only"] is True, "in FiftyOne's annotation, too"
    read_only = {each["name"]: each.get("read_only", False) for each in masks["attributes"]}
    assert read_only["expression"] is read_only["checkpoint"] is True
    assert read_only["index"] is read_only["tags"] is False
    assert "read_only" not in masks, "classes, boxes and masks can be edited"


def test_read_only_attributes_hinder_no_run_and_no_work_on_whole_fields(dataset):
    store(dataset, (CAR, found()), (DOG, found(20)))
    sample = store(dataset, (CAR, NOTHING))
    corrections.keep(dataset, sample.id, "genseg", DOG)
    corrections.mark_wrong(dataset, sample.id, "genseg", DOG)
    corrections.delete(dataset, sample.id, "genseg", CAR)
    dataset.tag_labels("seen")
    (mask,) = dataset.first()["genseg"].detections
    assert {"seen", "wrong"} <= set(mask.tags)
    dataset.delete_labels(ids=[mask.id])
    assert dataset.count("genseg.detections") == 0
    for name in FIELDS:
        dataset.rename_sample_field(name, f"old_{name}")
        dataset.clear_sample_field(f"old_{name}")
        dataset.delete_sample_field(f"old_{name}")
    assert not set(FIELDS) & dataset.get_field_schema().keys()


def test_what_a_person_chose_for_the_app_stays(dataset):
    dataset.app_config.color_scheme = fo.ColorScheme(color_by="field", color_pool=["#ff0000"])
    dataset.save()
    store(dataset, (CAR, found()))
    field = dataset.get_field("genseg")
    field.description = "my masks"
    field.save()
    dataset.app_config.sidebar_groups = [group for group in dataset.app_config.sidebar_groups if group.name != "genseg"]
    dataset.save()
    store(dataset, (DOG, found()))
    assert dataset.app_config.color_scheme.color_by == "field"
    assert dataset.app_config.color_scheme.color_pool == ["#ff0000"]
    assert dataset.get_field("genseg").description == "my masks"
    assert not [group for group in dataset.app_config.sidebar_groups if group.name == "genseg"]


def test_labels_are_coloured_by_expression_where_nobody_chose(dataset):
    for name in ("genseg", "other"):
        outputs.declare_fields(dataset, name)
    scheme = dataset.app_config.color_scheme
    assert scheme.color_by == "value"
    assert [entry["path"] for entry in scheme.fields] == [*FIELDS[:3], "other", "other_boxes", "other_points"]
    assert {entry["colorByAttribute"] for entry in scheme.fields} == {"expression"}


@pytest.mark.parametrize("suffix", ["", "_boxes", "_points", "_outcome", "_responses"])
def test_fields_of_other_people_are_refused(dataset, suffix):
    dataset.add_sample_field(f"genseg{suffix}", fo.StringField)
    with pytest.raises(ValueError, match=f"'genseg{suffix}' already holds something else"):
        outputs.check_fields(dataset, "genseg")


def test_boxes_of_other_people_are_refused(dataset):
    sample = dataset.first()
    sample["genseg_boxes"] = fo.Detections(detections=[fo.Detection(label="x", bounding_box=[0, 0, 1, 1])])
    sample.save()
    with pytest.raises(ValueError, match="'genseg_boxes' holds labels that no run wrote there"):
        outputs.check_fields(dataset, "genseg")


def test_cards_say_it_in_words(dataset):
    sample = store(dataset, (DOG, GARBLED), (CAR, found(reasoning="left")), ("a cat", FAILED))
    garbled, car, cat = cards(sample, "genseg")
    assert (garbled.expression, garbled.outcome, garbled.error) == (
        DOG, "unparsable", "the answer has no readable JSON",
    )  # fmt: skip
    assert (car.outcome, car.error, car.reasoning, car.instances, car.checkpoint) == (
        "segmented",
        "",
        "left",
        1,
        "nano",
    )
    assert (cat.outcome, cat.error) == ("failed", "no file")
    assert car.when is not None
    assert cards(sample, "absent") == []


def test_masks_without_responses_have_cards(dataset):
    sample = dataset.first()
    masks = [square(0, 0, expression=e, checkpoint="nano") for e in (CAR, DOG, CAR)]
    sample["applied"] = fo.Detections(detections=masks, reasoning="why")
    assert [(card.expression, card.instances, card.reasoning) for card in cards(sample, "applied")] == [
        (CAR, 2, "why"),
        (DOG, 1, "why"),
    ]


@pytest.fixture
def earlier(make):
    """Two samples with results as the version before this one stored them, and one that was not asked."""
    dataset = make({"expression": CAR}, {"expression": "a camel"}, {"expression": DOG})
    dataset.add_sample_field("genseg", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    for name, kind in (("expression", fo.StringField), ("checkpoint", fo.StringField), ("points", fo.ListField)):
        dataset.add_sample_field(f"genseg.detections.{name}", kind)
    dataset.add_sample_field("genseg.detections.prompt_box", fo.ListField, subfield=fo.FloatField)
    kind = fo.DynamicEmbeddedDocument
    dataset.add_sample_field(
        "genseg_responses", fo.ListField, subfield=fo.EmbeddedDocumentField, embedded_doc_type=kind
    )
    for name in ("expression", "status", "error", "reasoning", "checkpoint"):
        dataset.add_sample_field(f"genseg_responses.{name}", fo.StringField)
    dataset.add_sample_field("genseg_responses.instances", fo.IntField)

    def mask(x, box):
        made = square(x, 5, expression=CAR, checkpoint="nano", confidence=0.8).to_mongo()
        return {**made, "_id": ObjectId(), "label": "referred", "prompt_box": box, "points": [[0.1234567, 0.5]]}

    def response(expression, status, instances):
        said = {"expression": expression, "status": status, "error": None, "reasoning": "$why", "checkpoint": "nano"}
        return {"_cls": "DynamicEmbeddedDocument", **said, "instances": instances}

    first, second, _ = (ObjectId(i) for i in dataset.values("id"))
    masks = {"_cls": "Detections", "detections": [mask(5, [0.1, 0.2, 0.3, 1 / 3]), mask(20, None)]}
    responses = [response(CAR, "segmented", 2), response("a $5 bill", "no_target", 0)]
    collection = dataset._sample_collection
    collection.update_one({"_id": first}, {"$set": {"genseg": masks, "genseg_responses": responses}})
    nothing = {"_cls": "Detections", "detections": []}
    responses = [response("a camel", "no_target", 0)]
    collection.update_one({"_id": second}, {"$set": {"genseg": nothing, "genseg_responses": responses}})
    dataset.reload()
    return dataset


def shown(dataset):
    """Return everything in the fields of a result, ids included."""
    return [[sample[name] and str(sample[name]) for name in FIELDS] for sample in dataset]


def test_results_of_earlier_versions_are_completed_once(earlier):
    first = earlier.first()
    masks = [detection.mask.copy() for detection in first["genseg"].detections]
    outputs.complete(earlier, "genseg")
    first.reload()
    assert [np.array_equal(a, d.mask) for a, d in zip(masks, first["genseg"].detections, strict=True)] == [True, True]
    assert names(first["genseg"].detections) == [("referred", CAR)] * 2
    assert [detection.index for detection in first["genseg"].detections] == [1, 2]
    (box,), points = first["genseg_boxes"].detections, first["genseg_points"].keypoints
    assert (box.bounding_box, box.index, box["expression"]) == ([0.1, 0.2, 0.3, 0.333333], 1, CAR)
    assert [point.index for point in points] == [1, 2]
    assert points[0].points == [[0.123457, 0.5]]
    assert first["genseg_outcome"].label == "mixed"
    assert earlier.values("genseg_outcome.label") == ["mixed", "no-target", None]
    for name in ("points", "prompt_box"):
        assert earlier.get_field(f"genseg.detections.{name}") is None
        assert name not in earlier._sample_collection.find_one({"_id": first._id})["genseg"]["detections"][0]
    assert earlier.get_field("genseg_responses.stored_at") is not None
    assert [card.reasoning for card in cards(first, "genseg")] == ["$why", "$why"]
    before = shown(earlier)
    outputs.complete(earlier, "genseg")
    outputs.declare_fields(earlier, "genseg")
    earlier.reload()
    assert shown(earlier) == before


def test_a_completion_that_was_killed_goes_on(earlier, monkeypatch):
    monkeypatch.setattr(outputs, "_CHUNK", 1)
    monkeypatch.setattr(outputs, "_LABEL_ATTRIBUTES", None)  # the samples are written, and the schema is not
    with pytest.raises(AttributeError, match="items"):
        outputs.complete(earlier, "genseg")
    monkeypatch.undo()
    outputs.complete(earlier, "genseg")
    assert len(earlier.first()["genseg_points"].keypoints) == 2


def test_a_run_completes_results_of_earlier_versions(earlier):
    sample = store(earlier, (DOG, found(20)))
    assert names(sample["genseg"].detections) == [("referred", CAR), ("referred", CAR), (DOG, DOG)]
    assert [label["expression"] for label in sample["genseg_points"].keypoints] == [CAR, CAR, DOG]
    assert sample["genseg_outcome"]["expressions"] == 3
    assert earlier.values("genseg_outcome.label")[1] == "no-target"


def test_an_evaluation_completes_results_of_earlier_versions(earlier, plugin, caplog):
    params = {"raise_errors": True, "eval_key": "ev", "overwrite": True}
    evaluate = "@fiftyone-genseg/genseg/evaluate_referring_segmentation"
    sample = earlier.first()
    sample["ground_truth"] = fo.Detections(detections=[square(5, 5), square(20, 5)])
    sample.save()
    earlier.add_sample_field("genseg_boxes", fo.StringField)  # of somebody else, who needs an evaluation all the same
    foo.execute_operator(evaluate, {"dataset": earlier}, params=params)
    earlier.reload()
    assert earlier.get_field("genseg_outcome") is None
    assert "the field 'genseg_boxes' already holds something else" in caplog.text
    earlier.delete_sample_field("genseg_boxes")
    foo.execute_operator(evaluate, {"dataset": earlier}, params=params)
    earlier.reload()
    assert earlier.values("genseg_outcome.label") == ["mixed", "no-target", None]
    assert earlier.list_evaluations() == ["ev"]


def test_fields_of_others_are_not_completed(dataset):
    sample = dataset.first()
    sample["ground_truth"] = fo.Detections(detections=[square(0, 0)])
    sample.save()
    outputs.complete(dataset, "ground_truth")
    assert not dataset.has_sample_field("ground_truth_outcome")


def test_the_reasoners_boxes_are_evaluated_from_either_place(earlier):
    sample = earlier.first()
    sample["ground_truth"] = fo.Detections(detections=[square(5, 5), square(20, 5)])
    sample.save()
    before = fiftyone_genseg.evaluate(earlier[:1]).figures()
    outputs.complete(earlier, "genseg")
    after = fiftyone_genseg.evaluate(earlier[:1]).figures()
    assert before["box_miou"] == pytest.approx(after["box_miou"], abs=1e-5)
    earlier.delete_sample_field("genseg_boxes")
    assert fiftyone_genseg.evaluate(earlier[:1]).figures()["box_miou"] > after["box_miou"], "of the masks"


@pytest.mark.parametrize("kind", [fo.types.FiftyOneDataset])
def test_results_go_along_through_export_clone_merge_and_rename(dataset, tmp_path, kind):
    store(dataset, (CAR, found()), (DOG, NOTHING))
    before = shown(dataset)
    dataset.export(str(tmp_path / "out"), dataset_type=kind, export_media=False, progress=False)
    imported = fo.Dataset.from_dir(str(tmp_path / "out"), dataset_type=kind, progress=False)
    clone, merged = dataset.clone(), fo.Dataset()
    merged.merge_samples(dataset)
    for copy in (imported, clone, merged):
        assert shown(copy) == before
        assert copy.get_field("genseg_outcome").description
        store(copy, (DOG, found(20)))
        assert copy.first()["genseg_outcome"].label == "segmented"
        for name in FIELDS:
            copy.rename_sample_field(name, name.replace("genseg", "mine"))
        outputs.check_fields(copy, "mine")
        copy.delete_sample_fields([name.replace("genseg", "mine") for name in FIELDS])
        outputs.check_fields(copy, "mine")
        copy.delete()


def test_fields_of_an_evaluation_and_of_an_import_are_described(make, tmp_path):
    dataset = make(*one_of_each())
    fiftyone_genseg.evaluate(dataset, eval_key="ev")
    schema = dataset.get_field_schema(flat=True)
    fields = {path: field for path, field in schema.items() if path.rpartition(".")[2].startswith("ev")}
    assert len(fields) == 13
    assert all(field.description for field in fields.values())
    scenes = refscenes_dataset("described", tmp_path, 1)
    for name in ("expression", "ground_truth", "example_id", "image_id"):
        assert scenes.get_field(name).description
    scenes.delete()


def test_the_fields_are_declared_together(make, monkeypatch):
    """FiftyOne reloads a dataset for each `add_sample_field`: 30 times."""
    dataset, reloads = make({"expression": "a"}), []
    reload = fo.Dataset._reload
    monkeypatch.setattr(fo.Dataset, "_reload", lambda self, **options: reloads.append(1) or reload(self, **options))
    outputs.declare_fields(dataset, "genseg")
    declared = len(reloads)
    assert declared <= 4
    fields = dataset.get_field_schema(flat=True)
    assert fields["genseg_responses.status"].read_only
    assert fields["genseg_points.keypoints.negative"].description
    assert isinstance(fields["genseg_outcome.segmented"], fo.IntField)
    outputs.declare_fields(dataset, "genseg")
    assert len(reloads) == declared, "they are all there"
