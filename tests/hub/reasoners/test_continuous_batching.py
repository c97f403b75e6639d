"""Continuous batching: the answers are the answers of `generate`, even beside rows that end, begin or fail."""

import numpy as np
import pytest
import torch
import transformers
from genseg_hub import GenSegR1, Prediction, ReferringExample, dialects
from genseg_hub.reasoners.base import Prompt
from genseg_hub.reasoners.compared import obstacle
from genseg_hub.reasoners.continuous_batching import ContinuousReasoner
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_training.nano.refscenes import refscenes
from PIL import Image

from tests.helpers.families import save_qwen2_5_vl
from tests.helpers.reasoners import ask


@pytest.fixture(scope="module")
def examples():
    """Make eight scenes of several sizes, with one to four expressions each."""
    found = list(refscenes("val", 32))
    return [example for i, example in enumerate(found) if i % 4 <= i // 4 % 4]


@pytest.fixture(scope="module")
def questions(nano, examples):
    images = {example.image_id: Image.fromarray(example.image) for example in examples}
    return [
        Prompt(images[e.image_id], nano.dialect.messages(images[e.image_id].size, e.expression), e.image_id)
        for e in examples
    ]


@pytest.fixture(scope="module")
def simple(nano) -> TransformersReasoner:
    return TransformersReasoner(nano.reasoner.model, nano.reasoner.processor, nano.reasoner.max_new_tokens)


@pytest.fixture(scope="module")
def expected(simple, questions):
    return ask(simple, questions, 10)


def iou(a: Prediction, b: Prediction) -> float:
    union = (a.mask | b.mask).sum()
    return float((a.mask & b.mask).sum() / union) if union else 1.0


def test_nano_is_answered_continuously(nano):
    assert isinstance(nano.reasoner, ContinuousReasoner)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 40])
def test_the_answers_are_the_answers_of_generate(nano, questions, expected, batch_size):
    assert ask(nano.reasoner, questions, batch_size) == expected


def test_the_masks_are_the_masks_of_generate_one_by_one(nano, simple, examples):
    plain = GenSegR1(simple, nano.segmenter, nano.dialect)
    one_by_one = [plain.segment(example.image, example.expression) for example in examples]
    together = list(nano.segment_many(examples, 7))
    assert min(iou(a, b) for a, b in zip(one_by_one, together, strict=True)) > 0.999
    assert any(prediction.masks for prediction in together)


def test_an_image_is_looked_at_once_for_all_its_expressions(nano, questions, monkeypatch):
    seen = []
    visual = nano.reasoner.model.model.visual
    forward = visual.forward
    monkeypatch.setattr(
        visual,
        "forward",
        lambda *a, grid_thw, **k: (seen.append(len(grid_thw)), forward(*a, grid_thw=grid_thw, **k))[1],
    )
    ask(nano.reasoner, questions, len(questions))
    assert sum(seen) == len({question.image_key for question in questions}) == 8


def test_a_row_that_ends_makes_room_for_the_next(nano, questions, expected):
    """Count fewer steps than batches need, which run until their longest answer ends."""
    lengths = [len(nano.reasoner.processor.tokenizer(answer.text)["input_ids"]) for answer in expected]
    batches = sum(max(lengths[start : start + 4]) for start in range(0, len(lengths), 4))
    session, steps, waiting, answered = nano.reasoner.session(4), 0, list(questions), 0
    while answered < len(questions):
        new, waiting = waiting[: session.room()], waiting[session.room() :]
        if new:
            session.ask(new)
        answered += len(session.advance())
        steps += 1
    assert steps < 0.9 * batches


def test_answers_end_at_the_limit(nano, questions, simple):
    short = ContinuousReasoner(nano.reasoner.model, nano.reasoner.processor, 5)
    cut = TransformersReasoner(nano.reasoner.model, nano.reasoner.processor, 5)
    answers = ask(short, questions[:6], 4)
    assert answers == ask(cut, questions[:6], 4)
    assert all(answer.truncated for answer in answers)
    (one,) = ask(ContinuousReasoner(nano.reasoner.model, nano.reasoner.processor, 1), questions[:1])
    assert one.truncated


