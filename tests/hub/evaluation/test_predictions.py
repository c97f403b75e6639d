"""Stored predictions: a line gives back its result, and files of other systems are read or refused."""

import dataclasses
import json

import numpy as np
import pytest
from genseg_hub.errors import PredictionError
from genseg_hub.evaluation import prediction_files, predictions
from genseg_hub.evaluation.scores import Scores
from genseg_hub.schema import (
    Failure,
    InstancePrompt,
    Prediction,
    ReferringExample,
    Response,
    encode_mask,
)
from hypothesis import given, settings

from tests.helpers import strategies

SQUARE = np.zeros((100, 100), dtype=bool)
SQUARE[60:80, 60:80] = True
RLE = encode_mask(SQUARE)
EXAMPLE = ReferringExample("scene.png", "the square", (RLE,), "7", "scene")


def again(result):
    return predictions.from_line(json.loads(json.dumps(predictions.to_line(EXAMPLE, result))))


def read(file, text):
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(prediction_files.read(file))


def line(example_id="7", **more):
    return json.dumps({"example_id": example_id, "instances": [{"mask": RLE}]} | more)


@settings(max_examples=300)
@given(strategies.results)
def test_a_line_gives_back_its_result(result):
    text = predictions.to_json(predictions.to_line(EXAMPLE, result))
    found = predictions.from_line(json.loads(text, parse_constant=pytest.fail))
    if isinstance(result, Failure):
        assert found.message == result.message
        return
    masks = {"masks": ()}
    assert vars(dataclasses.replace(found, **masks)) == vars(dataclasses.replace(result, **masks))
    assert len(found.masks) == len(result.masks)
    for one, other in zip(found.masks, result.masks, strict=True):
        assert np.array_equal(one, other)


def test_a_number_that_is_not_finite_is_never_written():
    prediction = Prediction(Response("", instances=(InstancePrompt(None, ((1, 1),)),)), (SQUARE,), (np.nan,), (9, 9))
    with pytest.raises(ValueError, match="not JSON compliant"):
        predictions.to_json(predictions.to_line(EXAMPLE, prediction))


def test_texts_of_another_system_are_bounded():
    said = {"instances": [], "answer": "a\ud800" + "x" * 60_000, "reasoning": "\x00" * 30_000, "dialect": "\udfff"}
    found = predictions.from_line(said)
    assert found.response.text.startswith("a\ufffdx")
    assert (len(found.response.text), len(found.response.reasoning), found.response.cut) == (50_000, 20_000, True)
    assert (found.response.reasoning[:2], found.dialect) == ("\ufffd\ufffd", "\ufffd")
    assert predictions.from_line({"failure": "\ud800" * 9999}).message == "\ufffd" * 2000


def test_points_without_a_box_are_given_back():
    response = Response("a", instances=(InstancePrompt(None, ((3.0, 4.0),)),), repeated=3)
    prediction = Prediction(response, (SQUARE,), (1.0,), (100, 100))
    assert again(prediction).response == response
    assert not predictions.has_boxes(predictions.to_line(EXAMPLE, prediction))
    assert Scores().add(EXAMPLE, prediction)["iou"] == 1
    strangers = predictions.from_line({"instances": [{"mask": RLE, "box": None}]})
    assert strangers.response.instances == (InstancePrompt((60, 60, 80, 80), ()),)


def test_a_no_target_answer_in_words_is_given_back():
    response = Response("None", no_target_in_words=True)
    assert again(Prediction(response, (), (), (100, 100))).response == response
    older = predictions.from_line({"example_id": "7", "answer": "", "instances": []})
    assert older.response == Response("")


def test_a_failure_is_one_again():
    failure = again(Failure("why", ValueError("why")))
    assert isinstance(failure, Failure)
    assert failure.message == "why"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (line() + "\n\n  \n" + line("8"), ["7", "8"]),
        ("\ufeff" + line() + "\r\n" + line("8") + "\r\n", ["7", "8"]),
        (line(7) + "\n" + line(8.0), ["7", "8"]),
        ("", []),
    ],
    ids=["blank lines", "BOM and CRLF", "numbers", "empty"],
)
def test_harmless_variants_are_read(tmp_path, text, ids):
    assert [found["example_id"] for found in read(tmp_path / "mine.jsonl", text)] == ids


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (line() + "\n" + "[" * 100_000, r"line 2 of .*RecursionError"),
        (line().encode() + b'\n{"example_id": "\xff"}', r"line 2 of .*UnicodeDecodeError"),
        (b"\xff" * 10_000, r"line 1 of .{,300}UnicodeDecodeError.{,200}$"),
        (line() + "\n\n" + line(), r"line 3 of .* is a second prediction of '7', after line 1"),
        (line() + "\n" + line(None), r"line 2 of .*an id is a string or a number"),
        (line(score=1) + "\n" + line("8", note=float("nan")), r"line 2 of .*NaN is no finite number"),
        (line().replace("}}]", '}, "score": 1e999}]'), r"line 1 of .*1e999 is no finite number"),
        (line().replace("}}]", '}, "box": [0, 0, 1e200, 1]}]'), r"line 1 of .*1e\+200 is no number of pixels"),
        (line().replace("}}]", '}, "box": [0, 0, "nan", 1]}]'), r"line 1 of .*'nan' is no number of pixels"),
        (line().replace("}}]", '}, "box": [9, 0, 1, 1]}]'), r"line 1 of .*x1 <= x2"),
        (line().replace("}}]", '}, "points": [[NaN, 1]]}]'), r"line 1 of .*NaN is no finite number"),
        (line().replace("[100, 100]", "[-100, -100]"), r"line 1 of .*a mask is -100 x -100"),
        (json.dumps({"example_id": "7", "instances": [{"mask": [[1, 1, 9, 1, 9, 9]]}]}), r"line 1 of .*no COCO RLE"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, text, message):
    with pytest.raises(PredictionError, match=f"(?s){message}"):
        read(tmp_path / "mine.jsonl", text)


