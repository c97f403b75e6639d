"""Every family of the installed Transformers: continuous batching where it equals `generate`, else `generate`."""

import inspect

import pytest
import transformers
from genseg_hub import GenSegR1, Prediction, ReferringExample
from genseg_hub.options import THINKING_TOKENS, ReasonerOptions
from genseg_hub.reasoners.base import Prompt
from genseg_hub.reasoners.continuous_batching import COMPARED, ContinuousReasoner
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_hub.schema import ResponseError
from PIL import Image
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from tests.helpers.archive_files import PHOTOS
from tests.helpers.families import FAMILIES, save_family
from tests.helpers.reasoners import ask

# Types with positions of their own that `generate` answers: other layers than full attention, or never compared.
LEFT_TO_GENERATE = {
    *("qwen3_5", "qwen3_5_moe", "qwen4_exp"),  # linear attention
    *("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker", "cosmos3_edge", "cosmos3_omni", "cohere_compass"),
    *("ernie4_5_vl_moe", "glm_ocr", "glmga", "hunyuan_vl", "hy_v4_vl", "minicpmv4_7", "paddleocr_vl"),
}


def own_positions() -> set[str]:
    """Return the types of the installed Transformers whose model has `get_rope_index`."""
    found = set()
    for config, model in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.items():
        if "def get_rope_index" in inspect.getsource(inspect.getmodule(model)):
            found.add(config.model_type)
    return found


def test_every_type_with_positions_of_its_own_is_decided_about():
    known = {*COMPARED, *LEFT_TO_GENERATE}
    assert own_positions() <= known, "compare the new type, or leave it to generate"
    assert {*COMPARED} <= {*FAMILIES}
    assert not {*COMPARED} & LEFT_TO_GENERATE


def prompts(model: GenSegR1) -> list[Prompt]:
    """Return eight prompts about three images of several sizes."""
    asked = []
    for number, size in enumerate(((96, 64), (64, 128), (112, 112))):
        image = Image.effect_noise(size, 80).convert("RGB")
        for words in ("a", "the vase on the left", "every cup that stands behind the laptop")[: 2 + number % 2]:
            asked.append(Prompt(image, model.dialect.messages(image.size, words), number))
    return [*asked, Prompt(asked[0].image, asked[1].chat, 0)]


@pytest.mark.parametrize("model_type", sorted(COMPARED))
def test_the_texts_are_the_texts_of_generate(model_type, tmp_path):
    model = GenSegR1.from_pretrained(str(save_family(tmp_path / model_type, model_type)), device="cpu")
    reasoner = model.reasoner
    assert isinstance(reasoner, ContinuousReasoner)
    parts = reasoner.model, reasoner.processor, 12
    asked = prompts(model)
    for penalty in (1.0, 1.2):
        reasoner.model.generation_config.repetition_penalty = penalty
        expected = ask(TransformersReasoner(*parts), asked, 1)
        assert len({answer.text for answer in expected}) > 1
        for batch_size in (1, 3, 8):
            assert ask(ContinuousReasoner(*parts), asked, batch_size) == expected


@pytest.mark.parametrize("model_type", sorted({*FAMILIES} - COMPARED))
def test_linear_attention_is_left_to_generate(model_type, tmp_path, caplog):
    folder = save_family(tmp_path / model_type, model_type)
    with caplog.at_level("WARNING", "genseg_hub"):
        model = GenSegR1.from_pretrained(str(folder), device="cpu")
    assert isinstance(model.reasoner, TransformersReasoner)
    (told,) = [record.message for record in caplog.records]
    assert told.startswith(f"{folder} ({model_type}) answers with Transformers' generate, because")
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
