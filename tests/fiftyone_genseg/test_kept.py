"""What people kept of answers is ground truth for exports, evaluations and trainings."""

import json

import datasets
import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionContext

import fiftyone_genseg
from fiftyone_genseg import fields, statuses
from fiftyone_genseg.asking import corrections
from fiftyone_genseg.datasets.export import examples, export
from fiftyone_genseg.datasets.request import NO_TRUTH, ExamplesRequest
from fiftyone_genseg.evaluation.request import EvaluationRequest
from tests.helpers.squares import one, square

OPERATORS = "@fiftyone-genseg/genseg"
KEPT = {"gt_field": "kept", "expression_field": "kept_expressions"}


def answers(**found):
    """Return a sample without ground truth: expression -> where the answer's square is, None for no-target."""
    stored = [
        fo.DynamicEmbeddedDocument(
            expression=expression,
            status=statuses.NO_TARGET if x is None else statuses.SEGMENTED,
            instances=int(x is not None),
        )
        for expression, x in found.items()
    ]
    masks = [square(x, 0, expression=expression) for expression, x in found.items() if x is not None]
    boxes = [fo.Detection(bounding_box=mask.bounding_box, expression=mask["expression"]) for mask in masks]
    return {
        "genseg": fo.Detections(detections=masks),
        "genseg_boxes": fo.Detections(detections=boxes),
        "genseg_responses": stored,
    }


@pytest.fixture
def asked(make):
    """Five images whose answers nobody has judged."""
    return make(
        answers(left=0, right=20, none=None), answers(left=0, none=5), answers(left=0), answers(left=0), answers(left=0)
    )


@pytest.fixture
def kept(asked):
    """Two expressions with a mask and two without were kept; one sample has an empty list, the last one none."""
    first, second, third, fourth, _ = asked.values("id")
    corrections.keep(asked, first, "genseg", "left")
    corrections.keep(asked, first, "genseg", "none")
    corrections.keep(asked, second, "genseg", "none", nothing=True)
    corrections.keep(asked, third, "genseg", "left")
    asked.select(fourth).set_values("kept_expressions", [[]])
    asked.reload()
    assert asked.values("kept_expressions") == [["left", "none"], ["none"], ["left"], [], None]
    return asked


def form(name, dataset, /, **params):
    """Return the properties of an operator's form, as the App gets them."""
    operator = foo.get_operator(f"{OPERATORS}/{name}")
    request = {"dataset_name": dataset.name, "view": [], "params": params}
    context = ExecutionContext(operator_uri=operator.uri, request_params=request)
    return json.loads(json.dumps(operator.resolve_input(context).to_json()["type"]["properties"]))


def choices(properties, name):
    return [choice["value"] for choice in properties[name]["view"]["choices"]]


def test_the_fields_have_the_names_that_corrections_give_them():
    assert (fields.KEPT, fields.KEPT_EXPRESSIONS) == (corrections.MASKS, corrections.EXPRESSIONS)


def test_what_was_kept_is_an_example_and_nothing_else(kept, tmp_path):
    found = [(example.expression, len(example.masks)) for example in examples(kept, "kept", "kept_expressions")]
    assert found == [("left", 1), ("none", 0), ("none", 0), ("left", 1)]
    assert fields.count_kept(kept) == (4, 3)
    assert export(kept, tmp_path / "examples", "kept", "kept_expressions") == 4
    saved = datasets.load_from_disk(tmp_path / "examples")
    assert [len(masks) for masks in saved["masks"]] == [1, 0, 0, 1]


def test_an_expression_that_is_listed_twice_is_one_example(kept):
    sample = kept.first()
    sample["kept_expressions"] = ["left", "left", "  left ", "none", ""]
    sample.save()
    found = [example.expression for example in examples(kept.limit(1), "kept", "kept_expressions")]
    assert found == ["left", "none"]
    assert fields.count_kept(kept) == (4, 3)
    assert list(fiftyone_genseg.evaluate(kept.limit(1), **KEPT).table["expression"]) == found


def test_only_what_was_kept_is_evaluated(kept):
    results = fiftyone_genseg.evaluate(kept, **KEPT)
    assert list(results.table["expression"]) == ["left", "none", "none", "left"]
    assert list(results.table["iou"]) == [1.0, 1.0, 0.0, 1.0]  # the second sample's answer has a mask for nothing
    assert results.figures()["n_acc"] == 0.5
    assert results.config.counts["not_annotated"] == 4  # asked, and not kept
    automatic = fiftyone_genseg.evaluate(kept, gt_field="kept", eval_key="kept_run")
    assert automatic.config.expression_field == "kept_expressions"
    assert automatic.table.equals(results.table)


def test_expressions_that_nobody_judged_do_not_count_as_no_target(kept, tmp_path):
    kept.set_values("expression", ["left", "none", "left", "left", "left"])
    with pytest.raises(ValueError, match="expressions of 'kept' are in 'kept_expressions': choose that field"):
        export(kept, tmp_path / "examples", "kept")
    with pytest.raises(ValueError, match="instead of 'expression'"):
        fiftyone_genseg.evaluate(kept, gt_field="kept", expression_field="expression")
    assert len(fiftyone_genseg.evaluate(kept, gt_field="kept").table) == 4


