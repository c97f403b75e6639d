"""Where two fields of answers differ, on one sample and in a view."""

import fiftyone as fo
import pytest

from fiftyone_genseg.evaluation import differences
from fiftyone_genseg.statuses import FAILED, NO_TARGET, SEGMENTED
from tests.helpers.squares import one, response, square


def answers(*sides):
    """Return a sample for "it" with fields `a` and `b`; a side is (status, masks), or None for another expression."""
    made = one("it", [square(0, 0)], None, None)
    for name, side in zip("ab", sides, strict=True):
        expression, (status, masks) = ("it", side) if side else ("other", (NO_TARGET, []))
        made[name] = fo.Detections(detections=masks)
        made[f"{name}_responses"] = [response(expression, status)]
    return made


SAME = ((SEGMENTED, [square(0, 0)]), (SEGMENTED, [square(0, 0)]))
SHIFTED = ((SEGMENTED, [square(0, 0)]), (SEGMENTED, [square(2, 0)]))  # IoU 80 / 120
OTHER = ((SEGMENTED, [square(0, 0)]), (NO_TARGET, []))
CASES = [
    (SAME, False, 1.0),
    (SHIFTED, True, 2 / 3),
    (OTHER, True, None),
    (((SEGMENTED, []), (SEGMENTED, [])), False, 1.0),
    (((SEGMENTED, [square(0, 0)]), (SEGMENTED, [])), True, 0.0),
    (((NO_TARGET, []), (NO_TARGET, [])), False, None),
    (((FAILED, [square(0, 0)]), (FAILED, [])), False, None),  # an earlier run left a mask
    (((SEGMENTED, [square(0, 0)]), None), False, None),
    (((SEGMENTED, [square(0, 0), square(20, 0)]), (SEGMENTED, [square(20, 0), square(0, 0)])), False, 1.0),
]


@pytest.mark.parametrize(("sides", "differs", "iou"), CASES)
def test_one_sample(make, sides, differs, iou):
    dataset = make(answers(*sides))
    pair = differences.pairs(dataset.first(), "a", "b")[0]
    assert pair.differs(0.9) is differs
    assert pair.iou == (None if iou is None else pytest.approx(iou))
    searched = differences.search(dataset, dataset.values("id"), "a", "b", 0.9)
    assert searched == (differences.Found(dataset.first().id, 1) if differs else differences.Found(None, 1))


def test_the_threshold_decides():
    pair = differences.Pair("it", *[card()] * 2, iou=2 / 3)
    assert [pair.differs(threshold) for threshold in (0.5, 0.75, 0.9)] == [False, True, True]


def card():
    return differences.Card("it", "segmented", "", "", 1, "", None)


def test_masks_that_cannot_be_compared_differ(make):
    dataset = make(answers(*SAME))
    sample = dataset.first()
    sample["b"] = fo.Detections(detections=[fo.Detection(bounding_box=[0, 0, 0.1, 0.1])])
    sample.save()
    (pair,) = differences.pairs(dataset.first(), "a", "b")
    assert "only a box" in pair.problem
    assert differences.search(dataset, [sample.id], "a", "b", 0.9).sample_id == sample.id


def test_expressions_are_paired_by_their_words(make):
    made = answers(*SAME)
    made["a_responses"] = [response("one", SEGMENTED), response("two", NO_TARGET)]
    made["b_responses"] = [response("two", NO_TARGET), response("three", NO_TARGET)]
    found = differences.pairs(make(made).first(), "a", "b")
    assert [(pair.expression, bool(pair.first), bool(pair.second)) for pair in found] == [
        ("one", True, False),
        ("two", True, True),
        ("three", False, True),
    ]


def test_the_search_keeps_the_order_and_stops_in_time(make, monkeypatch):
    monkeypatch.setattr(differences, "_BATCH", 2)
    dataset = make(*[answers(*sides) for sides in (SAME, SAME, SAME, SHIFTED, OTHER, SAME)])
    ids = dataset.values("id")
    assert differences.search(dataset, ids, "a", "b", 0.9) == differences.Found(ids[3], 4)
    assert differences.search(dataset, ids[::-1], "a", "b", 0.9) == differences.Found(ids[4], 2)
    assert differences.search(dataset, ids, "a", "b", 0.5) == differences.Found(ids[4], 5)
    assert differences.search(dataset, ids[5:], "a", "b", 0.9) == differences.Found(None, 1)
    # No time at all: one batch is searched nevertheless, so that each call gets further.
    assert differences.search(dataset, ids, "a", "b", 0.9, seconds=0) == differences.Found(None, 2)
    assert differences.search(dataset, [], "a", "b", 0.9) == differences.Found(None, 0)
    dataset.delete_samples(ids[3:5])
    assert differences.search(dataset, ids, "a", "b", 0.9) == differences.Found(None, 6)


def test_the_fields_that_can_be_compared(make):
    assert differences.answer_fields(make(answers(*SAME))) == ["a", "b"]


def test_what_is_true(make):
    several = one(["left", "nothing"], [square(0, 0, expression="left"), square(20, 0, expression="right")], None, None)
    plain, named = make(one("it", [square(0, 0)], None, None)).first(), make(several).first()
    assert len(differences.truth_of(plain, "it").detections) == 1
    assert differences.truth_of(plain, "another") is None
    assert len(differences.truth_of(named, "right").detections) == 1
    assert differences.truth_of(named, "nothing").detections == []
    assert differences.truth_of(named, "another") is None
