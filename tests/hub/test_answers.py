"""Every answer that has passed the gate can be stored, whatever the model said."""

import json
import math

import numpy as np
import pytest
from genseg_hub import GenSegR1, answers, dialects
from genseg_hub.answers import MAX_CHARACTERS, MAX_INSTANCES, MAX_REASONING_CHARACTERS, read
from genseg_hub.dialects import genseg, qwen3_vl
from genseg_hub.evaluation import predictions
from genseg_hub.reasoners.base import Generation
from genseg_hub.schema import Failure, InstancePrompt, ReferringExample, Response, ResponseError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers import strategies
from tests.helpers.strategies import ONE, tagged

SIZE = (640, 480)


def instance(box=(100, 200, 300, 400), *points):
    return json.dumps({"bbox_2d": box, "points": points})


def is_near(values, size=SIZE):
    return all(-side <= value <= 2 * side for value, side in zip(values, size, strict=True))


@pytest.mark.parametrize("name", dialects.names())
@settings(max_examples=400)
@given(
    text=strategies.spoken,
    truncated=st.booleans(),
    shown=strategies.shown_sizes,
    size=st.just(SIZE) | strategies.sizes,
)
def test_nothing_raises_and_what_passes_is_near_the_image(name, text, truncated, shown, size):
    response = read(dialects.get_dialect(name), text, size, truncated, shown)
    assert response.error is None or isinstance(response.error, ResponseError)
    for kept in (response.text, response.reasoning):
        kept.encode()
        assert "\x00" not in kept
    assert len(set(response.instances)) == len(response.instances) <= MAX_INSTANCES
    for found in response.instances:
        assert all(is_near(point, size) for point in (*found.points, *found.negative_points))
        if found.box is None:
            assert found.points
            assert not found.points_outside_box
            continue
        x1, y1, x2, y2 = found.box
        assert 0 <= x1 < x2 <= size[0]
        assert 0 <= y1 < y2 <= size[1]
        assert found.points_outside_box == sum(not (x1 <= x <= x2 and y1 <= y <= y2) for x, y in found.points)


@pytest.mark.parametrize("far", [2001, -1001, 1234567890, 1e39, -1e300])
def test_a_point_far_from_the_image_is_left_out_and_an_error(far):
    for point in ([far, 300], [200, far]):
        response = read(genseg, tagged(f"[{instance((100, 200, 300, 400), [200, 300], point)}]"), SIZE)
        assert response.error is ResponseError.POINT_OUT_OF_IMAGE
        assert response.instances == (InstancePrompt((64, 96, 192, 192), ((128, 144),)),)
    assert read(qwen3_vl, '[{"points": [[200, 300], [900, 999]]}]', SIZE).error is None
    alone = read(qwen3_vl, '[{"point_2d": [1005, 300]}]', SIZE)
    assert (alone.instances, alone.error) == ((), ResponseError.POINT_OUT_OF_IMAGE)


def test_a_point_beside_the_image_stays_where_it_is():
    response = read(genseg, tagged(f"[{instance((100, 200, 300, 400), [2000, 2000], [-1000, 300])}]"), SIZE)
    assert response.error is None
    assert response.instances[0].points == ((1280, 960), (-640, 144))
    assert response.instances[0].points_outside_box == 2


def test_instances_that_differ_in_a_lost_point_only_are_one():
    said = [instance((100, 200, 300, 400), [200, 300], [far, 0]) for far in (9999, 8888)]
    response = read(genseg, tagged(f"[{','.join(said)}]"), SIZE)
    assert len(response.instances) == 1
    assert response.repeated == 1


@pytest.mark.parametrize("name", dialects.names())
def test_a_repeated_instance_counts_once(name):
    said = '{"bbox_2d":[100,200,300,400],"points":[[150,250],[200,300]],"point_2d":[150,250]}'
    tags = "<bbox>[100,200,300,400]</bbox>" * 3
    response = read(dialects.get_dialect(name), f"<think></think>{tags}<answer>[{','.join([said] * 3)}]</answer>", SIZE)
    assert (len(response.instances), response.repeated) == (1, 2)


def test_too_many_instances_are_an_error_that_keeps_the_first():
    many = [instance((number, 0, number + 5, 5), [number, 1], [number, 2]) for number in range(MAX_INSTANCES + 1)]
    response = read(genseg, tagged(f"[{','.join(many)}]"), (1000, 1000))
    assert response.error is ResponseError.TOO_MANY_INSTANCES
    assert [found.box[0] for found in response.instances] == list(range(MAX_INSTANCES))
    # 100 masks of 12 million pixels would not be read back from a file.
    response = read(genseg, tagged(f"[{','.join(many[:100])}]"), (4000, 3000))
    assert response.error is ResponseError.TOO_MANY_INSTANCES
    assert len(response.instances) == answers.MAX_MASK_PIXELS // 12_000_000


