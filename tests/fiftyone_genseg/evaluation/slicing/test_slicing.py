"""Failure kinds, attributes, slices and comparisons on tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from fiftyone_genseg.evaluation.slicing import attributes, comparison, kinds, slices

ROW = {
    "status": "segmented", "intersection": 100, "target_area": 100, "prediction_area": 100,
    "n_missed": 0, "n_extra": 0, "box_iou": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "kind", "fault"),
    [
        ({}, "correct", "nobody"),
        ({"target_area": 0, "prediction_area": 0, "intersection": 0, "status": "no_target"}, "correct", "nobody"),
        ({"intersection": 0, "n_missed": 1, "n_extra": 1}, "wrong_instance", "reasoner"),
        ({"target_area": 150, "n_missed": 1}, "missed_instances", "reasoner"),
        ({"prediction_area": 110, "n_extra": 1}, "extra_instances", "reasoner"),
        ({"intersection": 30, "prediction_area": 30}, "under_segmentation", "segmenter"),
        ({"intersection": 30, "prediction_area": 30, "box_iou": 0.3}, "under_segmentation", "reasoner"),
        ({"prediction_area": 250}, "over_segmentation", "segmenter"),
        ({"prediction_area": 250, "box_iou": 0.4}, "over_segmentation", "reasoner"),
        ({"prediction_area": 200}, "correct", "nobody"),
        ({"target_area": 0, "intersection": 0}, "false_alarm", "reasoner"),
        ({"prediction_area": 0, "intersection": 0, "status": "no_target", "n_missed": 1}, "missed_target", "reasoner"),
        ({"prediction_area": 0, "intersection": 0, "status": "unparsable"}, "unparsable", "reasoner"),
        ({"status": "unparsable"}, "correct", "nobody"),  # what was understood is right
        (
            {"target_area": 0, "prediction_area": 0, "intersection": 0, "status": "unparsable"},
            "unparsable",
            "reasoner",
        ),
        ({"prediction_area": 0, "intersection": 0, "status": "failed"}, "failed", "run"),
        ({"prediction_area": 0, "intersection": 0, "status": "missing"}, "missing", "run"),
    ],
)
def test_each_kind_and_whose_fault_it_is(row, kind, fault):
    table = pd.DataFrame([ROW | row])
    table["kind"] = kinds.failure_kinds(table)
    assert (table["kind"][0], kinds.faults(table)[0]) == (kind, fault)


def make_table(expressions, ious, **columns):
    n, ious = len(expressions), np.asarray(ious, float)
    defaults = {
        "sample_id": [f"{i:024x}" for i in range(n)],
        "image": np.arange(n) // 2,
        "expression": expressions,
        "status": "segmented",
        "iou": ious,
        "intersection": (1000 * ious).astype(int),
        "target_area": 1000,
        "prediction_area": (1000 * ious).astype(int),
        "image_area": 100_000,
        "n_true": 1,
        "target_x": 0.5,
        "target_y": 0.5,
        "distractors": -1,
    }
    return pd.DataFrame(defaults | columns)


def test_attributes_of_expressions():
    table = make_table(
        ["the red cup left of the second plate", "all dogs", "the largest cat not on the sofa", "man"],
        [1, 1, 1, 1],
        n_true=[1, 3, 1, 0],
        target_area=[500, 3000, 50_000, 0],
        target_x=[0.1, 0.5, 0.9, 0],
        target_y=[0.9, 0.5, 0.1, 0],
        distractors=[0, 5, -1, -1],
    )
    found = attributes.attributes(table, {"weather": ["wet", None, "dry", "dry"]}).astype(str)
    assert found["length"].tolist() == ["6-10 words", "1-2 words", "6-10 words", "1-2 words"]
    assert found["targets"].tolist() == ["one", "several", "one", "none"]
    assert found["size"].tolist() == ["below 1%", "1-5%", "over 20%", "none"]
    assert found["position"].tolist() == ["bottom left", "middle centre", "top right", "none"]
    assert found["same_class_distractors"].tolist() == ["0", "2 or more", "none", "none"]
    assert found["space"].tolist() == ["left of", "none", "on", "none"]
    assert found["comparison"].tolist() == ["none", "none", "largest", "none"]
    assert found["colour"].tolist() == ["red", "none", "none", "none"]
    assert found["count"].tolist() == ["none", "all", "none", "none"]
    assert found["ordinal"].tolist() == ["second", "none", "none", "none"]
    assert found["negation"].tolist() == ["none", "none", "not", "none"]
    assert found["weather"].tolist() == ["wet", "none", "dry", "dry"]


def test_what_could_not_be_measured_has_no_size():
    table = make_table(["dog"] * 3, [1, 0, 1], status=["segmented", "failed", "segmented"], target_area=[500, 1, 0])
    found = attributes.attributes(table).astype(str)
    assert found["size"].tolist() == ["below 1%", "unknown", "none"]
    assert found["position"].tolist() == ["middle centre", "unknown", "none"]


def test_numbers_of_a_field_are_cut_at_their_quartiles_and_constants_left_out():
    table = make_table(["dog"] * 40, [1] * 40)
    found = attributes.attributes(table, {"light": np.arange(40.0), "one": ["x"] * 40, "few": [1, 2] * 20})
    assert set(found) == {"light", "few"}
    assert found["light"].value_counts().tolist() == [10, 10, 10, 10]


RELATIONS = ("left of", "right of", "above", "below")
COLOURS = ("red", "blue", "green")


def planted(seed, broken, n=1200, noise=0.3):
    """Expressions of every relation and colour; those where `broken` holds have IoU 0."""
    rng = np.random.default_rng(seed)
    relation, colour = rng.choice(RELATIONS, n), rng.choice(COLOURS, n)
    ious = np.clip(0.7 + noise * rng.standard_normal(n), 0, 1)
    ious[broken(relation, colour)] = 0
    expressions = [f"the {c} cup {r} the plate" for c, r in zip(colour, relation, strict=True)]
    size = rng.choice([500, 3000, 30_000], n)
    table = make_table(expressions, ious, target_area=size)
    table["intersection"] = table["prediction_area"] = (ious * size).astype(int)
    return table


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_failure_is_ranked_first(seed):
    table = planted(seed, lambda relation, colour: relation == "left of")
    found = slices.find_slices(table, attributes.attributes(table))
    assert found["attributes"][0] == {"space": "left of"}
    assert found["miou"][0] == found["ciou"][0] == 0
    assert len(found) == 1  # its parts are not repeated


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_combination_is_ranked_before_its_parts(seed):
    table = planted(seed, lambda relation, colour: (relation == "above") & (colour == "red"))
    found = slices.find_slices(table, attributes.attributes(table))
    assert found["attributes"][0] == {"colour": "red", "space": "above"}


def test_chance_alone_gives_no_slice():
    counts = []
    for seed in range(20):
        table = planted(seed, lambda relation, colour: np.zeros(len(relation), bool))
        counts.append(len(slices.find_slices(table, attributes.attributes(table))))
    assert sum(count > 0 for count in counts) <= 3  # at a rate of 5 %


def test_expressions_of_one_image_are_not_taken_for_independent():
    """A property of the image, with all of its expressions good or bad together, by chance alone."""
    counts = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        image = np.repeat(np.arange(60), 10)
        ious = np.clip(rng.random(60)[image] + 0.1 * rng.standard_normal(600), 0, 1)
        table = make_table(["dog"] * 600, ious, image=image)
        weather = rng.choice(["wet", "dry"], 60)[image]
        counts.append(len(slices.find_slices(table, attributes.attributes(table, {"weather": weather}))))
    assert sum(count > 0 for count in counts) <= 6  # at a rate of 5 %; without the clusters it is about half


def test_the_numbers_of_a_slice_are_those_of_its_rows():
    table = planted(0, lambda relation, colour: (relation == "above") & (colour == "red"))
    columns = attributes.attributes(table)
    found = slices.find_slices(table, columns, alpha=1)
    assert found.attrs["tried"] >= len(found) > 1
    for _, row in found.iterrows():
        inside = slices.members(columns, row["attributes"])
        mine, rest = table[inside], table[~inside]
        union = mine["target_area"] + mine["prediction_area"] - mine["intersection"]
        assert row["n"] == inside.sum()
        assert row["miou"] == pytest.approx(mine["iou"].mean())
        assert row["ciou"] == pytest.approx(mine["intersection"].sum() / union.sum())
        assert row["gap"] == pytest.approx(rest["iou"].mean() - mine["iou"].mean())
        assert row["z"] == pytest.approx(2 * 1.96 * row["gap"] / (row["gap_high"] - row["gap_low"]), rel=1e-3)
    assert found["z"].is_monotonic_decreasing


def test_too_little_data_gives_an_empty_table():
    table = make_table(["dog", "red cat"], [1, 0])
    found = slices.find_slices(table, attributes.attributes(table))
    assert len(found) == 0
    assert list(found) == list(slices.COLUMNS)
    with pytest.raises(KeyError):
        slices.members(attributes.attributes(table), {"nope": "x"})


def test_intervals_hold_the_figure_and_cover_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        ious = np.repeat(rng.random(100), 2)  # two expressions per image, fully dependent
        interval = comparison.intervals(make_table(["dog"] * 200, ious))["miou"]
        assert interval.low <= interval.value <= interval.high
        covered += interval.low <= 0.5 <= interval.high
    assert covered >= 51  # 95 % of 60 is 57
    assert comparison.intervals(make_table([], []))["ciou"].value is None


def test_two_runs_are_compared_on_what_both_have():
    a = make_table(["dog"] * 100, np.full(100, 0.4))
    b = make_table(["dog"] * 100, np.where(np.arange(100) < 60, 0.8, 0.3))
    b = b.sample(frac=1, random_state=0).iloc[:90]
    found = comparison.compare(a, b)
    improved = (b["iou"] == 0.8).sum()
    assert (found.n, found.only_a, found.only_b) == (90, 10, 0)
    assert (found.wins, found.losses) == (improved, 90 - improved)
    assert len(found.flips) == improved
    assert set(found.flips["iou_b"]) == {0.8}
    assert found.figures["miou"].value == pytest.approx(b["iou"].mean() - 0.4)
    assert found.figures["miou"].low > 0
    assert found.figures["ciou"].low < found.figures["ciou"].value < found.figures["ciou"].high
    same = comparison.compare(a, a)
    assert same.figures["ciou"] == comparison.Interval(0, 0, 0)
    with pytest.raises(ValueError, match="no expression in common"):
        comparison.compare(a, b.assign(expression="cat"))


def test_the_change_of_each_expression():
    a = make_table(["red dog", "blue dog"] * 50, [0.5] * 100)
    b = make_table(["red dog", "blue dog"] * 50, [0.1, 0.9] * 50).iloc[::-1]
    change = comparison.changes(a.iloc[10:], b)
    assert change.index.equals(b.index)
    assert change.isna().sum() == 10
    assert change[b["expression"] == "red dog"].dropna().unique() == pytest.approx([-0.4])
