"""Figures of all examples, and of groups by their attributes."""

from collections import Counter

import numpy as np
from genseg_hub.evaluation import scores
from genseg_hub.schema import Failure, InstancePrompt, Prediction, ReferringExample, Response, encode_mask


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


def test_no_target_answers_in_words_are_counted():
    halves = scores.Scores(), scores.Scores()
    for i, response in enumerate((Response("None", no_target_in_words=True), Response("[]"))):
        halves[i].add(ReferringExample("x", "x", (), str(i)), Prediction(response, (), (), (2, 2)))
    halves[0].merge(halves[1])
    assert halves[0].compute()["no_target_in_words"] == 1
    assert halves[0].compute()["n_acc"] == 1


def test_the_tight_box_of_the_mask_counts_where_an_instance_has_points_only():
    mask = np.zeros((4, 4), dtype=bool)
    mask[:2] = True
    example = ReferringExample("x", "x", (encode_mask(mask),))
    prompts = (InstancePrompt((0, 0, 4, 4), ()), InstancePrompt(None, ((1.0, 1.0),)))
    for instances, expected in ((prompts, 1), (prompts[:1], 0.5)):
        found = scores.Scores()
        found.add(example, Prediction(Response("", instances=instances), (mask,) * len(instances), (1.0,) * 2, (4, 4)))
        assert found.compute()["box_miou"] == expected
