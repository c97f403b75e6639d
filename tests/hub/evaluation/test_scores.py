"""Figures of all examples, and of groups by their attributes."""

from collections import Counter

import numpy as np
from genseg_hub.evaluation import scores
from genseg_hub.schema import Failure, ReferringExample, encode_mask


def test_figures_are_grouped_by_few_values_and_never_by_ids():
    rle = encode_mask(np.ones((2, 2), dtype=bool))
    halves = scores.Scores(), scores.Scores()
    for i in range(2 * scores.MAX_GROUPS + 2):
        attributes = {"category": i % scores.MAX_GROUPS, "file": f"{i}.jpg", "ref_id": 1, "id": 2, "Ann_IDs": 3}
        example = ReferringExample("x", "x", (rle,), str(i), "x", attributes)
        halves[i % 2].add(example, Failure("x", ValueError()))
    halves[0].merge(halves[1])
    figures = halves[0].compute()
    assert {name: len(values) for name, values in figures["by"].items()} == {"category": scores.MAX_GROUPS}
    assert Counter(group["n"] for group in figures["by"]["category"].values()) == {2: scores.MAX_GROUPS - 2, 3: 2}
    assert figures["ungrouped"] == ["file"]
