"""Masks survive the way into FiftyOne and back, to the pixel."""

import fiftyone as fo
import numpy as np
from genseg_hub.schema import Failure, InstancePrompt, Prediction, Response, ResponseError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fiftyone_genseg import labels


@given(st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda shape: arrays(bool, shape)))
def test_a_mask_round_trips(mask):
    detection = labels.detection_from_mask(mask, label="x")
    if not mask.any():
        assert detection is None
        return
    size = mask.shape[1], mask.shape[0]
    assert np.array_equal(labels.union_mask(fo.Detections(detections=[detection]), size), mask)


def test_points_and_boxes_become_relative():
    mask = np.zeros((50, 100), bool)
    mask[10:20, 30:60] = True
    prompt = InstancePrompt((20.0, 5.0, 70.0, 25.0), ((40.0, 15.0), (50.0, 15.0)))
    prediction = Prediction(Response("", "why", (prompt,)), (mask,), (0.9,), (100, 50))
    (detection,) = labels.detections(prediction, "the bar", "nano")
    assert detection.bounding_box == [0.3, 0.2, 0.3, 0.2]
    assert detection["prompt_box"] == [0.2, 0.1, 0.5, 0.4]
    assert detection["points"] == [[0.4, 0.3], [0.5, 0.3]]
    assert (detection.confidence, detection["expression"], detection["checkpoint"]) == (0.9, "the bar", "nano")
    assert not detection.has_field("reasoning")  # it is stored once, with the response
    assert labels.response_document(prediction, "the bar", "nano").reasoning == "why"


def test_an_empty_mask_has_no_detection():
    prompt = InstancePrompt((0.0, 0.0, 1.0, 1.0), ())
    prediction = Prediction(Response("", "", (prompt,)), (np.zeros((4, 4), bool),), (0.1,), (4, 4))
    assert labels.detections(prediction, "x", "nano") == []


def test_a_response_says_what_came_of_it():
    def status(result):
        return labels.response_document(result, "x", "nano").status

    def prediction(**response):
        return Prediction(Response("", **response), (), (), (4, 4))

    assert status(prediction()) == "no_target"
    assert status(prediction(error=ResponseError.INVALID_JSON)) == "unparsable"
    assert status(Failure("boom", ValueError("boom"))) == "failed"


def test_points_without_a_box_are_stored_and_counted():
    mask = np.ones((4, 4), bool)
    response = Response("", instances=(InstancePrompt(None, ((1.0, 2.0),)),), repeated=2)
    prediction = Prediction(response, (mask,), (0.5,), (4, 4))
    (detection,) = labels.detections(prediction, "x", "nano")
    assert detection["prompt_box"] is None
    assert detection["points"] == [[0.25, 0.5]]
    document = labels.response_document(prediction, "x", "nano")
    assert (document["repeated"], document["points_outside_box"], document["no_target_in_words"]) == (2, 0, False)
    document = labels.response_document(Prediction(Response("", no_target_in_words=True), (), (), (4, 4)), "x", "nano")
    assert (document["status"], document["no_target_in_words"]) == ("no_target", True)