def test_a_repetition_penalty_is_honoured(nano, questions, monkeypatch):
    settings = transformers.GenerationConfig(**nano.reasoner.model.generation_config.to_diff_dict())
    settings.repetition_penalty = 1.3
    monkeypatch.setattr(nano.reasoner.model, "generation_config", settings)
    parts = nano.reasoner.model, nano.reasoner.processor, 40
    penalised = ask(ContinuousReasoner(*parts), questions[:6], 3)
    assert penalised == ask(TransformersReasoner(*parts), questions[:6], 1)
    assert penalised != ask(nano.reasoner, questions[:6], 3)


def test_unknown_generation_settings_are_left_to_generate(nano, monkeypatch):
    model = nano.reasoner.model
    assert not obstacle(model)
    settings = transformers.GenerationConfig(**model.generation_config.to_diff_dict(), no_repeat_ngram_size=3)
    monkeypatch.setattr(model, "generation_config", settings)
    assert obstacle(model) == "continuous batching does not obey its generation settings no_repeat_ngram_size"


@pytest.mark.parametrize("dialect", ["seg_zero", "vision_reasoner"])
def test_qwen2_5_vl_gives_the_same_answers(tmp_path, examples, dialect):
    model = GenSegR1.from_pretrained(str(save_qwen2_5_vl(tmp_path, dialect)), device="cpu")
    assert isinstance(model.reasoner, ContinuousReasoner)
    image = Image.fromarray(examples[0].image)
    speak = dialects.get_dialect(dialect)
    asked = [Prompt(image, speak.messages(image.size, words), "one") for words in ("a star", "all of the red ones")]
    asked.append(Prompt(image.resize((60, 90)), speak.messages((60, 90), "a star")))
    simple = TransformersReasoner(model.reasoner.model, model.reasoner.processor, model.reasoner.max_new_tokens)
    assert ask(model.reasoner, asked, 3) == ask(simple, asked, 1)


def test_a_step_that_fails_goes_on_with_half_the_rows(nano, questions, expected, monkeypatch):
    step, most = nano.reasoner.step, 5

    def limited(rows):
        if len(rows.prompts) > most:
            raise torch.OutOfMemoryError("simulated")
        step(rows)

    monkeypatch.setattr(nano.reasoner, "step", limited)
    assert ask(nano.reasoner, questions, 16) == expected


def test_rows_that_cannot_be_joined_go_on_with_fewer(nano, questions, expected, monkeypatch):
    join, most = nano.reasoner.join, 3

    def limited(parts):
        if sum(len(keep) for _, keep in parts) > most:
            raise torch.OutOfMemoryError("simulated")
        return join(parts)

    monkeypatch.setattr(nano.reasoner, "join", limited)
    assert ask(nano.reasoner, questions, 16) == expected


def test_a_row_that_cannot_be_kept_is_an_answer(nano, questions, monkeypatch):
    def full(parts):
        raise torch.OutOfMemoryError("simulated")

    monkeypatch.setattr(nano.reasoner, "join", full)
    assert {str(answer) for answer in ask(nano.reasoner, questions[:5], 4)} == {"simulated"}


def test_an_error_is_the_answer_of_its_own_prompt_only(nano, questions, expected, monkeypatch):
    prefill, step, poison = nano.reasoner.prefill, nano.reasoner.step, questions[4]

    def failing(asked):
        if poison in asked:
            raise ValueError("poison")
        return prefill(asked)

    monkeypatch.setattr(nano.reasoner, "prefill", failing)
    answers = ask(nano.reasoner, questions, 8)
    assert str(answers[4]) == "poison"
    assert answers[:4] + answers[5:] == expected[:4] + expected[5:]
    monkeypatch.setattr(nano.reasoner, "prefill", prefill)

    def stumbling(rows):
        if poison in rows.prompts:
            raise RuntimeError("while decoding")
        step(rows)

    monkeypatch.setattr(nano.reasoner, "step", stumbling)
    answers = ask(nano.reasoner, questions, 8)
    assert str(answers[4]) == "while decoding"
    assert answers[:4] + answers[5:] == expected[:4] + expected[5:]


def test_a_long_answer_does_not_make_the_stream_read_everything(nano, examples):
    taken = []

    def stream():
        for example in examples:
            taken.append(1)
            yield ReferringExample(np.array(example.image), example.expression)

    read = 0
    for given, _ in enumerate(nano.segment_many(stream(), 2), 1):
        read = max(read, len(taken) - given)
    assert len(taken) == len(examples)
    assert read <= 8
