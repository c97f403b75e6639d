"""RefScenes is fixed, exact, unambiguous and as hard as its documentation says."""

import hashlib
import json
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from genseg_hub.schema import decode_mask
from genseg_training.nano.answers import answer, interior_points
from genseg_training.nano.expressions import EXPRESSION_KINDS, NEW_KINDS, refer
from genseg_training.nano.refscenes import VERSION, refscenes, training_examples
from genseg_training.nano.scenes import COLORS, HELD_OUT, KINDS, SIZES, scene


@pytest.fixture(scope="module")
def splits():
    """Both splits without their pictures."""
    return {split: [replace(example, image=None) for example in refscenes(split)] for split in ("val", "test")}


@pytest.fixture(scope="module")
def val(splits):
    return splits["val"]


def test_the_benchmark_is_the_version_it_says(splits):
    digest = hashlib.sha256()
    for example in [*splits["val"], *splits["test"]]:
        digest.update(json.dumps([example.expression, example.example_id, dict(example.attributes)]).encode())
    assert (VERSION, digest.hexdigest()) == (
        "1.0",
        "fe23845528cb60833b223645abcc5d2477feb7a367bfd164f8d5c1a1cfc959ec",
    )


def test_val_and_test_have_2000_expressions_each(splits, val):
    assert [len(examples) for examples in splits.values()] == [2000, 2000]
    kinds = Counter(example.attributes["kind"] for example in val)
    assert set(kinds) == set(EXPRESSION_KINDS)
    assert min(kinds.values()) > 200
    assert 100 < sum(example.attributes["held_out"] for example in val) < 600


def test_no_target_means_no_masks_and_only_that(val):
    for example in val:
        assert (example.attributes["kind"] == "no_target") == (example.masks == ())
    assert max(len(example.masks) for example in val) >= 4


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="no fixed split 'train'; choose one of val, test"):
        next(refscenes("train"))


@pytest.mark.parametrize("seed", range(30))
def test_masks_are_exact_and_disjoint(seed):
    drawn = scene(random.Random(seed))
    assert 2 <= len(drawn.shapes) <= 6
    total = sum(shape.mask.astype(int) for shape in drawn.shapes)
    assert total.max() == 1
    for shape in drawn.shapes:
        x1, y1, x2, y2 = map(int, shape.box)
        assert shape.mask[y1:y2, x1:x2].sum() == shape.mask.sum() > 0
        inside = drawn.image[shape.mask].astype(float).mean(0)
        assert np.abs(inside - COLORS[shape.color]).max() < 45


def test_some_shapes_hide_parts_of_others():
    def hidden(drawn):
        return any(a.box[0] < b.box[2] and b.box[0] < a.box[2] and a.box[1] < b.box[3] and b.box[1] < a.box[3]
                   for i, a in enumerate(drawn.shapes) for b in drawn.shapes[:i])  # fmt: skip

    rng = random.Random(0)
    assert 10 < sum(hidden(scene(rng)) for _ in range(100)) < 90


def test_training_never_sees_a_held_out_combination():
    rng = random.Random(1)
    for _ in range(150):
        drawn = scene(rng, allow_held_out=False)
        assert not any((shape.color, shape.kind) in HELD_OUT for shape in drawn.shapes)
        query = refer(rng, drawn, allow_held_out=False)
        assert not query.held_out
        assert not any(f"{color} {kind}" in query.expression for color, kind in HELD_OUT)


def _words(expression):
    return expression.replace("crosses", "cross").replace("shapes", "shape").split()


def _named(words, shape):
    kind = next(
        (w.removesuffix("s") if w != "cross" else w for w in words if w.removesuffix("s") in KINDS or w == "cross"),
        None,
    )
    color = next((w for w in words if w in COLORS), None)
    size = next((w for w in words if w in SIZES), None)
    return (kind in (None, shape.kind)) and (color in (None, shape.color)) and (size in (None, shape.size))


