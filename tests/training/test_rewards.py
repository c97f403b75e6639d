"""Rewards by hand, for every combination of empty and not, and their properties."""

import doctest
import math
import random

import numpy as np
import pytest
from genseg_hub.dialects import genseg
from genseg_hub.schema import InstancePrompt, encode_mask
from genseg_training import rewards
from hypothesis import example, given
from hypothesis import strategies as st

from tests.helpers.strategies import small_boxes

SIZE = (1000, 1000)
ACCURACY = (rewards.box_iou_reward, rewards.box_l1_reward, rewards.points_reward, rewards.count_reward)
EMPTY = "<think>nothing</think><answer>[]</answer>"


def said(*boxes):
    """Return an answer with these boxes and two points well inside each."""
    instances = []
    for x1, y1, x2, y2 in boxes:
        y = (y1 + y2) / 2
        instances.append(InstancePrompt((x1, y1, x2, y2), ((x1 + (x2 - x1) / 4, y), (x1 + 3 * (x2 - x1) / 4, y))))
    return genseg.render("", instances, SIZE)


def rle(box):
    mask = np.zeros(SIZE[::-1], bool)
    x1, y1, x2, y2 = box
    mask[y1:y2, x1:x2] = True
    return encode_mask(mask)


def reward(function, answer, *boxes):
    (value,) = function([answer], image_size=[SIZE], boxes=[list(boxes)], masks=[[rle(b) for b in boxes]])
    return value


A, B = (100, 100, 300, 300), (500, 500, 900, 900)


def test_the_examples_of_the_docstrings():
    assert doctest.testmod(rewards).failed == 0
    assert doctest.testmod(rewards).attempted > 10


@pytest.mark.parametrize("function", ACCURACY)
def test_every_combination_of_empty_and_not(function):
    assert reward(function, EMPTY) == 1
    assert reward(function, said(A)) == 0
    assert reward(function, "gibberish") == 0
    assert reward(function, EMPTY, A) == 0
    assert reward(function, "gibberish", A) == 0
    assert reward(function, said(A), A) == 1
    assert reward(function, said(B, A), A, B) == 1  # in another order


@pytest.mark.parametrize("function", ACCURACY)
def test_missing_extra_and_duplicated_instances_cost(function):
    assert reward(function, said(A), A, B) == 0.5
    assert reward(function, said(A, B), A) == 0.5
    assert reward(function, said(A, A), A) == 0.5
    assert reward(function, said(A, A, B), A, B) == pytest.approx(2 / 3)


def test_boxes_by_hand():
    half = (100, 100, 200, 300)
    assert reward(rewards.box_iou_reward, said(half), A) == 0.5
    assert reward(rewards.box_l1_reward, said(half), A) == pytest.approx(math.exp(-25 / 100))
    assert reward(rewards.box_iou_reward, said(B), A) == 0
    assert 0 < reward(rewards.box_l1_reward, said(B), A) < reward(rewards.box_l1_reward, said((300, 300, 500, 500)), A)


def test_points_by_hand():
    def with_points(*points):
        return genseg.render("", [InstancePrompt(A, points)], SIZE)

    inside, near, outside = (150, 200), (160, 200), (400, 200)
    assert reward(rewards.points_reward, with_points(inside, (250, 200)), A) == 1
    assert reward(rewards.points_reward, with_points(inside, outside), A) == 0.5
    assert reward(rewards.points_reward, with_points(outside, outside), A) == 0
    diagonal = math.hypot(200, 200)
    assert reward(rewards.points_reward, with_points(inside, near), A) == pytest.approx(11 / (0.2 * diagonal))
    # Inside the mask of the target, but outside their own box.
    elsewhere = genseg.render("", [InstancePrompt((500, 500, 600, 600), (inside, (250, 200)))], SIZE)
    assert reward(rewards.points_reward, elsewhere, A) == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (EMPTY, 1),
        ("  <think></think>\n<answer>[]</answer>\n", 1),
        ("<think>a</think><answer>[]</answer> so", 0),
        ("<think>a</think><think>b</think><answer>[]</answer>", 0),
        ("<answer>[]</answer><think>a</think>", 0),
        ("<think>a <answer>[]</answer></think>", 0),
        ("<think>a</think>", 0),
        ("", 0),
    ],
)
def test_the_format(text, value):
    assert rewards.format_reward([text]) == [value]
    assert rewards.format_reward([[{"role": "assistant", "content": text}]]) == [value]


THINKS = "a</think><answer>[]</answer>"


