"""Every family of the installed Transformers: continuous batching where it equals `generate`, else `generate`."""

import importlib
import inspect
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from genseg_hub import GenSegR1, Prediction, ReferringExample
from genseg_hub.options import THINKING_TOKENS, ReasonerOptions
from genseg_hub.reasoners import loading
from genseg_hub.reasoners.base import Prompt
from genseg_hub.reasoners.compared import COMPARED
from genseg_hub.reasoners.continuous_batching import ContinuousReasoner
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_hub.schema import ResponseError
from PIL import Image
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from tests.helpers.archive_files import PHOTOS
from tests.helpers.families import make_config, make_tokenizer, save_family
from tests.helpers.family_shapes import FAMILIES
from tests.helpers.reasoners import ask

POSITIONS = "get_rope_index"
# Classes whose configuration `AutoModelForImageTextToText` refuses: one makes images, the others speak.
REFUSED = {
    *("GlmImageModel", "Qwen2_5OmniTalkerForConditionalGeneration", "Qwen3OmniMoeTalkerForConditionalGeneration"),
}
DEPRECATED_NAMES = {"Ernie4_5_VL_MoeModel": "Ernie4_5_VLMoeModel"}
WINDOWS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4}
# model_type, options of the text model, and the reason that the log gives
_LEFT_TO_GENERATE = [
    *((kind, {}, "linear_attention") for kind in ("minicpmv4_7", "qwen3_5", "qwen3_5_moe", "qwen4_exp")),
    ("hy_v4_vl", {}, "indexed_attention"),
    ("cohere_compass", WINDOWS, "sliding_attention"),
    ("qwen2_5_vl", {**WINDOWS, "use_sliding_window": True}, "sliding_attention"),
    *((kind, {}, "not compared") for kind in ("ernie4_5_vl_moe", "hunyuan_vl")),
    *((kind, {}, "not compared") for kind in ("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker")),
]
LEFT_TO_GENERATE = [case for case in _LEFT_TO_GENERATE if case[0] in FAMILIES]


@pytest.fixture(autouse=True)
def _nothing_was_told():
    loading._tell_generate.cache_clear()


@pytest.fixture(scope="module")
def with_positions() -> dict[str, type]:
    """Return the classes of the installed Transformers that have `get_rope_index`, by name."""
    found = {}
    for file in (Path(transformers.__file__).parent / "models").glob("*/modeling_*.py"):
        if POSITIONS in file.read_text():
            module = importlib.import_module(f"transformers.models.{file.parent.name}.{file.stem}")
            its = inspect.getmembers(module, lambda it, name=module.__name__: getattr(it, "__module__", "") == name)
            found |= {name: it for name, it in its if inspect.isclass(it) and hasattr(it, POSITIONS)}
    return found


def test_every_type_with_positions_of_its_own_is_decided_about(with_positions):
    modules = {inspect.getmodule(kind) for kind in with_positions.values()}
    types = {
        kind
        for kind, model in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.items()
        if any(hasattr(module, model) for module in modules)
    }
    left = {kind for kind, text, _ in LEFT_TO_GENERATE if not text}
    assert types == {*FAMILIES}, "build the new type at tiny size, and compare it or leave it to generate"
    assert types == COMPARED | left
    assert not COMPARED & left


def test_every_class_with_positions_of_its_own_is_built_or_out_of_reach(with_positions):
    built: set[type] = set()
    for model_type, family in FAMILIES.items():
        config = make_config(model_type, family, make_tokenizer(family))
        with torch.device("meta"):
            model = transformers.AutoModelForImageTextToText.from_config(config)
        built |= {type(part) for part in model.modules()}
    missing = {name: kind for name, kind in with_positions.items() if not any(issubclass(it, kind) for it in built)}
    assert missing.keys() == REFUSED | DEPRECATED_NAMES.keys()
    for name in REFUSED:
        with pytest.raises(ValueError, match="Unrecognized configuration class"):
            transformers.AutoModelForImageTextToText.from_config(missing[name].config_class())
    for name, new in DEPRECATED_NAMES.items():
        assert missing[name].__base__ is with_positions[new] in built
        assert not {"forward", POSITIONS} & vars(missing[name]).keys()