@pytest.mark.parametrize("seed", range(60))
def test_an_independent_reader_finds_the_same_targets(seed):
    """Read each expression's words back and search the scene: expressions are true and unambiguous."""
    rng = random.Random(seed)
    drawn = scene(rng)
    query = refer(rng, drawn)
    text = query.expression
    relation = next((r for r in ("left of", "right of", "above", "below") if f" {r} " in text), None)
    if relation:
        head, tail = text.split(f" {relation} ")
        anchors = [s for s in drawn.shapes if _named(_words(tail), s)]
        axis, sign = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}[relation]
        found = [
            s for s in drawn.shapes
            if s is not anchors[0] and _named(_words(head), s) and sign * (s.center[axis] - anchors[0].center[axis]) > 0
        ]  # fmt: skip
        assert len(anchors) == 1
    else:
        found = [s for s in drawn.shapes if _named(_words(text), s)]
        extreme = next((w for w in ("leftmost", "rightmost", "topmost", "bottommost") if w in text), None)
        if extreme and found:
            axis, pick = {"leftmost": (0, min), "rightmost": (0, max), "topmost": (1, min), "bottommost": (1, max)}[
                extreme
            ]
            found = [pick(found, key=lambda s: s.center[axis])]
    assert found == list(query.targets)


def _found(text, shapes):
    """Return the shapes that an expression of a new kind means, in the order of `shapes`, from its words alone."""
    if " except " in text:
        head, tail = text.split(" except ")
        return [s for s in shapes if _named(_words(head), s) and not _named(_words(tail), s)]
    if " that is not " in text:
        head, tail = text.split(" that is not ")
        return [s for s in shapes if _named(_words(head), s) and not _named(_words(tail), s)]
    if " and " in text:
        parts = [[s for s in shapes if _named(_words(part), s)] for part in text.split(" and ")]
        assert [len(part) for part in parts] == [1, 1]
        return [s for s in shapes if s in (parts[0][0], parts[1][0])]
    if " from the " in text:
        head, side = text.split(" from the ")
        axis, sign = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}[side]
        hits = sorted((s for s in shapes if _named(_words(head), s)), key=lambda s: sign * s.center[axis])
        return [hits[("second", "third").index(head.split()[1]) + 1]]
    relation = next(r for r in ("left of", "right of", "above", "below") if f" {r} " in text)
    axis, sign = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}[relation]
    head, tail = text.split(f" {relation} ")
    (anchor,) = (s for s in shapes if _named(_words(tail), s))
    return [
        s for s in shapes
        if s is not anchor and _named(_words(head), s) and sign * (s.center[axis] - anchor.center[axis]) > 0
    ]  # fmt: skip


def test_a_scene_without_the_asked_kinds_is_refused():
    with pytest.raises(ValueError, match="1 shapes supports none of pair, ordinal: draw another scene"):
        refer(random.Random(0), scene(random.Random(0), count=1), kinds={"pair": 1, "ordinal": 1})


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_an_independent_reader_finds_the_targets_of_a_new_kind(kind):
    rng, read = random.Random(kind), 0
    while read < 25:
        drawn = scene(rng)
        try:
            query = refer(rng, drawn, kinds={kind: 1})
        except ValueError:  # the scene has no such target
            continue
        read += 1
        assert query.kind == kind
        assert _found(query.expression, drawn.shapes) == list(query.targets)
        assert len(query.targets) >= {"pair": 2, "several_relation": 2}.get(kind, 1)


def test_new_kinds_ask_about_the_scenes_of_refscenes():
    asked = list(refscenes("val", 80, NEW_KINDS))
    assert {example.attributes["kind"] for example in asked} == set(NEW_KINDS)
    images = {example.image_id: example.image for example in refscenes("val", 120)}
    assert all(np.array_equal(example.image, images[example.image_id]) for example in asked)


def test_training_on_new_kinds_shows_no_held_out_combination():
    mixed = NEW_KINDS | {"attribute": 20}
    examples = list(training_examples(200, seed=5, kinds=mixed))
    assert len(examples) == 200
    assert {*mixed} <= {example.attributes["kind"] for example in examples} <= {*mixed, *EXPRESSION_KINDS}
    assert not any(f"{color} {kind}" in example.expression for example in examples for color, kind in HELD_OUT)


@pytest.mark.parametrize("seed", range(20))
def test_answers_parse_back_to_the_targets(seed):
    from genseg_hub.dialects import genseg

    rng = random.Random(seed)
    drawn = scene(rng)
    query = refer(rng, drawn)
    response = genseg.parse(answer(query, drawn), drawn.size)
    assert response.error is None
    assert len(response.instances) == len(query.targets)
    for instance, shape in zip(response.instances, query.targets, strict=True):
        assert np.abs(np.subtract(instance.box, shape.box)).max() <= 1
        assert instance.points_outside_box == 0


def test_interior_points_are_inside_the_mask(val):
    for example in val[:200]:
        for rle in example.masks:
            mask = decode_mask(rle)
            for x, y in interior_points(mask):
                assert mask[int(y), int(x)]
    with pytest.raises(ValueError, match="empty"):
        interior_points(np.zeros((3, 3), bool))
