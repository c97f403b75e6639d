"""Forecasts of memory: from the true configuration, before anything is loaded."""

import json
from dataclasses import replace

import pytest
import torch
import transformers
from genseg_hub import GenSegR1, ReferringExample, checkpoints, memory
from genseg_hub.errors import CheckpointError
from genseg_hub.options import ReasonerOptions
from PIL import Image

from tests.helpers.families import save_family

# Of Qwen/Qwen3-VL-8B-Instruct's config.json.
EIGHT_B = {"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_family(tmp_path_factory.mktemp("family") / "qwen3_vl", "qwen3_vl")


def test_keys_and_values_of_a_24_megapixel_photo_are_gigabytes():
    """16,224 image tokens are 2.4 GB for the 8B in bfloat16."""
    assert 16_224 * memory.token_bytes({"text_config": EIGHT_B}, 2) == pytest.approx(2.4e9, rel=0.01)
    hybrid = EIGHT_B | {"layer_types": ["linear_attention"] * 27 + ["full_attention"] * 9}
    assert memory.token_bytes({"text_config": hybrid}, 2) * 4 == memory.token_bytes(EIGHT_B, 2)
    for odd in ({"num_hidden_layers": "x"}, {"num_attention_heads": [1], "num_key_value_heads": None}):
        assert memory.token_bytes(EIGHT_B | odd, 2) == 0
    assert memory.token_bytes(EIGHT_B | {"num_hidden_layers": 10**11}, 2) == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_weights_are_those_of_the_loaded_model(saved, dtype):
    model = GenSegR1.from_pretrained(str(saved), device="cpu", dtype=dtype)
    loaded = sum(parameter.nbytes for parameter in model.reasoner.model.parameters())
    assert model.needed.weights == pytest.approx(loaded, rel=0.02)


def test_the_cache_is_that_of_the_architecture(saved):
    """The forecast of a token is what the cache of the true class takes for it."""
    model = GenSegR1.from_pretrained(str(saved), device="cpu")
    prompt = model.dialect.messages((64, 64), "it")
    processor = model.reasoner.processor
    text = processor.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=[Image.new("RGB", (64, 64))], return_tensors="pt")
    with torch.inference_mode():
        cache = model.reasoner.model(**inputs, use_cache=True).past_key_values
    taken = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    config = json.loads((saved / "config.json").read_text())
    assert taken == inputs["input_ids"].shape[1] * memory.token_bytes(config, 4)


def test_what_does_not_fit_is_refused_before_loading_with_what_would(saved, monkeypatch):
    checkpoint = checkpoints.pull(str(saved))
    needed = memory.Forecast(weights=17_500_000_000, row=400_000_000, batch_size=8, segmenter=3_000_000_000)
    with pytest.raises(CheckpointError) as error:
        memory.check(checkpoint, needed, ReasonerOptions(), 22_000_000_000, "cuda")
    assert "needs about 26.90 GB (weights 17.50 GB, 8 answers at once 6.40 GB, segmenter 3.00 GB)" in str(error.value)
    assert "cuda has 22.00 GB free. What would fit: a batch size of 1;" in str(error.value)
    assert "4-bit weights" in str(error.value)
    with pytest.raises(CheckpointError, match="the checkpoint Qwen/Qwen3-VL-4B-Instruct"):
        memory.check(checkpoint, replace(needed, batch_size=1), ReasonerOptions(), 16_000_000_000, "cuda")
    memory.check(checkpoint, needed, ReasonerOptions(), 27_000_000_000, "cuda")
    with pytest.raises(CheckpointError, match="a smaller segmenter") as error:  # a server would not help
        memory.check(checkpoint, needed, ReasonerOptions(), 2_000_000_000, "cuda")
    assert "server" not in str(error.value)

    def loads(*args, **kwargs):
        raise AssertionError("nothing may be loaded")

    monkeypatch.setattr(memory, "free_bytes", lambda target: 1_000_000)
    monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_pretrained", loads)
    with pytest.raises(CheckpointError, match=r"needs about .* and cpu has 1\.0 MB free"):
        GenSegR1.from_pretrained(str(saved), device="cpu")


def test_a_batch_that_does_not_fit_is_made_smaller(saved, monkeypatch, caplog):
    model = GenSegR1.from_pretrained(str(saved), device="cpu")
    monkeypatch.setattr(memory, "free_bytes", lambda target: 7 * model.needed.row)
    examples = [ReferringExample(Image.new("RGB", (64, 64)), "it")]
    assert len(list(model.segment_many(examples, 3))) == 1
    assert not caplog.records
    assert len(list(model.segment_many(examples, 8))) == 1
    assert [record.message for record in caplog.records] == [
        "3 answers at once instead of 8, because more do not fit into cpu"
    ]
    monkeypatch.setattr(memory, "free_bytes", lambda target: model.needed.row)
    with pytest.raises(CheckpointError, match=r"needs about .* and cpu has"):
        list(model.segment_many(examples, 8))


def test_quantized_weights_are_forecast_smaller(saved):
    checkpoint = checkpoints.pull(str(saved))
    whole, small = (
        memory.forecast(checkpoint, ReasonerOptions(quantization=bits), 2, 100, 1).weights for bits in (None, "4bit")
    )
    assert small < whole


def test_a_smaller_picture_needs_a_smaller_cache(saved):
    checkpoint = checkpoints.pull(str(saved))
    large, small = (
        memory.forecast(checkpoint, ReasonerOptions(max_pixels=pixels), 2, 100, 1).row for pixels in (None, 500_000)
    )
    assert small < 0.6 * large


def test_damaged_weights_are_named(saved, tmp_path):
    import shutil

    folder = shutil.copytree(saved, tmp_path / "damaged")
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be loaded"):
        memory.forecast(checkpoints.pull(str(folder)), ReasonerOptions(), 2, 100, 1)
