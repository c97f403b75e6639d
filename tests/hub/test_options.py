"""Options of loading: the same names everywhere, checked before any work."""

import json
import shutil

import pytest
import torch
import transformers
from genseg_hub import GenSegR1, checkpoints, dialects
from genseg_hub.checkpoints import fingerprint
from genseg_hub.errors import CheckpointError
from genseg_hub.options import HubOptions, ReasonerOptions, given, pick
from genseg_hub.reasoners.transformers import TransformersReasoner

from tests.helpers.families import save_family
from tests.helpers.hub_server import Repository


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_family(tmp_path_factory.mktemp("family") / "qwen3_vl", "qwen3_vl")


def load(folder, **options):
    return GenSegR1.from_pretrained(str(folder), device="cpu", **options)


def test_options_are_picked_laid_over_each_other_and_printed_without_the_token():
    stored = ReasonerOptions(max_pixels=100, dtype="float32")
    typed = pick(ReasonerOptions, {"dtype": "auto", "max_new_tokens": 5, "token": "x", "other": 1})
    assert typed.over(stored) == ReasonerOptions(max_new_tokens=5, max_pixels=100, dtype="auto")
    assert given(typed) == {"max_new_tokens": 5, "dtype": "auto"}
    assert "hf_" not in repr(HubOptions(token="hf_secret", cache_dir="/x"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_pixels": 0}, "max_pixels must be a whole number of at least 1, not 0"),
        ({"max_new_tokens": True}, "max_new_tokens must be a whole number"),
        ({"min_pixels": 9, "max_pixels": 4}, "min_pixels 9 is above max_pixels 4"),
        ({"dtype": "int4"}, "there is no dtype 'int4'; choose one of auto, bfloat16"),
        ({"attn_implementation": "me/kernel"}, "there is no attn_implementation 'me/kernel'"),
        ({"quantization": "3bit"}, "there is no quantization '3bit'; choose one of 4bit, 8bit"),
        ({"dialect": "latin"}, "there is no dialect 'latin'; choose one of"),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_any_work(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "nothing", **options)


def test_an_option_that_does_not_exist_or_does_not_fit_is_refused(saved):
    with pytest.raises(TypeError, match="there is no option 'max_tokens'"):
        load(saved, max_tokens=5)
    with pytest.raises(TypeError, match="concurrency belong to a server"):
        load(saved, concurrency=5)
    with pytest.raises(TypeError, match="dtype, quantization belong to a reasoner in this process"):
        load(saved, server="http://localhost:1/v1", dtype="bfloat16", quantization="4bit")


def test_what_the_author_found_right_counts_until_the_user_says_otherwise(saved, tmp_path):
    assert load(saved).reasoner.model.dtype == torch.float32
    assert load(saved, dtype="bfloat16").reasoner.model.dtype == torch.bfloat16
    assert load(saved, attn_implementation="eager").reasoner.model.config._attn_implementation == "eager"
    settings = json.loads((saved / "genseg.json").read_text())
    try:
        (saved / "genseg.json").write_text(json.dumps(settings | {"dtype": "int4"}))
        with pytest.raises(CheckpointError, match=r"genseg.json of .* has an impossible option: there is no dtype"):
            load(saved)
        (saved / "genseg.json").write_text(json.dumps({"segmenter": "segmenter"}))
        can = torch.cpu.get_capabilities()
        computes = can.get("avx512_bf16") or can.get("amx_bf16") or can.get("bf16")
        assert load(saved).reasoner.model.dtype == (torch.bfloat16 if computes else torch.float32)
    finally:
        (saved / "genseg.json").write_text(json.dumps(settings))


def test_nano_computes_in_float32(nano):
    assert nano.reasoner.model.dtype == torch.float32


def test_options_that_change_answers_are_in_the_fingerprint(saved):
    plain = fingerprint.identify(str(saved))
    options = ReasonerOptions(max_pixels=1000, dtype="bfloat16", device_map="auto")
    assert fingerprint.identify(str(saved), options=options) == plain | {"max_pixels": "1000", "dtype": "bfloat16"}
    assert fingerprint.identify(str(saved), options=ReasonerOptions(dialect="genseg"))["dialect"] == "genseg"


def test_a_type_without_a_dialect_is_refused_before_its_weights_are_fetched(hub, saved):
    config = json.loads((saved / "config.json").read_text()) | {"model_type": "smolvlm"}
    content = {"config.json": json.dumps(config).encode(), "model.safetensors": b"x" * 100}
    hub.repositories["me/other"] = repository = Repository(private=False)
    repository.commit("main", {name: hub.store(data) for name, data in content.items()}, "first")
    with pytest.raises(CheckpointError, match=r"me/other is of the type 'smolvlm', and no dialect is known.*--dialect"):
        checkpoints.pull("me/other", segmenter="nano")
    with pytest.raises(CheckpointError, match="no dialect is known"):
        checkpoints.plan("me/other")
    assert not [path for path in hub.sent if path.endswith("model.safetensors")]


# The kernel for 4 bits on CPUs needs wider layers than a tiny qwen3_5 has.
@pytest.mark.parametrize(("model_type", "bits"), [("qwen3_vl", "4bit"), ("qwen3_vl", "8bit"), ("qwen3_5", "8bit")])
def test_quantized_weights_answer(model_type, bits, tmp_path):
    pytest.importorskip("bitsandbytes")
    folder = save_family(tmp_path / model_type, model_type)
    model = load(folder, quantization=bits)
    assert model.reasoner.model.is_quantized
    result = model.segment(_picture(), "the vase")
    assert result.response.text
    stored = shutil.copytree(folder, tmp_path / "stored")
    model.reasoner.model.save_pretrained(stored)
    assert load(stored).segment(_picture(), "the vase").response.text  # in the dtype in which they were quantized
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(CheckpointError, match=r"quantized already \(fp8\); leave quantization='4bit' out"):
        load(folder, quantization="4bit")


def test_a_missing_package_is_named_with_its_command(saved, monkeypatch):
    def missing(*args, **kwargs):
        raise ImportError("Using `bitsandbytes` requires bitsandbytes")

    monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_pretrained", missing)
    with pytest.raises(CheckpointError, match=r'pip install "accelerate>=1.10" "bitsandbytes'):
        load(saved, quantization="4bit")


def test_weights_that_are_spread_answer_as_those_on_one_device(saved):
    """The disk stands for a second device: parts of the model are brought to the CPU when they compute."""
    one = load(saved)
    spread = {"model.visual": "cpu", "model.language_model": "disk", "lm_head": "disk"}
    model = load(saved, device_map=spread)
    assert isinstance(model.reasoner, TransformersReasoner), "continuous batching needs one device"
    picture = _picture()
    assert model.segment(picture, "the vase").response.text == one.segment(picture, "the vase").response.text
    everywhere = load(saved, device_map="auto")
    assert everywhere.segment(picture, "the vase").response.text == one.segment(picture, "the vase").response.text


@pytest.mark.parametrize(
    ("name", "dialect"),
    [
        ("me/seg_zero-7b-finetuned", "seg_zero"),
        ("me/VisionReasoner-3B", "vision_reasoner"),
        ("runs/Seg-R1", "seg_r1"),
        ("me/GenSeg-R1-7B", "qwen2_5_vl"),
        ("me/qwen-photos", "qwen2_5_vl"),
    ],
)
def test_a_qwen2_5_vl_takes_the_dialect_that_its_name_tells_and_says_so(name, dialect, tmp_path, caplog):
    folder = save_family(tmp_path / name, "qwen2_5_vl")
    model = load(folder)
    assert model.checkpoint.dialect == dialect
    assert model.dialect is dialects.get_dialect(dialect)
    (told,) = [record.message for record in caplog.records if record.name.startswith("genseg_hub")]
    assert told.startswith(f"{folder} ")
    assert dialect in told or "untuned Qwen2.5-VL; if it was tuned, name its dialect" in told
    caplog.clear()
    assert load(folder, dialect="seg_r1").checkpoint.dialect == "seg_r1"
    assert not [record for record in caplog.records if record.name.startswith("genseg_hub")]


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(CheckpointError, match="no cuda"):
        GenSegR1.from_pretrained("nano", device="cuda:7")


def _picture():
    from PIL import Image

    return Image.linear_gradient("L").resize((96, 64)).convert("RGB")
