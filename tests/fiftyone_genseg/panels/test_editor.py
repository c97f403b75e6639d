"""Moving the boxes and points of an answer."""

import contextlib

import pytest
from genseg_hub.schema import InstancePrompt
from hypothesis import given
from hypothesis import strategies as st

from fiftyone_genseg.panels._editor import STEPS, moved, parts, with_point

SIZE = (100, 80)
ONE = InstancePrompt((10.0, 10.0, 50.0, 40.0), ((20.0, 20.0), (30.0, 30.0)))
POINTS = InstancePrompt(None, ((70.0, 70.0),), 0, ((5.0, 5.0),))


def test_every_part_has_a_name():
    assert parts([ONE, POINTS]) == [
        *("1: box", "1: left side", "1: top", "1: right side", "1: bottom", "1: point 1", "1: point 2"),
        *("2: point 1", "2: point outside 1"),
    ]


@pytest.mark.parametrize(
    ("part", "direction", "box", "points"),
    [
        ("1: box", "right", (15.0, 10.0, 55.0, 40.0), ONE.points),
        ("1: left side", "left", (5.0, 10.0, 50.0, 40.0), ONE.points),
        ("1: top", "up", (10.0, 5.0, 50.0, 40.0), ONE.points),
        ("1: bottom", "down", (10.0, 10.0, 50.0, 45.0), ONE.points),
        ("1: point 2", "up", ONE.box, ((20.0, 20.0), (30.0, 25.0))),
        (None, "down", (10.0, 15.0, 50.0, 45.0), ONE.points),
    ],
)
def test_one_part_moves_by_a_step(part, direction, box, points):
    first, second = moved([ONE, POINTS], part, direction, "5 pixels", SIZE)
    assert (first.box, first.points) == (box, points)
    assert second == POINTS


def test_points_outside_move_too():
    _, second = moved([ONE, POINTS], "2: point outside 1", "right", "20 pixels", SIZE)
    assert second.negative_points == ((25.0, 5.0),)


@given(
    st.sampled_from(parts([ONE, POINTS])),
    st.lists(st.tuples(st.sampled_from(["left", "right", "up", "down"]), st.sampled_from(list(STEPS))), max_size=12),
)
def test_nothing_leaves_the_image(part, steps):
    prompts = [ONE, POINTS]
    for direction, step in steps:
        with contextlib.suppress(ValueError):  # a side that would pass the other
            prompts = moved(prompts, part, direction, step, SIZE)
    box = prompts[0].box
    assert 0 <= box[0] < box[2] <= SIZE[0]
    assert 0 <= box[1] < box[3] <= SIZE[1]
    for prompt in prompts:
        assert all(0 <= x < SIZE[0] and 0 <= y < SIZE[1] for x, y in (*prompt.points, *prompt.negative_points))


def test_a_side_does_not_pass_the_other():
    with pytest.raises(ValueError, match="no area"):
        moved([ONE], "1: left side", "right", "100 pixels", SIZE)


def test_points_are_added_to_the_chosen_instance():
    first, second = with_point([ONE, POINTS], "1: box", negative=False, size=SIZE)
    assert first.points == (*ONE.points, (30.0, 25.0))
    assert second == POINTS
    _, second = with_point([ONE, POINTS], "2: point 1", negative=True, size=SIZE)
    assert second.negative_points == ((5.0, 5.0), (65.0, 70.0))


def test_nothing_can_be_moved_where_there_is_nothing():
    with pytest.raises(ValueError, match="type one below"):
        moved([], None, "left", None, SIZE)
