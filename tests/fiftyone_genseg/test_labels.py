"""Masks survive the way into FiftyOne and back, to the pixel."""

import fiftyone as fo
import numpy as np
from genseg_hub.schema import Failure, InstancePrompt, Prediction, Response, ResponseError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fiftyone_genseg import labels, overlays, responses
from fiftyone_genseg.statuses import STATUSES


@given(st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda shape: arrays(bool, shape)))
def test_a_mask_round_trips(mask):
    detection = labels.detection_from_mask(mask, label="x")
    if not mask.any():
        assert detection is None
        return
    size = mask.shape[1], mask.shape[0]
    assert np.array_equal(labels.union_mask(fo.Detections(detections=[detection]), size), mask)


def labels_of(prediction, **attributes):
    return [make(prediction, **attributes) for make in (labels.detections, overlays.boxes, overlays.points)]


def test_masks_boxes_and_points_become_relative_and_are_linked():
    mask = np.zeros((50, 100), bool)
    mask[10:20, 30:60] = True
    prompt = InstancePrompt((20.0, 5.0, 70.0, 25.0), ((40.0, 15.0), (50.0, 15.0)))
    prediction = Prediction(Response("", "why", (prompt,)), (mask,), (0.9,), (100, 50))
    (masks, boxes, points) = labels_of(prediction, label="bar", expression="the bar", checkpoint="nano")
    ((detection,), (box,), (keypoint,)) = masks, boxes, points
    assert detection.bounding_box == [0.3, 0.2, 0.3, 0.2]
    assert (box.bounding_box, box.mask) == ([0.2, 0.1, 0.5, 0.4], None)
    assert keypoint.points == [[0.4, 0.3], [0.5, 0.3]]
    for label in (detection, box, keypoint):
        assert (label.label, label["expression"], label["checkpoint"]) == ("bar", "the bar", "nano")
        assert label.index == 1
    assert detection.confidence == 0.9
    assert not detection.has_field("reasoning")  # it is stored once, with the response
    assert responses.response_document(prediction, "the bar", "nano").reasoning == "why"


def test_numbers_of_prompts_are_rounded():
    prompt = InstancePrompt((1.0, 0.0, 2.0, 1.0), ((1.0, 2.0),))
    prediction = Prediction(Response("", "", (prompt,)), (np.ones((7, 7), bool),), (0.1,), (7, 7))
    _, (box,), (keypoint,) = labels_of(prediction)
    assert box.bounding_box == [0.142857, 0, 0.142857, 0.142857]
    assert keypoint.points == [[0.142857, 0.285714]]


def test_an_empty_mask_has_no_detection_and_its_box_stays():
    prompt = InstancePrompt((0.0, 0.0, 1.0, 1.0), ())
    prediction = Prediction(Response("", "", (prompt,)), (np.zeros((4, 4), bool),), (0.1,), (4, 4))
    masks, boxes, points = labels_of(prediction)
    assert (masks, [box.bounding_box for box in boxes], points) == ([], [[0, 0, 0.25, 0.25]], [])


def test_a_response_says_what_came_of_it():
    def status(result):
        return responses.response_document(result, "x", "nano").status

    def prediction(**response):
        return Prediction(Response("", **response), (), (), (4, 4))

    assert status(prediction()) == "no_target"
    assert status(prediction(error=ResponseError.INVALID_JSON)) == "unparsable"
    assert status(Failure("boom", ValueError("boom"))) == "failed"


def test_points_without_a_box_are_stored():
    mask = np.ones((4, 4), bool)
    response = Response("", instances=(InstancePrompt(None, ((1.0, 2.0),)),), repeated=2)
    prediction = Prediction(response, (mask,), (0.5,), (4, 4))
    _, boxes, (keypoint,) = labels_of(prediction)
    assert (boxes, keypoint.points) == ([], [[0.25, 0.5]])
    document = responses.response_document(prediction, "x", "nano")
    assert (document["repeated"], document["points_outside_box"], document["no_target_in_words"]) == (2, 0, False)
    document = responses.response_document(
        Prediction(Response("", no_target_in_words=True), (), (), (4, 4)), "x", "nano"
    )
    assert (document["status"], document["no_target_in_words"]) == ("no_target", True)


def test_a_sample_has_one_outcome():
    assert responses.outcome([]) is None
    assert responses.outcome(["no_target"] * 2).label == "no-target"
    mixed = responses.outcome(["segmented", "failed", "segmented"])
    counts = {name: mixed[name] for name in ("expressions", *STATUSES)}
    assert mixed.label == "mixed"
    assert counts == {"expressions": 3, "segmented": 2, "no_target": 0, "unparsable": 0, "failed": 1}