def test_an_export_of_another_ground_truth_does_not_carry_half_of_what_was_kept(kept, tmp_path):
    kept.clone_sample_field("genseg", "ground_truth")
    kept.set_values("expression", ["left"] * 5)
    export(kept, tmp_path / "examples")
    assert "kept_expressions" not in datasets.load_from_disk(tmp_path / "examples").column_names


@pytest.mark.parametrize("operator", ["train_on_view", "export_referring_examples"])
def test_what_was_kept_is_the_first_choice_of_examples(operator, kept, plugin):
    properties = form(operator, kept, name="new", folder="new")
    assert choices(properties, "examples") == ["kept"]
    assert properties["examples"]["default"] == "kept"
    label = properties["examples"]["view"]["choices"][0]["label"]
    assert label == "Kept answers (4 expressions on 3 samples)"
    assert "gt_field" not in properties
    assert "problem" not in properties

    kept.clone_sample_field("genseg", "ground_truth")
    properties = form(operator, kept, name="new", folder="new")
    assert choices(properties, "examples") == ["kept", "field"]
    assert properties["examples"]["default"] == "kept"
    properties = form(operator, kept, name="new", folder="new", examples="field")
    assert properties["gt_field"]["default"] == "ground_truth"
    assert "problem" not in properties
    properties = form(operator, kept, name="new", folder="new", gt_field="ground_truth")
    assert properties["examples"]["default"] == "field"


@pytest.mark.parametrize("operator", ["train_on_view", "export_referring_examples"])
def test_without_any_ground_truth_the_form_says_how_to_make_some(operator, asked, plugin):
    properties = form(operator, asked, folder="new")
    assert properties["problem"]["error_message"] == NO_TRUTH
    assert set(properties) <= {"problem", "name"}
    corrections.keep(asked, asked.first().id, "genseg", "left")
    corrections.forget(asked, asked.first().id, "genseg", "left")
    asked.reload()
    assert form(operator, asked, folder="new")["problem"]["error_message"] == NO_TRUTH
    assert ExamplesRequest.from_params(asked, {"examples": "kept"}).problem(asked.view()) == NO_TRUTH


def test_answers_can_be_chosen_as_the_ground_truth_by_name(asked):
    request = ExamplesRequest.from_params(asked, {"gt_field": "genseg"})
    assert request.problem(asked.view()) is None


def test_a_view_without_anything_kept_is_refused_where_that_was_chosen(kept):
    kept.clone_sample_field("genseg", "ground_truth")
    view = kept.skip(3)
    assert ExamplesRequest.from_params(view, {}).gt_field == "ground_truth"
    assert "Nothing was kept in this view" in ExamplesRequest.from_params(view, {"examples": "kept"}).problem(view)


def test_a_slice_keeps_the_ground_truth_of_its_run(kept, plugin):
    pairs = [[kept.first().id, "left"]]
    for params in ({"gt_field": "genseg"}, KEPT):
        properties = form("train_on_view", kept, name="new", pairs=pairs, **params)
        assert "examples" not in properties
        assert "problem" not in properties
    request = ExamplesRequest.from_params(kept, {"pairs": pairs, **KEPT})
    assert [example.expression for example in examples(**request.arguments(kept.view()))] == ["left"]


def test_an_untouched_evaluation_compares_with_what_was_kept_only_without_a_ground_truth(kept, plugin):
    assert EvaluationRequest.from_params(kept, {}).gt_field == "kept"
    properties = form("evaluate_referring_segmentation", kept)
    assert properties["gt_field"]["default"] == "kept"
    assert "kept_expressions" in choices(properties, "expression_field")
    assert "kept_expressions" in properties["expression_field"]["view"]["choices"][0]["label"]
    assert "genseg_boxes" not in choices(properties, "gt_field")
    foo.execute_operator(f"{OPERATORS}/evaluate_referring_segmentation", {"dataset": kept}, params={})
    kept.reload()
    assert len(kept.load_evaluation_results("eval_genseg").table) == 4
    kept.clone_sample_field("genseg", "ground_truth")
    assert EvaluationRequest.from_params(kept, {}).gt_field == "ground_truth"
    assert EvaluationRequest.from_params(kept, {"gt_field": "kept"}).gt_field == "kept"


def test_an_evaluation_without_any_ground_truth_says_how_to_make_some(asked, plugin):
    said = form("evaluate_referring_segmentation", asked)["problem"]["error_message"]
    assert "There is one field of masks, genseg" in said
    assert "keep answers in the panel Ask" in said


def test_what_was_kept_is_no_prediction(make):
    dataset = make(one("a", [square(0, 0)], [square(0, 0)]))
    dataset.rename_sample_field("genseg", "kept")
    dataset.delete_sample_field("genseg_responses")
    assert EvaluationRequest.from_params(dataset, {}).pred_field == "genseg"
