"""Figures agree with a slow, independent implementation, for all encodings and orders of masks."""

import numpy as np
import pytest
from genseg_hub.evaluation.metrics import (
    POLICIES,
    PRECISION_AT,
    Overlap,
    ReferringMetrics,
    box_iou,
    enclosing_box,
    measure,
)
from genseg_hub.schema import decode_mask, encode_mask
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.strategies import masks_of

masks = masks_of((4, 5))
examples_of = st.lists(st.tuples(masks, masks, st.booleans()), min_size=1, max_size=6)
policies = st.sampled_from(sorted(POLICIES))


def slow(examples, policy, min_pixels=0):
    """Compute the table in the docstring of `metrics`, one expression at a time, with sets of pixels."""
    inter = union = 0
    every, targets, boxes, rejected, answered, failed = [], [], [], [], [], 0
    for target, found, usable in examples:
        a, b = (set(np.flatnonzero(mask).tolist()) for mask in (target, found))
        if len(b) < min_pixels:
            b = set()
        failed += not usable
        inter, union = inter + len(a & b), union + len(a | b)
        if a:
            iou = len(a & b) / len(a | b)
            targets.append(iou)
            answered.append(bool(b))
            boxes.append(slow_box_iou(a, b, target.shape[1]))
        else:
            good = not b and usable
            rejected.append(good)
            iou = 1.0 if good and policy != "refcoco" else 0.0
        every.append(iou)

    def mean(values):
        return sum(values) / len(values) if values else None

    return {
        "ciou": inter / union if union else None,
        "miou": mean(every),
        "giou": mean(every),
        "target_miou": mean(targets),
        "n_acc": mean(rejected),
        "t_acc": mean(answered),
        **{f"pr@{x}": mean([iou >= x for iou in targets]) for x in PRECISION_AT},
        "box_miou": mean(boxes),
        "n": len(every),
        "n_target": len(targets),
        "n_no_target": len(rejected),
        "n_failed": failed,
    }


