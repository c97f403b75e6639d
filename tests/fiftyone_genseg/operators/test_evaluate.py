"""The operator "Evaluate referring segmentation"."""

import fiftyone.operators as foo
import pytest

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
    from fiftyone_genseg.operators import evaluate_referring_segmentation as operator

    assert message in operator._problem(dataset.view(), params)
    with pytest.raises(Exception, match="Validation error"):
        run(dataset, **params)
    assert dataset.list_evaluations() == []
