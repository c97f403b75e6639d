"""Figures agree with a slow, independent implementation, however masks come in."""

import numpy as np
import pytest
from genseg_hub.metrics import ReferringMetrics
from genseg_hub.schema import decode_mask, encode_mask
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

masks = arrays(bool, (4, 5))
pairs = st.lists(st.tuples(masks, masks), min_size=1, max_size=6)


def slow(examples):
    """gRefCOCO's rules, pixel by pixel."""
    inter = union = 0
    ious, targets, right = [], [], []
    for target, found in examples:
        i = sum(bool(a and b) for a, b in zip(target.flat, found.flat, strict=True))
        u = sum(bool(a or b) for a, b in zip(target.flat, found.flat, strict=True))
        inter, union = inter + i, union + u
        if target.any():
            ious.append(i / u)
            targets.append(i / u)
        else:
            ious.append(float(not found.any()))
            right.append(not found.any())
    return (
        inter / union if union else None,
        np.mean(ious),
        np.mean(targets) if targets else None,
        np.mean(right) if right else None,
    )


@given(pairs)
def test_figures_agree_with_the_slow_implementation(examples):
    metrics = ReferringMetrics()
    for target, found in examples:
        metrics.update(target, found)
    figures = metrics.compute()
    for name, expected in zip(("ciou", "miou", "target_miou", "n_acc"), slow(examples), strict=True):
        assert figures[name] == pytest.approx(expected)
    assert figures["n"] == len(examples) == figures["n_target"] + figures["n_no_target"]


@given(pairs)
def test_the_encoding_of_a_mask_does_not_matter(examples):
    as_arrays, as_rle, as_lists = ReferringMetrics(), ReferringMetrics(), ReferringMetrics()
    for target, found in examples:
        as_arrays.update(target, found)
        as_rle.update(encode_mask(target), encode_mask(found))
        rows = [np.zeros_like(found) for _ in found]
        for i, row in enumerate(rows):
            row[i] = found[i]
        as_lists.update(
            [encode_mask(target)] if target.any() else [], [encode_mask(row) for row in rows] if found.any() else None
        )
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
    assert figures["miou"] == 1.5 / 4
    assert figures["target_miou"] == 0.25
    assert figures["n_acc"] == figures["t_acc"] == figures["pr@0.5"] == 0.5


def test_an_unreadable_answer_is_no_correct_no_target():
    metrics = ReferringMetrics()
    assert metrics.update(None, None, answered=False) == 0
    assert metrics.compute()["n_acc"] == 0


def test_masks_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 2\].*\[2, 3\]"):
        ReferringMetrics().update(np.ones((2, 2), bool), np.ones((2, 3), bool))