def slow_box_iou(a, b, width):
    if not b:
        return 0.0
    rows = [range(min(p) // width, max(p) // width + 1) for p in (a, b)]
    columns = [range(min(i % width for i in p), max(i % width for i in p) + 1) for p in (a, b)]
    both = len(set(rows[0]) & set(rows[1])) * len(set(columns[0]) & set(columns[1]))
    return both / (sum(len(r) * len(c) for r, c in zip(rows, columns, strict=True)) - both)


def agree(figures, expected):
    for name, value in expected.items():
        assert figures[name] == (None if value is None else pytest.approx(value, abs=1e-9)), name


def filled_in(examples, policy, min_pixels=0):
    metrics = ReferringMetrics(policy, min_pixels)
    for target, found, usable in examples:
        metrics.update(target, found, usable)
    return metrics


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("min_pixels", [0, 3])
def test_ten_thousand_random_cases_agree_with_the_slow_implementation(policy, min_pixels):
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, size=10_000)  # every combination of empty and not
    examples = [
        (
            (rng.random((5, 6)) < 0.3) & bool(kind & 1),
            (rng.random((5, 6)) < rng.random()) & bool(kind & 2),
            bool(rng.random() < 0.9),
        )
        for kind in kinds
    ]
    figures = filled_in(examples, policy, min_pixels).compute()
    assert figures["policy"] == policy
    assert figures["min_pixels"] == min_pixels
    agree(figures, slow(examples, policy, min_pixels))


@given(examples_of, policies, st.integers(0, 4))
def test_any_examples_agree_with_the_slow_implementation(examples, policy, min_pixels):
    figures = filled_in(examples, policy, min_pixels).compute()
    agree(figures, slow(examples, policy, min_pixels))
    for name, value in figures.items():
        if name not in ("policy", "min_pixels") and not name.startswith("n_") and name != "n" and value is not None:
            assert 0 <= value <= 1


@given(examples_of, policies, st.data())
def test_neither_order_nor_parts_matter(examples, policy, data):
    whole = filled_in(examples, policy).compute()
    agree(filled_in(data.draw(st.permutations(examples)), policy).compute(), whole | {"policy": policy})
    cut = data.draw(st.integers(0, len(examples)))
    merged = filled_in(examples[:cut], policy)
    merged.merge(filled_in(examples[cut:], policy))
    agree(merged.compute(), whole)
    columns = [measure(*example) for example in examples]
    at_once, one_by_one = ReferringMetrics(policy), ReferringMetrics(policy)
    ious = at_once.add(Overlap(*map(np.array, zip(*columns, strict=True))))
    assert ious.tolist() == [one_by_one.add_one(overlap) for overlap in columns]
    agree(at_once.compute(), whole)


def test_more_expressions_than_are_added_at_once():
    whole, first, second = (
        ReferringMetrics(min_pixels=3),
        ReferringMetrics(min_pixels=3),
        ReferringMetrics(min_pixels=3),
    )
    ious = []
    for number in range(2500):
        overlap = Overlap(number % 5, 6, number % 5 + number % 2, 0.5, number % 7 > 0)
        ious.append(whole.add_one(overlap))
        (first if number < 1200 else second).add_one(overlap)
        if number in (0, 999, 1000, 2000):
            figures = whole.compute()
            assert figures["n"] == number + 1
            assert figures["miou"] == pytest.approx(np.mean(ious))
    first.merge(second)
    agree(first.compute(), whole.compute())
    assert first.compute()["n"] == 2500
    assert second.compute()["n"] == 1300
    assert sum(iou == 0 for iou in ious) == sum(number % 5 + number % 2 < 3 or not number % 5 for number in range(2500))


@given(examples_of)
def test_the_encoding_of_a_mask_does_not_matter(examples):
    as_arrays, as_rle, as_lists = ReferringMetrics(), ReferringMetrics(), ReferringMetrics()
    for target, found, usable in examples:
        as_arrays.update(target, found, usable)
        as_rle.update(encode_mask(target), encode_mask(found), usable)
        rows = [np.zeros_like(found) for _ in found]
        for i, row in enumerate(rows):
            row[i] = found[i]
        instances = [encode_mask(row) for row in rows] if found.any() else None
        as_lists.update([encode_mask(target)] if target.any() else [], instances, usable)
    assert as_arrays.compute() == as_rle.compute() == as_lists.compute()


@given(masks)
def test_rle_round_trip(mask):
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)


def test_hand_computed():
    one, two = np.zeros((2, 2), bool), np.zeros((2, 2), bool)
    one[0, 0] = two[0, 0] = two[0, 1] = True
    metrics = ReferringMetrics()
    assert metrics.update(two, one) == 0.5
    assert metrics.update(one, None) == 0
    assert metrics.update([], None) == 1
    assert metrics.update(None, two) == 0
    figures = metrics.compute()
    assert figures["ciou"] == 1 / (2 + 1 + 2)
    assert figures["miou"] == figures["giou"] == 1.5 / 4
    assert figures["target_miou"] == figures["box_miou"] == 0.25
    assert figures["n_acc"] == figures["t_acc"] == figures["pr@0.5"] == 0.5


def test_boxes_of_the_model_are_compared_in_place_of_its_masks_box():
    mask = np.zeros((10, 10), bool)
    mask[:, :5] = True
    assert measure(mask, mask, boxes=[(0, 0, 5, 5), (0, 5, 5, 10)]).box_iou == 1
    assert measure(mask, mask, boxes=[(0, 0, 10, 10)]).box_iou == 0.5
    assert box_iou((0, 0, 2, 2), (5, 5, 6, 6)) == 0
    assert enclosing_box([(1, 2, 3, 4), (0, 3, 2, 9)]) == (0, 2, 3, 9)


def test_masks_policies_and_metrics_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 2\].*\[2, 3\]"):
        ReferringMetrics().update(np.ones((2, 2), bool), np.ones((2, 3), bool))
    with pytest.raises(ValueError, match="choose one of grefcoco, reasonseg, refcoco"):
        ReferringMetrics("coco")
    with pytest.raises(ValueError, match="cannot be merged"):
        ReferringMetrics("refcoco").merge(ReferringMetrics())
