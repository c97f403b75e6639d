"""Held-out answers by the training's vLLM, which is simulated: greedy, once per weights, and only where it can be."""

from types import SimpleNamespace

import pytest
import torch
from genseg_hub.dialects import genseg
from genseg_hub.evaluation import scores
from genseg_hub.pipeline import GenSegR1
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_training import vllm_reasoner
from genseg_training.nano.refscenes import refscenes
from genseg_training.trainer import SegmentationGRPOTrainer
from genseg_training.vllm_prompts import correct
from genseg_training.vllm_reasoner import VllmReasoner
from trl.generation.vllm_generation import VLLMGeneration

COLOCATED = {
    "use_vllm": True,
    "vllm_mode": "colocate",
    "vllm_tensor_parallel_size": 1,
    "vllm_enable_sleep_mode": False,
}


class SimulatedVllm:
    """TRL's `VLLMGeneration` with Transformers behind it: it takes token ids and images, and returns token ids.

    It expands each image token, as vLLM does.
    """

    def __init__(self, model, processor, limit=400):
        self.model, self.processor, self.limit, self.synced, self.seen = model, processor, limit, 0, []
        self.temperature, self.top_p, self.top_k, self.min_p, self.repetition_penalty = 1.0, 0.9, 5, 0.1, 1.2

    def sync_weights(self):
        self.synced += 1

    def generate(self, prompts, images, num_generations, profiler=None):
        self.seen.append((len(prompts), self.temperature, self.top_p, self.top_k, self.min_p, self.repetition_penalty))
        answers, expanded = [], []
        for ids, (image,) in zip(prompts, images, strict=True):
            pixels = self.processor.image_processor(images=[image], return_tensors="pt")
            image_token = self.model.config.image_token_id
            count = int(pixels["image_grid_thw"].prod()) // self.processor.image_processor.merge_size**2
            ids = [part for token in ids for part in [token] * (count if token == image_token else 1)]
            expanded.append(ids)
            inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == image_token).int()
            said = self.model.generate(**inputs, **pixels, max_new_tokens=self.limit, do_sample=False)
            answers.append(said[0, len(ids) :].tolist())
        return expanded, answers, [], []


@pytest.fixture
def simulated(nano):
    vllm = SimulatedVllm(nano.reasoner.model, nano.reasoner.processor)
    correct(vllm, nano.reasoner.processor)
    return vllm


def test_what_is_simulated_is_what_trl_has():
    names = VLLMGeneration.__init__.__code__.co_varnames
    assert {*vllm_reasoner._GREEDY} <= set(names)
    assert VLLMGeneration.generate.__code__.co_varnames[1:4] == ("prompts", "images", "num_generations")


def test_it_answers_as_transformers_does(nano, simulated):
    model, processor = nano.reasoner.model, nano.reasoner.processor
    ours = VllmReasoner(simulated, model, processor, False)
    theirs = TransformersReasoner(model, processor, simulated.limit)
    one, other = (
        scores.evaluate(GenSegR1(its, nano.segmenter, genseg), refscenes("val", 5), 4).compute()
        for its in (ours, theirs)
    )
    assert one | {"cost": None} == other | {"cost": None}
    assert one["cost"]["tokens"] == other["cost"]["tokens"] > 0
    assert sum(count for count, *_ in simulated.seen) == 5
    assert {tuple(rest) for _, *rest in simulated.seen} == {(0.0, 1.0, -1, None, 1.0)}, "greedy"
    assert (simulated.temperature, simulated.top_p, simulated.top_k) == (1.0, 0.9, 5), "as the training samples"


def test_an_answer_that_is_cut_is_known_to_be(nano, simulated):
    simulated.limit = 2
    reasoner = VllmReasoner(simulated, nano.reasoner.model, nano.reasoner.processor, True)
    session = reasoner.session(2)
    examples = list(refscenes("val", 1))
    (prompt, _), *_ = prompts_of(nano, examples)
    session.ask([prompt])
    ((_, generation),) = session.advance()
    assert generation.truncated
    assert generation.text.startswith("<think>")
    assert session.room() == 2


def prompts_of(nano, examples):
    """Return the prompts that the pipeline makes of examples, with the examples."""
    from genseg_hub.reasoners.base import Prompt
    from PIL import Image

    for example in examples:
        image = Image.fromarray(example.image)
        yield Prompt(image, genseg.messages(image.size, example.expression)), example


@pytest.mark.parametrize(
    ("more", "usable"),
    [
        ({}, True),
        ({"use_vllm": False}, False),
        ({"vllm_mode": "server"}, False),
        ({"vllm_tensor_parallel_size": 2}, False),
        ({"vllm_enable_sleep_mode": True}, False),
    ],
)
def test_it_is_used_where_processes_need_not_ask_together(more, usable):
    assert vllm_reasoner.usable(SimpleNamespace(**COLOCATED | more)) == usable


def test_the_trainer_gives_vllm_the_weights_of_the_step_once(nano, simulated):
    trainer = SimpleNamespace(
        args=SimpleNamespace(**COLOCATED),
        state=SimpleNamespace(global_step=3),
        _last_loaded_step=-1,
        vllm_generation=simulated,
        processing_class=nano.reasoner.processor,
    )
    for _ in range(2):
        reasoner = SegmentationGRPOTrainer._reasoner(trainer, nano.reasoner.model)
        assert isinstance(reasoner, VllmReasoner)
    assert (simulated.synced, trainer._last_loaded_step) == (1, 3)