@pytest.mark.parametrize(
    ("thought_is_open", "text", "value"),
    [
        (None, EMPTY, 1),
        (None, THINKS, 1),
        (True, THINKS, 1),
        (True, EMPTY, 0),
        (False, EMPTY, 1),
        (False, THINKS, 0),
        (True, "a<answer>[]</answer>", 0),
    ],
)
def test_the_format_depends_on_who_opens_the_thought(thought_is_open, text, value):
    reward = rewards.format_reward
    if thought_is_open is not None:
        reward = rewards.of_template(reward, thought_is_open)
        assert reward.__name__ == "format_reward"  # what TRL logs it as
    assert reward([text]) == [value]


@pytest.mark.parametrize("function", ACCURACY)
def test_a_guess_in_a_thought_that_the_prompt_opened_earns_nothing(function):
    cut = "perhaps " + said(A).removeprefix("<think></think>")
    assert reward(function, cut, A) == 1  # nobody says that it is a thought
    assert reward(rewards.of_template(function, True), cut, A) == 0
    assert reward(rewards.of_template(function, True), "a</think>" + said(A).removeprefix("<think></think>"), A) == 1
    assert reward(rewards.of_template(function, False), said(A), A) == 1


def test_exact_repetition_never_pays():
    for function in ACCURACY:
        assert reward(function, said(A, A), A, B) <= 0.5
        assert reward(function, said(A, A, A), A) == pytest.approx(1 / 3)
        assert reward(function, said(A, A)) == 0


def test_absurd_coordinates_do_not_break_anything():
    for numbers in ("[0,0,0,0]", "[-5,-5,2000,1e9]", "[900,900,100,100]", '["a",1,2,3]'):
        answer = f'<think></think><answer>[{{"bbox_2d":{numbers},"points":[[1e9,-3],[5000,5000]]}}]</answer>'
        for function in ACCURACY:
            assert 0 <= reward(function, answer, A) <= 1


@pytest.mark.parametrize("points", ["[]", "null", '"x"', '[["a",1],[2]]', "[[150,200]]"])
def test_points_that_cannot_be_read_earn_nothing(points):
    answer = f'<think></think><answer>[{{"bbox_2d":[100,100,300,300],"points":{points}}}]</answer>'
    assert reward(rewards.points_reward, answer, A) == 0


@pytest.mark.parametrize("function", ACCURACY)
def test_a_wrong_instance_cannot_be_taken_back(function):
    honest = said(A, B)
    cut = honest[: honest.rindex("bbox_2d") + 12]
    empty_box = honest.replace("[500,500,900,900]", "[500,500,500,900]")
    assert empty_box != honest
    for answer in (cut, empty_box):
        assert reward(function, answer, A) < reward(function, honest, A)


@pytest.mark.parametrize("function", ACCURACY)
def test_null_is_not_an_empty_list(function):
    assert reward(function, "<think></think><answer>null</answer>") == 0


def test_points_of_a_tiny_target():
    (value,) = rewards.points_reward(
        [said((500, 500, 501, 501))], [SIZE], [[(500, 500, 501, 501)]], [[rle((500, 500, 501, 501))]]
    )
    assert value in (0.5, 1.0)  # both points round to its corners


@example(
    [(0, 0, 20, 20), (0, 0, 20, 20), (0, 5, 20, 25)],
    [(0, 0, 20, 20), (0, 25, 20, 45), (0, 54, 20, 74)],
    random.Random(1),
)
@given(st.lists(small_boxes, max_size=3), st.lists(small_boxes, max_size=3), st.randoms())
def test_rewards_are_bounded_and_blind_to_order(predicted, truth, shuffler):
    shuffled_truth, shuffled = truth[:], predicted[:]
    shuffler.shuffle(shuffled_truth)
    shuffler.shuffle(shuffled)
    for function in ACCURACY:
        value = reward(function, said(*predicted), *truth)
        assert 0 <= value <= 1
        assert reward(function, said(*shuffled), *shuffled_truth) == pytest.approx(value, abs=1e-3)


@given(small_boxes, st.integers(1, 60), st.integers(1, 60))
def test_a_nearer_box_never_earns_less(box, far, nearer):
    far, nearer = max(far, nearer), min(far, nearer)

    def moved(by):
        return (box[0] + by, box[1], box[2] + by, box[3])

    for function in (rewards.box_iou_reward, rewards.box_l1_reward):
        assert reward(function, said(moved(nearer)), box) >= reward(function, said(moved(far)), box)
