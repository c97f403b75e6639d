"""A question with its progress: the states lead to the result of `segment`, and closing stops the generation."""

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from genseg_hub import GenSegR1, Progress
from genseg_hub.errors import ImageError, ReasonerError
from genseg_hub.reasoners.server import ServerReasoner
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_hub.segmenters.sam2 import Sam2Segmenter
from genseg_training.nano.refscenes import refscenes
from PIL import Image

from tests.helpers.chat_server import in_pieces, said, serving

ANSWER = '<answer>[{"bbox_2d":[100,100,500,500],"points":[[200,200],[300,300]]}]</answer>'


@pytest.fixture(scope="module")
def scene():
    return next(example for example in refscenes("val", 8) if example.masks)


@pytest.fixture(scope="module")
def generating(nano) -> GenSegR1:
    """Nano, answering by Transformers' generate."""
    own = nano.reasoner
    return GenSegR1(
        TransformersReasoner(own.model, own.processor, own.max_new_tokens),
        nano.segmenter,
        nano.dialect,
        options=nano.options,
    )


def served(nano, server) -> GenSegR1:
    return GenSegR1(ServerReasoner(server.url, "served", 64, max_retries=0), nano.segmenter, nano.dialect)


def check(states: list[Progress], model: GenSegR1, image, words: str) -> None:
    """Raise unless the states have their order and the end of `segment`."""
    *texts, parsed, last = states
    expected = model.segment(image, words)
    assert all(state.response is None for state in texts)
    assert parsed.response is last.response is last.prediction.response
    assert parsed.prediction is None
    assert parsed.response == expected.response
    assert last.prediction.scores == expected.scores
    assert all(np.array_equal(a, b) for a, b in zip(last.prediction.masks, expected.masks, strict=True))
    assert texts[0].text == ""
    assert all(after.text.startswith(before.text) for before, after in pairwise([*texts, last]))


@pytest.mark.parametrize("road", ["nano", "generating"])
def test_the_states_lead_to_the_result_of_segment(road, scene, request):
    model = request.getfixturevalue(road)
    states = list(model.ask(scene.image, scene.expression))
    check(states, model, scene.image, scene.expression)
    assert len({state.text for state in states}) > 2
    assert states[-1].prediction.masks


def test_each_fourth_token_is_a_state(nano, scene):
    states = list(nano.ask(scene.image, scene.expression))
    tokens = len(nano.reasoner.processor.tokenizer(states[-1].text)["input_ids"])
    assert abs(len(states) - 3 - tokens // 4) <= 1


@pytest.mark.parametrize("road", ["nano", "generating"])
def test_closing_stops_the_generation(road, scene, request):
    model, passes = request.getfixturevalue(road), []
    states = model.ask(scene.image, scene.expression)
    with model.reasoner.model.register_forward_hook(lambda *_: passes.append(1)):
        while not next(states).text:
            pass
        states.close()
        made = len(passes)
        list(model.ask(scene.image, scene.expression))
    assert made < len(passes) - made, "the whole answer takes more passes"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("generate")]


def test_errors_are_the_errors_of_segment(nano, generating):
    for model in (nano, generating):
        with pytest.raises(ImageError, match="no file"):
            list(model.ask("/none.png", "a dog"))
        with pytest.raises(ValueError, match="empty"):
            list(model.ask(Image.new("RGB", (64, 64)), " "))


@pytest.mark.parametrize("road", ["nano", "generating"])
def test_an_error_of_the_model_is_raised(road, scene, monkeypatch, request):
    def broken(*args, **options):
        raise RuntimeError("broken weights")

    model = request.getfixturevalue(road)
    monkeypatch.setattr(model.reasoner.model.model.visual, "forward", broken)
    model.release()
    with pytest.raises(RuntimeError, match="broken weights"):
        list(model.ask(scene.image, scene.expression))


