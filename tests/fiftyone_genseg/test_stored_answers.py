"""What a model said is stored, exported and read back as it is, and an answer that cannot be stored costs itself."""

import json
from collections import Counter

import fiftyone as fo
import numpy as np
import pytest
from genseg_hub.evaluation import predictions
from genseg_hub.schema import Failure, InstancePrompt, Prediction, ReferringExample, Response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fiftyone_genseg import labels, outputs, overlays, responses
from fiftyone_genseg.datasets.importing import add_predictions
from fiftyone_genseg.segmentation.engines.base import Engine
from fiftyone_genseg.segmentation.request import SegmentRequest
from fiftyone_genseg.segmentation.run import Target, segment_view, write
from fiftyone_genseg.segmentation.summary import Summary
from tests.helpers import strategies

RESPONSE = ("status", "error", "reasoning", "instances", "points_outside_box", "dialect", "repeated", "cut")


@pytest.fixture
def images(tmp_path):
    """Make four samples, each with an expression and an id of its own."""
    dataset = fo.Dataset()
    for number in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
        sample = fo.Sample(filepath=str(tmp_path / f"{number}.png"), expression=f"number {number}")
        sample["example_id"] = str(number)
        dataset.add_sample(sample)
    outputs.declare_fields(dataset, "genseg")
    yield dataset
    dataset.delete()


def forget(dataset):
    """Remove the results of Hypothesis' earlier examples; a failure would leave their masks."""
    for name in ("genseg", "genseg_boxes", "genseg_points", "genseg_outcome", "genseg_responses"):
        dataset.clear_sample_field(name)


def said(sample, expression):
    """Return what a sample holds about an expression, without random ids."""
    (response,) = (r for r in sample["genseg_responses"] if r.expression == expression)
    masks, boxes, points = (
        [label for label in found if label["expression"] == expression]
        for found in (
            sample["genseg"].detections,
            sample["genseg_boxes"].detections,
            sample["genseg_points"].keypoints,
        )
    )
    return (
        [labels.attribute(response, name) for name in (*RESPONSE, "no_target_in_words")],
        [(d.index, d.label, d.bounding_box, d.confidence, d.mask.tolist()) for d in masks],
        [(d.index, d.label, d.bounding_box) for d in boxes],
        [(k.index, k.label, list(map(list, k.points))) for k in points],
    )


def expected(result, expression):
    sample = fo.Sample(filepath="x.png")
    sample["genseg_responses"] = [responses.response_document(result, expression, "nano")]
    found = ([], [], [])
    if isinstance(result, Prediction):
        kinds = (labels.detections, overlays.boxes, overlays.points)
        found = [make(result, label=labels.LABEL, expression=expression) for make in kinds]
    sample["genseg"], sample["genseg_boxes"] = fo.Detections(detections=found[0]), fo.Detections(detections=found[1])
    sample["genseg_points"] = fo.Keypoints(keypoints=found[2])
    return said(sample, expression)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(strategies.results, min_size=4, max_size=8))
def test_what_is_stored_is_read_back(images, tmp_path, results):
    ids = images.values("id")
    asked = {sample_id: [] for sample_id in ids}
    for number, result in enumerate(results):
        asked[ids[number % 4]].append((f"it {number}", result))
    forget(images)
    summary = Summary()
    write(images, asked, Target("genseg", "nano"), summary)
    assert sum(summary.statuses.values()) == len(results)
    folder = tmp_path / "export"
    images.export(str(folder), dataset_type=fo.types.FiftyOneDataset, export_media=False, overwrite=True)
    copy = fo.Dataset.from_dir(str(folder), dataset_type=fo.types.FiftyOneDataset)
    for stored in (images, copy):
        for sample, pairs in zip(stored.iter_samples(), asked.values(), strict=True):
            for expression, result in pairs:
                assert said(sample, expression) == expected(result, expression)
    copy.delete()


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(strategies.results, min_size=4, max_size=4))
def test_a_file_of_predictions_is_stored_as_it_is(images, tmp_path, results):
    forget(images)
    for file, result in zip(images.values("filepath"), results, strict=True):
        Image.new("RGB", result.image_size if isinstance(result, Prediction) else (8, 8)).save(file)
    lines = [
        predictions.to_json(predictions.to_line(ReferringExample("", f"number {number}", (), str(number)), result))
        for number, result in enumerate(results)
    ]
    lines = [json.dumps({**json.loads(line), "image_id": None}) for line in lines]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    *_, summary = add_predictions(images, tmp_path / "mine.jsonl", "genseg", "nano")
    assert summary.done == 4
    for sample, result in zip(images.iter_samples(), results, strict=True):
        assert said(sample, sample["expression"]) == expected(result, sample["expression"])


