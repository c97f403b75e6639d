"""Packing many queries behind one image changes nothing but the speed."""

import random

import pytest
import torch
import transformers
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.dialects import genseg
from genseg_training.nano import answers, architecture, sft
from genseg_training.nano.expressions import refer
from genseg_training.nano.scenes import scene
from PIL import Image


@pytest.fixture(scope="module")
def packer():
    processor = transformers.AutoProcessor.from_pretrained(EMBEDDED["nano"])
    model = architecture.build_reasoner(processor.tokenizer).eval()
    transformers.AttentionInterface.register("packed", sft.packed_attention)
    return sft.Packer(processor, model)


def test_a_packed_query_gets_the_logits_it_would_get_alone(packer):
    rng = random.Random(0)
    drawn = [scene(rng, canvas=(320, 240)) for _ in range(2)]
    asked = [[refer(rng, s) for _ in range(3)] for s in drawn]
    said = [[answers.answer(q, s, thinks=n != 1) for n, q in enumerate(qs)] for s, qs in zip(drawn, asked, strict=True)]
    batch = packer.pack(drawn, asked, said)
    model = packer.model
    model.set_attn_implementation("packed")
    with torch.no_grad():
        packed = model(
            input_ids=batch["input_ids"],
            position_ids=batch["position_ids"],
            attention_mask=torch.zeros(batch["sees"].shape).masked_fill_(~batch["sees"], -1e4),
            pixel_values=batch["pixel_values"],
            image_grid_thw=batch["image_grid_thw"],
            mm_token_type_ids=(batch["input_ids"] == model.config.image_token_id).int(),
        ).logits
    model.set_attn_implementation("sdpa")
    for row, (s, queries, texts) in enumerate(zip(drawn, asked, said, strict=True)):
        mine = batch["labels"][row] != -100
        start = 0
        for query, answered in zip(queries, texts, strict=True):
            chat = genseg.messages(s.size, query.expression)
            text = packer.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            whole = answered + "<|im_end|>"
            inputs = packer.processor(text=[text + whole], images=[Image.fromarray(s.image)], return_tensors="pt")
            with torch.no_grad():
                alone = model(**inputs).logits[0]
            length = len(packer.ids(whole))
            where = mine.nonzero()[start : start + length, 0]
            start += length
            assert batch["labels"][row, where].tolist() == inputs["input_ids"][0, -length:].tolist()
            torch.testing.assert_close(packed[row, where], alone[-length:], atol=2e-3, rtol=1e-3)


def test_the_soft_label_of_a_coordinate_prefers_its_neighbours(packer):
    numbers = architecture.number_tokens(packer.tokenizer)
    size = len(packer.tokenizer)

    def loss(predicted: int) -> float:
        logits = torch.zeros(1, size)
        logits[0, numbers[0][predicted - architecture.FIRST_NUMBER]] = 10
        label = numbers[0][500 - architecture.FIRST_NUMBER][None]
        return sft.answer_loss(logits, label, torch.ones(1), numbers, sigma=8).item()

    assert loss(500) < loss(505) < loss(520) < loss(900)


def test_only_the_chosen_kinds_are_asked_and_scenes_without_them_are_replaced():
    rng = random.Random(2)
    drawn = [scene(rng, count=1, canvas=(240, 320), allow_held_out=False) for _ in range(4)]
    scenes, asked = sft.ask(rng, drawn, 3, sft.weights_of(["relation", "ordinal"]))
    assert {query.kind for queries in asked for query in queries} <= {"relation", "ordinal"}
    assert [len(queries) for queries in asked] == [3, 3, 3, 3]
    assert {s.size for s in scenes} == {(240, 320)}
    assert all(any(t is shape for shape in s.shapes) for s, qs in zip(scenes, asked, strict=True) for q in qs
               for t in q.targets)  # fmt: skip


@pytest.mark.parametrize("kinds", [[], ["attribute", "colour"]])
def test_an_unknown_kind_of_expression_is_refused(kinds):
    with pytest.raises(ValueError, match="choose from attribute, relation"):
        sft.weights_of(kinds)
