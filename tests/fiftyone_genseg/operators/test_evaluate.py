"""The operator "Evaluate referring segmentation"."""

import fiftyone.operators as foo
import pytest

from fiftyone_genseg.evaluation.request import EvaluationRequest
from tests.helpers.squares import KINDS, one_of_each

OPERATOR = "@fiftyone-genseg/genseg/evaluate_referring_segmentation"


@pytest.fixture
def dataset(make):
    return make(*one_of_each())


def run(dataset, **params):
    return foo.execute_operator(OPERATOR, {"dataset": dataset}, params={"raise_errors": True} | params)


def test_the_untouched_form_evaluates(dataset, plugin):
    run(dataset)
    dataset.reload()
    assert dataset.list_evaluations() == ["eval_genseg"]
    assert dataset.values("eval_genseg_failure") == KINDS


def test_a_run_is_not_overwritten_by_accident(dataset, plugin):
    run(dataset, eval_key="ev")
    with pytest.raises(Exception, match="tick overwrite"):
        run(dataset, eval_key="ev")
    run(dataset, eval_key="ev", overwrite=True, policy="refcoco")
    assert dataset.get_evaluation_info("ev").config.policy == "refcoco"


def test_it_can_be_called_and_delegated(dataset, plugin):
    operator = foo.get_operator(OPERATOR)
    operator(dataset.limit(3), eval_key="called")
    dataset.reload()
    assert len(dataset.load_evaluation_results("called").table) == 3
    operator(dataset, eval_key="later", delegate=True)
    from fiftyone.operators.delegated import DelegatedOperationService

    DelegatedOperationService().execute_queued_operations(dataset_name=dataset.name)
    dataset.reload()
    assert "later" in dataset.list_evaluations()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"gt_field": "nope"}, "does not exist"),
        ({"min_pixels": -1}, "0 pixels or more"),
        ({"policy": "x"}, "no policy"),
    ],
)
def test_the_form_says_what_is_wrong(dataset, plugin, params, message):
    request = EvaluationRequest.from_params(dataset, params)
    assert message in request.problem(dataset)
    with pytest.raises(Exception, match="Validation error"):
        run(dataset, **params)
    assert dataset.list_evaluations() == []


def test_a_request_is_read_back_from_its_own_parameters(dataset):
    for request in (
        EvaluationRequest(eval_key="ev"),
        EvaluationRequest("genseg", "ground_truth", "ev", "refcoco", 50, "expression", ignore_field=""),
    ):
        assert EvaluationRequest.from_params(dataset, request.to_params()) == request


def test_an_untouched_form_chooses_by_the_fields_that_are_there(dataset):
    request = EvaluationRequest.from_params(dataset, {})
    assert request == EvaluationRequest("genseg", "ground_truth", "eval_genseg", overwrite=False)
    dataset.rename_sample_field("ground_truth", "truth")
    assert EvaluationRequest.from_params(dataset, {}).gt_field == "truth"
    assert EvaluationRequest.from_params(None, {}).problem(None) == "Open a dataset first."