def prediction(reasoning):
    prompt = InstancePrompt((1.0, 1.0, 6.0, 6.0), ((2.0, 2.0),))
    return Prediction(Response("", reasoning, (prompt,)), (np.eye(8, dtype=bool),), (0.5,), (8, 8))


def engine(*results):
    """Return an engine that gives these results, in the order of the questions."""
    return Engine(lambda examples, batch_size: zip(examples, results, strict=True), "nano")


def statuses(dataset):
    return [Counter(response.status for response in found) for found in dataset.values("genseg_responses")]


def test_an_answer_that_the_database_refuses_costs_one_expression(images):
    results = [prediction("fine")] * 3
    results.insert(2, prediction("\ud800"))
    request = SegmentRequest(expression_field="expression", batch_size=8)
    *_, summary = segment_view(images, request, engine(*results))
    assert summary.statuses == {"segmented": 3, "failed": 1}
    (reason,) = summary.reasons
    assert "the database refuses the result: UnicodeEncodeError" in reason
    assert [counts["failed"] for counts in statuses(images)] == [0, 0, 1, 0]
    assert images.values("genseg_responses.error")[2] == [reason]
    assert images.count("genseg.detections") == 3
    *_, summary = segment_view(images, request, engine(prediction("fine")))
    assert (summary.skipped, summary.statuses["segmented"]) == (3, 1)


def test_a_reason_that_the_database_refuses_is_stored_without_what_it_cannot_hold(images):
    results = [prediction("fine"), Failure("\ud800", ValueError()), prediction("fine"), prediction("fine")]
    *_, summary = segment_view(images, SegmentRequest(expression_field="expression"), engine(*results))
    assert summary.statuses == {"segmented": 3, "failed": 1}
    assert images.values("genseg_responses.error")[1] == ["\ufffd"]


@pytest.mark.parametrize("megabytes", [9, 17])
def test_answers_that_one_sample_cannot_hold_are_failures(images, megabytes):
    """The first of 9 MB fits, the second does not, and 17 MB never fit."""
    view, expressions = images[:2], ["small", "large", "also large", "also small"]
    texts = ["x", "x" * (megabytes << 20), "x" * (megabytes << 20), "x"]
    results = [prediction(text) for text in (*texts, *"abcd")]
    *_, summary = segment_view(view, SegmentRequest(expressions=expressions, batch_size=8), engine(*results))
    lost = 1 if megabytes == 9 else 2
    assert summary.statuses == {"segmented": 8 - lost, "failed": lost}
    assert list(summary.reasons) == [
        "the result does not fit: MongoDB holds 16 MB per sample; remove other results from it, then run again"
    ]
    first, second = statuses(view)
    assert first == {"segmented": 4 - lost, "failed": lost}
    assert second == {"segmented": 4}
    assert view.first()["genseg_responses"][-1].status == "segmented"


def test_a_sample_without_room_for_a_failure_ends_no_run(images):
    sample = images.first()
    sample["notes"] = "x" * ((16 << 20) - 1500)
    sample.save()
    results = [Failure("y" * 2000, ValueError()), prediction("fine"), prediction("fine"), prediction("fine")]
    *_, summary = segment_view(images, SegmentRequest(expression_field="expression"), engine(*results))
    assert summary.statuses == {"segmented": 3, "failed": 1}


def test_the_reasoning_is_stored_once_beside_older_datasets(images):
    images.add_sample_field("genseg.detections.reasoning", fo.StringField)  # as versions before this one declared
    sample = images.first()
    old = fo.Detection(label="referred", bounding_box=[0, 0, 1, 1], expression="x", checkpoint="nano", reasoning="old")
    sample["genseg"] = fo.Detections(detections=[old])
    sample["genseg_responses"] = [fo.DynamicEmbeddedDocument(expression="x", status="segmented", reasoning="old")]
    sample.save()
    for _ in segment_view(images, SegmentRequest(expression_field="expression"), engine(*[prediction("new")] * 4)):
        pass
    assert images.first()["genseg"].detections[0]["reasoning"] == "old"
    assert images.distinct("genseg.detections.reasoning") == ["old"]
    assert images.distinct("genseg_responses.reasoning") == ["new", "old"]
