"""The words for a run's counts."""

from collections import Counter

import pytest
from genseg_hub.schema import ResponseError

from fiftyone_genseg.messages import error_in_words
from fiftyone_genseg.segmentation.summary import Summary


def test_a_summary_is_a_sentence():
    summary = Summary(11, 4, Counter(segmented=3, no_target=1, unparsable=1, failed=2), Counter({"no file x": 2}))
    assert str(summary) == "3 segmented, 1 no-target, 1 unparsable, 2 failed, 4 skipped (2 x no file x)"
    assert str(Summary(2, 0, Counter(segmented=2))) == "2 segmented, 0 no-target"
    assert str(Summary(3, 0, Counter(no_target=3), in_words=2)) == "0 segmented, 3 no-target (2 in words)"


def test_the_commonest_reasons_are_told_first():
    reasons = Counter(a=1, b=4, c=2, d=3)
    assert str(Summary(reasons=reasons)).endswith("(4 x b; 3 x d; 2 x c)")


def test_progress_tells_the_rate_of_what_was_computed():
    summary = Summary(total=20, skipped=4, statuses=Counter(segmented=6))
    assert summary.share_done == 0.5
    assert summary.progress(3.0) == "10 of 20 expressions, 2.0 per second, 0:05 left"
    assert Summary(total=20, skipped=4).progress(3.0) == "4 of 20 expressions"
    assert Summary().share_done == 1.0


@pytest.mark.parametrize("error", ResponseError)
def test_each_error_has_words(error):
    words = error_in_words(error.value)
    assert words != error.value
    assert "_" not in words


def test_other_reasons_are_told_as_they_are():
    assert error_in_words("there is no file /none.png") == "there is no file /none.png"


def test_a_summary_tells_reasons_in_words():
    summary = Summary(4, statuses=Counter(unparsable=3, failed=1), reasons=Counter(truncated_thought=3, boom=1))
    thought = "the answer ends inside its thought (the token limit was reached)"
    assert str(summary) == f"0 segmented, 0 no-target, 3 unparsable, 1 failed (3 x {thought}; 1 x boom)"


@pytest.mark.parametrize(
    ("statuses", "advised"),
    [
        ({}, False),
        ({"unparsable": 1}, True),
        ({"unparsable": 2, "segmented": 1, "no_target": 1}, False),
        ({"unparsable": 3, "segmented": 1, "no_target": 1}, True),
        ({"unparsable": 1, "failed": 9}, True),
        ({"failed": 9}, False),
    ],
)
def test_advice_is_given_where_more_than_half_of_the_answers_are_unparsable(statuses, advised):
    advice = Summary(99, skipped=50, statuses=Counter(statuses)).advice
    assert bool(advice) == advised
    assert not advised or ("another dialect" in advice and "genseg doctor" in advice)