def prompts(model: GenSegR1) -> list[Prompt]:
    """Return eight prompts about three images of several sizes."""
    asked, noise = [], np.random.default_rng(0)
    for number, (width, height) in enumerate(((96, 64), (64, 128), (112, 112))):
        image = Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for words in ("a", "the vase on the left", "every cup that stands behind the laptop")[: 2 + number % 2]:
            asked.append(Prompt(image, model.dialect.messages(image.size, words), number))
    return [*asked, Prompt(asked[0].image, asked[1].chat, 0)]


@pytest.mark.parametrize("model_type", sorted(COMPARED))
def test_the_texts_are_the_texts_of_generate(model_type, tmp_path):
    model = GenSegR1.from_pretrained(str(save_family(tmp_path / model_type, model_type)), device="cpu")
    reasoner = model.reasoner
    assert isinstance(reasoner, ContinuousReasoner)
    parts = reasoner.model, reasoner.processor, 8
    asked = prompts(model)
    for penalty, batch_sizes in ((1.0, (1, 3, 8)), (1.2, (3,))):
        reasoner.model.generation_config.repetition_penalty = penalty
        expected = ask(TransformersReasoner(*parts), asked, 1)
        assert len({answer.text for answer in expected}) > 1
        for batch_size in batch_sizes:
            warm = ContinuousReasoner(*parts)
            assert ask(warm, asked, batch_size) == expected
        assert ask(warm, asked[::-1], 3) == expected[::-1], "with the kept prefixes"


def generate(model, processor, batch: list[Prompt]) -> list[str]:
    """Return the texts of Transformers' own `generate`, without any of this package's code."""
    texts = [processor.apply_chat_template(it.chat, tokenize=False, add_generation_prompt=True) for it in batch]
    inputs = processor(text=texts, images=[it.image for it in batch], padding=True, return_tensors="pt")
    tokens = model.generate(**inputs, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    return processor.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize(("model_type", "text", "reason"), LEFT_TO_GENERATE)
def test_the_others_are_left_to_generate_and_the_log_says_so_once(model_type, text, reason, tmp_path, caplog):
    folder = save_family(tmp_path / model_type, model_type, text=text)
    with caplog.at_level(logging.WARNING, "genseg_hub"):
        GenSegR1.from_pretrained(str(folder), device="cpu")
        model = GenSegR1.from_pretrained(str(folder), device="cpu")
    (told,) = [record.message for record in caplog.records if "generate" in record.message]
    assert told.startswith(f"{model_type} answers with Transformers' generate, because continuous batching ")
    assert reason in told
    reasoner, asked = model.reasoner, prompts(model)[:5]
    assert isinstance(reasoner, TransformersReasoner)
    for batch_size in (1, 3):
        batches = [asked[start : start + batch_size] for start in range(0, len(asked), batch_size)]
        expected = [text for batch in batches for text in generate(reasoner.model, reasoner.processor, batch)]
        assert len({*expected}) > 1
        assert [answer.text for answer in ask(reasoner, asked, batch_size)] == [reasoner.begin + it for it in expected]


@pytest.mark.parametrize("model_type", ["qwen3_5", "qwen3_5_moe"])
def test_a_thought_that_is_cut_is_no_answer(model_type, tmp_path):
    model = GenSegR1.from_pretrained(str(save_family(tmp_path / model_type, model_type)), device="cpu")
    photo = PHOTOS / "images" / "000000000030.jpg"
    results = list(model.segment_many([ReferringExample(photo, words) for words in ("the vase", "a cup")], 2))
    assert all(isinstance(result, Prediction) for result in results)
    assert {result.response.error for result in results} == {ResponseError.TRUNCATED_THOUGHT}, "8 tokens, in a thought"
    assert all(result.response.reasoning and not result.masks for result in results)


@pytest.mark.parametrize(("model_type", "thinks"), [("qwen3_vl", False), ("qwen3_5", True)])
def test_the_limit_of_a_thinking_checkpoint_has_room(model_type, thinks, tmp_path):
    folder = save_family(tmp_path / model_type, model_type)
    settings = transformers.GenerationConfig.from_pretrained(folder)
    settings.max_new_tokens = None
    settings.save_pretrained(folder)
    model = GenSegR1.from_pretrained(str(folder), device="cpu")
    assert model.reasoner.max_new_tokens == (THINKING_TOKENS if thinks else model.dialect.MAX_NEW_TOKENS)
    short = GenSegR1.from_pretrained(str(folder), device="cpu", max_new_tokens=3)
    assert short.reasoner.max_new_tokens == 3
    assert short.options == ReasonerOptions(max_new_tokens=3, dtype="float32")