def test_a_run_may_have_an_expression_twice(tmp_path):
    failed = json.dumps({"example_id": "7", "expression": "the square", "image_id": "scene", "failure": "no memory"})
    file = tmp_path / "run.jsonl"
    assert len(read(file, failed + "\n" + line(answer="x"))) == 2
    assert "instances" in prediction_files.Index(file).find(EXAMPLE)


SPELLINGS = ["the square", "  the \t square\n", "the\u00a0square"]


@pytest.mark.parametrize("stored", SPELLINGS)
@pytest.mark.parametrize("asked", SPELLINGS)
def test_spaces_make_no_other_question(tmp_path, stored, asked):
    """Find the line of an expression, which older runs stored without normalizing it."""
    file = tmp_path / "run.jsonl"
    file.write_text(line(image_id="scene", expression=stored, answer="x") + "\n")
    assert prediction_files.Index(file).find(dataclasses.replace(EXAMPLE, expression=asked))["answer"] == "x"
    made = predictions.to_line(dataclasses.replace(EXAMPLE, expression=asked), Failure("why", ValueError()))
    assert made["expression"] == "the square"
    assert predictions.asked(made) == predictions.asked(json.loads(file.read_text())) == ("7", "scene", "the square")


def test_another_expression_or_image_is_another_question(tmp_path):
    file = tmp_path / "run.jsonl"
    file.write_text(line(image_id="scene", expression="the square", answer="x") + "\n")
    index = prediction_files.Index(file)
    assert index.find(EXAMPLE)
    for other in ({"expression": "the squares"}, {"image_id": "other"}, {"example_id": "8"}):
        assert index.find(dataclasses.replace(EXAMPLE, **other)) is None


@pytest.mark.parametrize("name", ["mine.json", "MINE.JSON", "Mine.Json"])
def test_coco_results_are_known_by_their_suffix(tmp_path, name):
    entries = [{"image_id": 7, "segmentation": RLE}, {"image_id": 8, "segmentation": RLE, "score": 0.5}]
    entries.append({"image_id": 7.0, "segmentation": RLE})
    found = read(tmp_path / name, "\ufeff" + json.dumps(entries))
    assert [(one["example_id"], len(one["instances"])) for one in found] == [("7", 2), ("8", 1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "RecursionError"),
        (b'["\xff"]', "UnicodeDecodeError"),
        (json.dumps([{"image_id": 7, "segmentation": RLE}, {"image_id": 7}]), r"entry 2.*'segmentation'"),
        (json.dumps([{"image_id": 7, "segmentation": RLE}, 3]), r"entry 2"),
        (json.dumps([{"image_id": 7, "segmentation": [[1, 1, 9, 1, 9, 9]]}]), r"'7' cannot be read: .*no COCO RLE"),
        (json.dumps([{"image_id": 7, "segmentation": RLE, "score": float("inf")}]), "Infinity is no finite number"),
    ],
)
def test_coco_results_that_cannot_be_used_are_named(tmp_path, text, message):
    with pytest.raises(PredictionError, match=f"(?s)mine.json.*{message}"):
        read(tmp_path / "mine.json", text)


@pytest.mark.parametrize("nothing", [[], [np.zeros_like(SQUARE)]], ids=["alone", "beside an empty mask"])
def test_masks_without_boxes_are_compared_by_their_own_box(nothing):
    masks = [SQUARE, *nothing]
    said = {"example_id": "7", "instances": [{"mask": encode_mask(mask)} for mask in masks]}
    scores = Scores()
    scores.add(EXAMPLE, predictions.from_line(said), predictions.has_boxes(said))
    assert scores.compute()["box_miou"] == scores.compute()["miou"] == 1
    boxed = {"example_id": "7", "instances": [{"mask": RLE, "box": [60, 60, 70, 80]}]}
    assert predictions.has_boxes(boxed)
    scores = Scores()
    scores.add(EXAMPLE, predictions.from_line(boxed), predictions.has_boxes(boxed))
    assert scores.compute()["box_miou"] == 0.5


CORNERS = [60, 60, 80, 60, 80, 80, 60, 80]
RUNS = [60 * 100 + 60, 20, *([80, 20] * 19), 100 * 100 - 79 * 100 - 80]


@pytest.mark.parametrize(
    "mask",
    [
        [CORNERS],
        [[60, 60, 70, 60, 70, 80, 60, 80], [70, 60, 80, 60, 80, 80, 70, 80]],
        {"size": [100, 100], "counts": RUNS},
        {"size": [100, 100], "counts": [*map(float, RUNS), 0, 0]},
    ],
)
def test_a_mask_of_another_system_may_have_any_form(mask):
    stored = {"example_id": "7", "image_size": [100, 100], "instances": [{"mask": mask}]}
    result = predictions.from_line(stored)
    assert np.array_equal(result.mask, SQUARE)
    assert result.response.instances[0].box == (60, 60, 80, 80)
