"""Predictions that were made elsewhere: the operator "Load predictions"."""

import json

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError
from genseg_hub.schema import ReferringExample

import fiftyone_genseg
from fiftyone_genseg.datasets import importing
from fiftyone_genseg.datasets.importing import add_predictions

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
        (json.dumps(good | {"example_id": "other"}), "is about these samples; their `example_id`s are like"),
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
