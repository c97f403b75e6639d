"""A request: its defaults, how a form is read, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fiftyone_genseg.cli import app
from fiftyone_genseg.segmentation.request import DEFAULT_EXPRESSION, RAY, SegmentRequest


def test_a_string_has_one_expression_on_each_line():
    assert SegmentRequest("a star\n\n the  cross \na star").expressions == ("a star", "the cross")


def test_a_line_may_have_a_class_behind_an_arrow(dataset):
    typed = "the  red car ->  car\na star\nleft -> right -> sign"
    request = SegmentRequest.from_params(dataset, {"expressions": typed})
    assert request == SegmentRequest(typed)
    assert request.expressions == ("the red car", "a star", "left -> right")
    assert request.classes == {"the red car": "car", "left -> right": "sign"}
    assert request.labels == request.classes | {"a star": "a star"}


def test_an_arrow_in_python_is_text(dataset):
    request = SegmentRequest(("left -> right",), classes={" left  -> right": "sign"})
    assert (request.expressions, request.classes) == (("left -> right",), {"left -> right": "sign"})
    assert SegmentRequest(("left -> right",)).labels == {"left -> right": "left -> right"}


def test_expressions_of_a_field_have_a_label_where_a_class_is_given():
    assert SegmentRequest(expression_field="words", classes={"a star": "star"}).labels == {"a star": "star"}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("-> car", "The class 'car' has no expression; write: the red car -> car."),
        ("a star\n -> car", "The class 'car' has no expression; write: the red car -> car."),
        ("the red car ->", "The expression 'the red car' has an arrow and no class; write: the red car -> car."),
    ],
)
def test_an_empty_side_is_told_with_the_remedy(dataset, typed, message):
    assert SegmentRequest.from_params(dataset, {"expressions": typed}).problem(dataset) == message


def test_a_terminal_reads_classes_as_a_form_does(dataset):
    command = ["segment-dataset", dataset.name, "--expression", "a star -> star", "--expression", "the red car ->"]
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, "has an arrow and no class" in result.stderr) == (1, True)


def test_a_class_of_something_else_is_refused(dataset):
    request = SegmentRequest(("a star",), classes={"a stra": "star"})
    assert (
        request.problem(dataset) == "There is a class for 'a stra', which is not asked; ask it, or leave the class out."
    )


@given(st.lists(st.text(max_size=30), max_size=5))
def test_expressions_are_normalized_and_each_is_asked_once(typed):
    request = SegmentRequest(tuple(typed))
    assert all(expression == " ".join(expression.split()) != "" for expression in request.expressions)
    assert len(set(request.expressions)) == len(request.expressions)
    assert SegmentRequest(request.expressions) == request


def test_an_untouched_form_takes_the_field_of_expressions(dataset):
    request = SegmentRequest.from_params(dataset, {})
    assert request == SegmentRequest(expression_field="expression")
    dataset.rename_sample_field("expression", "words")
    assert SegmentRequest.from_params(dataset, {}) == SegmentRequest(DEFAULT_EXPRESSION)
    assert SegmentRequest.from_params(dataset, {"source": "field"}).expression_field is not None


def test_expressions_that_are_given_are_meant(dataset):
    request = SegmentRequest.from_params(dataset, {"expressions": "all shapes", "expression_field": None})
    assert (request.expressions, request.expression_field) == (("all shapes",), None)


@pytest.mark.parametrize(
    "request_",
    [
        SegmentRequest("a\nb", checkpoint="nano+./sam", batch_size=3, device="cpu"),
        SegmentRequest(expression_field="words", engine=RAY, workers=4, existing="overwrite"),
        SegmentRequest(("a", "b -> c", "d"), classes={"a": "x", "b -> c": "$y.z"}),
        SegmentRequest(expression_field="words", classes={"a": "x"}),
        SegmentRequest("a", server="http://localhost:8000/v1", output_field="mine"),
    ],
)
def test_a_request_is_read_back_from_its_own_parameters(dataset, request_):
    assert SegmentRequest.from_params(dataset, request_.to_params()) == request_


def test_a_device_that_was_chosen_before_ray_is_left_out(dataset):
    assert SegmentRequest.from_params(dataset, {"engine": RAY, "device": "cuda"}).device == "auto"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "spark"}, "There is no engine 'spark'; choose 'local' or 'ray'."),
        ({"engine": "ray", "workers": 0}, "There must be at least one worker, not 0."),
        ({"engine": "ray", "server": "http://localhost:8000/v1"}, "Workers on Ray load the reasoner themselves"),
        ({"engine": "ray", "device": "cuda"}, "the device that Ray gives them, not 'cuda'"),
        ({"server": "localhost"}, "'localhost' is no address of a server"),
        ({"batch_size": 513}, "The batch size must be between 1 and 512, not 513."),
        ({"output_field": "9 lives"}, "'9 lives' is not a field name"),
        ({"checkpoint": "nanno"}, "There is no checkpoint 'nanno'"),
        ({"existing": "append"}, "choose 'skip' or 'overwrite', not 'append'"),
    ],
)
def test_what_cannot_be_run_is_told_in_a_sentence(dataset, options, message):
    assert message in SegmentRequest("a star", **options).problem(dataset)


def test_nothing_to_segment_is_told(dataset):
    assert SegmentRequest("a star").problem(None) == "Open a dataset first."
    assert SegmentRequest("a star").problem(dataset[:0]) == "There are no samples to segment: clear the filters."
    assert SegmentRequest("a star").problem(dataset) is None