def test_short_memory_frees_what_is_kept_and_the_question_is_answered(nano, nano_sam2, scene):
    class Short(Sam2Segmenter):
        fails = True

        def _embed(self, *args):
            failing, self.fails = self.fails, False
            if failing:
                raise torch.OutOfMemoryError("simulated")
            return super()._embed(*args)

    model = GenSegR1(nano.reasoner, Short(nano_sam2), nano.dialect, options=nano.options)
    nano.segment(scene.image, scene.expression)
    *_, last = model.ask(scene.image, scene.expression)
    assert last.prediction.masks
    assert not nano.reasoner.prefixes.forget(), "the reasoner's prefixes made room"


def test_a_server_answers_in_pieces(nano):
    thought = ({"reasoning_content": "It is "}, {"reasoning": "the vase."})
    text = ({"content": ANSWER[:30]}, {"content": ANSWER[30:]})
    image = Image.new("RGB", (64, 64))
    with serving(lambda request: in_pieces([*thought, *text]) if request.get("stream") else said(ANSWER)) as server:
        states = list(served(nano, server).ask(image, "the vase"))
    assert states[-1].response.reasoning == states[-1].reasoning == "It is the vase."
    assert states[-1].response.text == f"<think>It is the vase.</think>{ANSWER}"
    assert len(states[-1].prediction.masks) == 1
    assert [request.get("stream") for request in server.requests] == [True]


def test_the_thought_is_shown_before_the_answer_is_there(nano):
    """Let the server wait with its second piece until the first one was seen."""
    seen = threading.Event()

    def pieces():
        yield {"reasoning": "It is"}
        assert seen.wait(60)
        yield {"content": ANSWER}

    with serving(lambda request: in_pieces(pieces())) as server:
        states = []
        for state in served(nano, server).ask(Image.new("RGB", (64, 64)), "the vase"):
            states.append(state)
            if state.reasoning == "It is":
                seen.set()
    assert states[-1].response.reasoning == "It is"
    assert states[-1].prediction.masks


def test_closing_cancels_the_request(nano):
    gone = threading.Event()

    def pieces():
        try:
            while True:
                yield {"content": "x"}
        finally:
            gone.set()

    with serving(lambda request: in_pieces(pieces())) as server:
        states = served(nano, server).ask(Image.new("RGB", (64, 64)), "the vase")
        while not next(states).text:
            pass
        states.close()
        assert gone.wait(60)


@pytest.mark.parametrize("refusal", [(400, {}, {"error": {"message": "streaming is off"}}), (200, {}, b"")])
def test_a_server_that_refuses_pieces_is_asked_for_one(nano, refusal, caplog):
    image = Image.new("RGB", (64, 64))
    with serving(lambda request: refusal if request.get("stream") else said(ANSWER)) as server:
        model = served(nano, server)
        check(list(model.ask(image, "the vase")), model, image, "the vase")
        check(list(model.ask(image, "the cup")), model, image, "the cup")
    assert [bool(request.get("stream")) for request in server.requests] == [True, False, False, False, False]
    assert sum("refuses to answer in pieces" in record.message for record in caplog.records) == 1


def test_a_fault_of_the_server_is_told_as_by_segment(nano):
    image, texts = Image.new("RGB", (64, 64)), []
    with serving(lambda request: (400, {}, {"error": {"message": "the context length is 8"}})) as server:
        model = served(nano, server)
        for run in (lambda: list(model.ask(image, "it")), lambda: model.segment(image, "it")):
            with pytest.raises(ReasonerError) as caught:
                run()
            texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert [bool(request.get("stream")) for request in server.requests] == [True, False, False]


def test_the_states_of_a_thinking_model_begin_with_the_thought(nano):
    with serving(lambda request: in_pieces([{"content": "I see"}, {"content": f" it.</think>{ANSWER}"}])) as server:
        model = served(nano, server)
        model.reasoner.limit_answers(64, thinks=True)
        states = list(model.ask(Image.new("RGB", (64, 64)), "it"))
    assert states[-1].reasoning == "I see it."
    assert states[-1].prediction.masks
