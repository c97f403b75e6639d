"""Two refusals: labels of others are never written into, and nothing answered is no measurement."""

import json

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from genseg_hub.schema import Failure
from typer.testing import CliRunner

import fiftyone_genseg
from fiftyone_genseg import labels, outputs, statuses
from fiftyone_genseg.cli import _shared, app
from fiftyone_genseg.datasets.importing import add_predictions
from fiftyone_genseg.evaluation.request import EvaluationRequest
from fiftyone_genseg.operators.compare_checkpoints import ComparisonRequest
from fiftyone_genseg.operators.load_predictions import LoadPredictionsRequest
from fiftyone_genseg.segmentation.request import SegmentRequest
from tests.helpers.squares import one, response, square

OPERATORS = "@fiftyone-genseg/genseg/"
REFUSED = "holds labels that no run wrote there"


@pytest.fixture
def annotated(make):
    """Return a dataset with somebody's annotations in `ground_truth` and in the field that nano would get."""
    truth = fo.Detections(detections=[square(0, 0)])
    return make(
        {"expression": "a", "example_id": "1", "ground_truth": truth, "nano": truth.copy()}, {"expression": "b"}
    )


def test_labels_of_others_are_never_written_into(annotated, plugin, tmp_path):
    file = tmp_path / "predictions.jsonl"
    file.write_text(json.dumps({"example_id": "1", "expression": "a", "instances": []}) + "\n")
    assert REFUSED in SegmentRequest("a star", output_field="ground_truth").problem(annotated)
    assert REFUSED in ComparisonRequest(("nano", "nano-sft")).problem(annotated.view())
    assert REFUSED in LoadPredictionsRequest(str(file), "ground_truth", "").problem(annotated)
    with pytest.raises(ValueError, match=REFUSED):
        list(add_predictions(annotated, file, "ground_truth"))
    params = {"expressions": "a star", "output_field": "ground_truth", "raise_errors": True}
    with pytest.raises(Exception, match=REFUSED):
        foo.execute_operator(f"{OPERATORS}referring_segment", {"dataset": annotated}, params=params)
    command = ["segment-dataset", annotated.name, "--expression", "a star", "--output-field", "ground_truth"]
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, REFUSED in result.stderr) == (1, True)
    annotated.reload()
    assert "ground_truth_responses" not in annotated.get_field_schema()
    assert annotated.values("ground_truth.detections.label") == [[labels.LABEL], None]


def test_the_remedy_frees_the_name(annotated):
    annotated.rename_sample_field("ground_truth", "annotations")
    outputs.check_fields(annotated, "ground_truth")


def test_empty_fields_and_our_own_are_written_into(annotated):
    annotated.add_sample_field("empty", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    outputs.check_fields(annotated, "empty")
    outputs.declare_fields(annotated, "mine")
    sample = annotated.first()
    sample["mine"] = fo.Detections(detections=[square(0, 0)])  # a mask that a person added
    sample.save()
    outputs.check_fields(annotated, "mine")


def test_a_clone_that_a_person_may_have_corrected_is_not_written_into(annotated):
    outputs.declare_fields(annotated, "mine")
    sample = annotated.first()
    masks = fo.Detections(detections=[square(0, 0, checkpoint="nano")])
    sample["mine"], sample["mine_boxes"] = masks, masks.copy()
    sample.save()
    annotated.clone_sample_field("mine", "truth")
    with pytest.raises(ValueError, match=f"'truth' {REFUSED}"):
        outputs.check_fields(annotated, "truth")
    annotated.clone_sample_field("mine_boxes", "other_boxes")
    with pytest.raises(ValueError, match=f"'other_boxes' {REFUSED}"):
        outputs.check_fields(annotated, "other")
    annotated.clone_sample_fields({name: name.replace("mine", "whole") for name in ("mine", "mine_responses")})
    outputs.check_fields(annotated, "whole")


def test_masks_of_apply_model_are_not_written_into(annotated):
    sample = annotated.first()
    sample["applied"] = fo.Detections(detections=[square(0, 0, checkpoint="nano")])
    sample.save()
    annotated.add_dynamic_sample_fields()
    with pytest.raises(ValueError, match=f"'applied' {REFUSED}"):
        outputs.check_fields(annotated, "applied")


def failed(error):
    row = one("a", [square(0, 0)], [], statuses.FAILED)
    row["genseg_responses"][0]["error"] = error
    return row


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([failed("no disk"), failed("out of memory"), failed("out of memory")], "out of memory (2 x)"),
        ([failed("no disk") | {"genseg_responses": [response("b", statuses.FAILED)]}], "ask"),
        ([one("a", [square(0, 0)], None, None)], "1 have no prediction there; ask them with Referring segment"),
        ([one("", [], [])], "no sample has an expression"),
    ],
)
def test_an_evaluation_of_nothing_says_why(make, plugin, rows, said):
    dataset = make(one("hit", [square(0, 0)], [square(0, 0)]), *rows)
    fiftyone_genseg.evaluate(dataset, eval_key="eval_genseg")
    view = dataset.skip(1)
    params = {"raise_errors": True, "overwrite": True}
    with pytest.raises(Exception) as raised:  # noqa: PT011 - FiftyOne's error holds the operator's
        foo.execute_operator(f"{OPERATORS}evaluate_referring_segmentation", {"view": view}, params=params)
    assert said in str(raised.value)
    dataset.reload()
    assert len(dataset.load_evaluation_results("eval_genseg", cache=False).table) >= 1, "the run of before is there"
    assert EvaluationRequest.from_params(view, {}).eval_key == "eval_genseg"


class Broken:
    """A checkpoint whose reasoner fails on every expression."""

    takes_words = False

    def __init__(self, model):
        self.checkpoint, self.segmenter = model.checkpoint, model.segmenter

    def segment_many(self, examples, batch_size=1):
        for number, _ in enumerate(examples):
            message = "the server does not answer" if number else "the image cannot be read"
            yield Failure(message, RuntimeError(message))


def test_commands_end_with_the_commonest_reason(nano, monkeypatch, tmp_path, dataset):
    monkeypatch.setattr("fiftyone_genseg.cli.evaluate.load_model", lambda *_: Broken(nano))
    rows = tmp_path / "rows.jsonl"
    result = CliRunner().invoke(app, ["evaluate", "refscenes", "--limit", "3", "--rows", str(rows)])
    assert result.exit_code == 1
    assert "none of the 3 expressions has a usable answer; 2 x the server does not answer" in result.stderr
    assert len(rows.read_text().splitlines()) == 3, "what was computed is written"


def test_figures_with_an_answer_pass():
    figures = {"n": 2, "n_failed": 1, "errors": {}, "failure_reasons": {"x": 1}}
    _shared.check_answered(figures)


def test_a_dataset_of_which_nothing_was_segmented(make):
    dataset = make({"expression": "a"})
    sample = dataset.first()
    sample.filepath = "/there/is/none.png"
    sample.save()
    command = ["segment-dataset", dataset.name, "--expression", "a star", "--device", "cpu"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "nothing was segmented: 0 segmented, 0 no-target, 1 failed (1 x " in result.stderr
    dataset.reload()
    assert dataset.count_values("genseg_responses.status") == {"failed": 1}
