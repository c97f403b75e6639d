"""Boxes and points as people type them."""

import pytest
from genseg_hub.schema import InstancePrompt
from hypothesis import given
from hypothesis import strategies as st

from fiftyone_genseg.asking.prompt_text import read, write

SIZE = (400, 300)
xs, ys = (st.integers(0, 10 * side).map(lambda tenths: tenths / 10) for side in SIZE)
points = st.lists(st.tuples(xs, ys), max_size=3).map(tuple)
boxes = st.tuples(
    st.tuples(xs, xs).filter(lambda x: x[0] != x[1]).map(sorted),
    st.tuples(ys, ys).filter(lambda y: y[0] != y[1]).map(sorted),
).map(lambda sides: (sides[0][0], sides[1][0], sides[0][1], sides[1][1]))


@st.composite
def prompts(draw):
    box, inside, outside = draw(st.none() | boxes), draw(points), draw(points)
    if box is None and not inside:
        box = draw(boxes)
    beyond = 0 if box is None else sum(not (box[0] <= x <= box[2] and box[1] <= y <= box[3]) for x, y in inside)
    return InstancePrompt(box, inside, beyond, outside)


@given(st.lists(prompts(), min_size=1, max_size=3))
def test_what_is_written_is_read_back(given_prompts):
    assert read(write(given_prompts), SIZE) == given_prompts


def test_people_write_it_in_other_ways():
    (first, second) = read("\n box 10,20, 110,220\n+ 50 60.5\n\n\n  + 1 2\n- 399 299  \n", SIZE)
    assert first == InstancePrompt((10.0, 20.0, 110.0, 220.0), ((50.0, 60.5),))
    assert second == InstancePrompt(None, ((1.0, 2.0),), 0, ((399.0, 299.0),))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no box and no point"),
        ("box 1 2 3", "'box 1 2 3' cannot be read"),
        ("circle 1 2 3 4", "'circle 1 2 3 4' cannot be read"),
        ("+ one two", "cannot be read; write lines such as"),
        ("+ nan 5", "nan in '+ nan 5' is outside the image"),
        ("+ 401 5", "401 in '+ 401 5' is outside the image, which has 400 x 300 pixels"),
        ("box 1 2 3 301", "301"),
        ("box 30 2 3 9", "has no area"),
        ("box 1 2 3 4\nbox 5 6 7 8", "an instance has 2 boxes; put an empty line"),
        ("- 5 5", "needs a box or a point inside it"),
    ],
)
def test_what_cannot_be_used_is_named(text, said):
    with pytest.raises(ValueError, match=said.replace("+", r"\+")):
        read(text, SIZE)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_words(text):
    try:
        found = read(text, SIZE)
    except ValueError:
        return
    assert all(prompt.box or prompt.points for prompt in found)
