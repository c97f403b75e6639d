"""The words for a run's counts."""

from collections import Counter

from fiftyone_genseg.segmentation.summary import Summary


def test_a_summary_is_a_sentence():
    summary = Summary(11, 4, Counter(segmented=3, no_target=1, unparsable=1, failed=2), Counter({"no file x": 2}))
    assert str(summary) == "3 segmented, 1 no-target, 1 unparsable, 2 failed, 4 skipped (2 x no file x)"
    assert str(Summary(2, 0, Counter(segmented=2))) == "2 segmented, 0 no-target"


def test_the_commonest_reasons_are_told_first():
    reasons = Counter(a=1, b=4, c=2, d=3)
    assert str(Summary(reasons=reasons)).endswith("(4 x b; 3 x d; 2 x c)")


def test_progress_tells_the_rate_of_what_was_computed():
    summary = Summary(total=20, skipped=4, statuses=Counter(segmented=6))
    assert summary.share_done == 0.5
    assert summary.progress(3.0) == "10 of 20 expressions, 2.0 per second, 0:05 left"
    assert Summary(total=20, skipped=4).progress(3.0) == "4 of 20 expressions"
    assert Summary().share_done == 1.0
