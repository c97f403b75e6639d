"""vLLM in this process, simulated: the answers of Transformers, each prompt by itself, and an engine that dies."""

import pytest
import torch
from genseg_hub import GenSegR1, checkpoints
from genseg_hub.errors import CheckpointError, EngineDiedError
from genseg_hub.options import ReasonerOptions
from genseg_hub.reasoners import vllm as ours
from genseg_hub.reasoners.base import Prompt, Sampling
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_training.nano.refscenes import refscenes
from PIL import Image

from tests.helpers import vllm_installed as vllm
from tests.helpers.reasoners import ask


@pytest.fixture
def installed():
    with vllm.installed() as module:
        yield module


@pytest.fixture
def model(installed) -> GenSegR1:
    return GenSegR1.from_pretrained("nano", device="cpu", backend="vllm")


@pytest.fixture(scope="module")
def examples():
    return list(refscenes("val", 6))


@pytest.fixture
def questions(nano, examples):
    images = [Image.fromarray(example.image) for example in examples]
    return [
        Prompt(image, nano.dialect.messages(image.size, example.expression))
        for image, example in zip(images, examples, strict=True)
    ]


def test_the_answers_are_the_answers_of_transformers(model, nano, questions, examples):
    theirs = TransformersReasoner(nano.reasoner.model, nano.reasoner.processor, nano.reasoner.max_new_tokens)
    expected = ask(theirs, questions, 6)
    found = ask(model.reasoner, questions, 4)
    assert [(one.text, one.truncated) for one in found] == [(one.text, one.truncated) for one in expected]
    assert model.reasoner._llm.llm_engine.most == 4, "the open prompts are together"
    for one, other in zip(model.segment_many(examples, 3), nano.segment_many(examples, 3), strict=True):
        assert one.response == other.response
        assert [mask.sum() for mask in one.masks] == pytest.approx([mask.sum() for mask in other.masks], abs=2)


def test_the_engine_is_told_what_the_checkpoint_needs(model, installed):
    (made,) = installed.LLM.made
    assert made["model"] == str(checkpoints.pull("nano").reasoner.resolve())
    expected = {"load_format": "safetensors", "trust_remote_code": False, "dtype": "float32", "enforce_eager": True}
    assert made.items() >= expected.items()
    assert made["limit_mm_per_prompt"] == {"image": 1, "video": 0}
    assert made["mm_processor_kwargs"] is None


def test_limits_of_the_image_reach_the_processor(installed):
    GenSegR1.from_pretrained("nano", device="cpu", backend="vllm", max_pixels=4096)
    assert installed.LLM.made[0]["mm_processor_kwargs"]["max_pixels"] == 4096


def test_a_prompt_that_is_refused_fails_alone(model, questions):
    reasoner = model.reasoner
    reasoner._llm.longest = max(len(text) for text in _tokens(reasoner, questions)) - 1
    answers = ask(reasoner, questions, 6)
    refused = [isinstance(answer, ValueError) for answer in answers]
    assert 0 < sum(refused) < len(questions)


def _tokens(reasoner, questions):
    texts = [
        reasoner.processor.apply_chat_template(q.chat, tokenize=False, add_generation_prompt=True) for q in questions
    ]
    return reasoner.processor.tokenizer(texts)["input_ids"]


def test_an_answer_that_is_cut_is_known_to_be(installed, questions):
    short = GenSegR1.from_pretrained("nano", device="cpu", backend="vllm", max_new_tokens=3)
    (answer,) = ask(short.reasoner, questions[:1])
    assert answer.truncated


def test_answers_can_be_sampled(model, questions):
    assert isinstance(model.reasoner, Sampling)
    greedy = ask(model.reasoner, questions[:1])[0].text
    model.reasoner.temperature = 3.0
    torch.manual_seed(0)
    assert len({ask(model.reasoner, questions[:1])[0].text for _ in range(3)} - {greedy}) > 1


def test_a_streamed_answer_is_whole_and_a_closed_stream_asks_no_more(model, questions):
    *states, answer = model.reasoner.stream(questions[0])
    assert states
    assert answer == ask(model.reasoner, questions[:1])[0]
    stream = model.reasoner.stream(questions[1])
    next(stream)
    stream.close()
    assert not model.reasoner._llm.llm_engine.open


def test_a_session_that_is_given_up_asks_no_more(model, questions):
    session = model.reasoner.session(4)
    session.ask(questions[:4])
    session.advance()
    assert len(model.reasoner._llm.llm_engine.open) == 3
    del session
    assert not model.reasoner._llm.llm_engine.open


def test_an_engine_that_dies_ends_the_run(model, examples):
    model.reasoner._llm.llm_engine.dead = True
    with pytest.raises(EngineDiedError, match="EngineCore encountered an issue"):
        list(model.segment_many(examples, 2))


def test_what_vllm_cannot_do_is_told_with_the_remedy(installed, monkeypatch):
    with pytest.raises(ValueError, match="device_map belong to Transformers; leave them out"):
        ReasonerOptions(backend="vllm", device_map="auto")
    with pytest.raises(ValueError, match="there is no backend 'tgi'"):
        ReasonerOptions(backend="tgi")
    monkeypatch.setattr("vllm.platforms.current_platform.device_type", "cuda")
    with pytest.raises(CheckpointError, match="computes on cuda and not on cpu"):
        GenSegR1.from_pretrained("nano", device="cpu", backend="vllm")
    monkeypatch.undo()


def test_a_checkpoint_that_vllm_cannot_load_is_told_with_the_remedy(installed, monkeypatch):
    monkeypatch.setenv("SIMULATED_VLLM", "dies")
    with pytest.raises(CheckpointError, match=r"cannot load nano: Engine core.*take the backend transformers instead"):
        GenSegR1.from_pretrained("nano", device="cpu", backend="vllm")


def test_without_vllm_the_error_says_how_to_get_it():
    assert ours.version_for(["Qwen3VLForConditionalGeneration"]) is None
    with pytest.raises(CheckpointError, match='vLLM is not installed here: pip install "vllm>='):
        GenSegR1.from_pretrained("nano", device="cpu", backend="vllm")


def test_the_version_is_told_for_models_that_vllm_knows(installed):
    assert ours.version_for(["Qwen3VLForConditionalGeneration"]) == installed.__version__
    assert ours.version_for(["Sam3Model"]) is None