@pytest.mark.parametrize("text", ["a\ud800b", "a\x00b", b"a\xffb"])
def test_characters_that_no_file_holds_are_replaced(text):
    response = read(genseg, text, SIZE)
    assert response.text == "a\ufffdb"
    thought = text if isinstance(text, str) else text.decode(errors="replace")
    assert read(genseg, f"<think>{thought}</think><answer>[]</answer>", SIZE).reasoning == "a\ufffdb"


def test_a_long_text_is_cut_and_marked():
    response = read(genseg, "x" * (MAX_CHARACTERS + 1) + tagged("[]"), SIZE)
    assert response.cut
    assert len(response.text) == MAX_CHARACTERS
    assert response.error is ResponseError.TRUNCATED
    for unit in ("\u00e9", "\U0001f98a"):
        assert read(genseg, (unit * 60_000).encode(), SIZE).text == unit * MAX_CHARACTERS
    whole = tagged(f"[{ONE}]")
    response = read(genseg, whole + " " * MAX_CHARACTERS, SIZE)
    assert (response.error, response.cut) == (None, True)
    assert response.instances == read(genseg, whole, SIZE).instances
    assert not read(genseg, whole, SIZE).cut


def test_a_long_thought_is_cut_and_its_answer_stays():
    response = read(genseg, f"<think>{'x' * 30_000}</think><answer>[{ONE}]</answer>", SIZE)
    assert response.error is None
    assert response.cut
    assert response.reasoning == "x" * MAX_REASONING_CHARACTERS
    assert len(response.instances) == 1


def test_a_dialect_that_breaks_its_word_does_not_pass():
    class Careless:
        @staticmethod
        def parse(text, image_size, truncated=False, shown_size=None):
            boxes = [(math.nan, 0, 1, 1), (0, 0, 700, 1), (5, 5, 5, 5), (1, 2, 3, 4)]
            return Response(text, instances=tuple(InstancePrompt(box, ()) for box in boxes))

    response = read(Careless, "", SIZE)
    assert response.instances == (InstancePrompt((1, 2, 3, 4), ()),)
    assert response.error is ResponseError.BOX_OUT_OF_IMAGE


class Speaker:
    """A reasoner that says the same to each prompt."""

    takes_cores = False

    def __init__(self, *texts):
        self.texts = list(texts)

    def session(self, batch_size):
        self.open = []
        return self

    def room(self):
        return 8 - len(self.open)

    def ask(self, prompts):
        self.open += prompts

    def advance(self):
        said = [(prompt, self.texts.pop(0)) for prompt in self.open]
        self.open = []
        return [(p, t if isinstance(t, Exception) else Generation(t, False)) for p, t in said]


def results_of(nano, *texts, segmenter=None):
    model = GenSegR1(Speaker(*texts), segmenter or nano.segmenter, genseg)
    image = Image.new("RGB", (64, 48), "white")
    return list(model.segment_many([ReferringExample(image, "it", image_id="1") for _ in texts]))


def test_what_a_server_says_reaches_a_line_that_can_be_read(nano):
    said = [
        tagged(f"[{instance((100, 200, 300, 400), [200, 300], [1234567890, 5])}]"),
        tagged(f"[{instance((100, 200, 300, 400), [1e39, 300], [200, 300])}]"),
        tagged(f"[{ONE}]").replace("because", "\ud800\x00"),
        ConnectionError("\ud800" + "x" * 9999),
    ]
    results = results_of(nano, *said)
    for result in results:
        line = predictions.to_json(predictions.to_line(ReferringExample("", "it"), result))
        again = predictions.from_line(json.loads(line, parse_constant=pytest.fail))
        if isinstance(result, Failure):
            assert again.message == result.message
            assert len(result.message) == answers.MAX_MESSAGE_CHARACTERS
        else:
            assert again.response == result.response
            assert len(result.masks) == 1
            assert all(0 <= score <= 1 for score in result.scores)


def test_a_score_that_is_no_number_costs_its_expression(nano):
    class Segmenter:
        device = nano.segmenter.device

        def segment(self, image, instances, key, multimask, size):
            masks = [np.zeros(image.shape[:2], bool)] * len(instances)
            return masks, [math.nan if found.box[0] < 1 else 0.5 for found in instances]

    bad = tagged(f"[{instance((0, 0, 300, 400), [100, 100], [200, 200])}]")
    first, second, third = results_of(nano, tagged(f"[{ONE}]"), bad, tagged(f"[{ONE}]"), segmenter=Segmenter())
    assert isinstance(second, Failure)
    assert "IoU that is no number" in second.message
    assert first.scores == third.scores == (0.5,)
