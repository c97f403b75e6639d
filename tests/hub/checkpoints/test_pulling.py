"""Pulling turns a name into files on this disk, or into an error that says what to do."""

import json

import huggingface_hub
import pytest
from genseg_hub import GenSegR1, checkpoints
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.errors import CheckpointError
from genseg_hub.options import HubOptions
from genseg_hub.publishing import publish
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.helpers.hub_server import REPO

NANO = EMBEDDED["nano"]
SCENE = Image.new("RGB", (256, 256))


def test_nano_is_embedded_and_small():
    checkpoint = checkpoints.pull("nano")
    assert checkpoint.dialect == "genseg"
    assert checkpoints.is_on_disk("nano")
    weights = list(NANO.rglob("*.safetensors"))
    assert len(weights) == 2
    assert sum(file.stat().st_size for file in weights) <= 25_000_000
    assert not [f for f in NANO.rglob("*") if f.suffix in (".pt", ".bin", ".pkl", ".py")]


def test_a_local_folder_is_a_checkpoint(folder, nano):
    assert checkpoints.pull(str(folder)).reasoner == folder
    assert GenSegR1.from_pretrained(str(folder), device="cpu").dialect is nano.dialect


def test_a_folder_without_settings_is_an_untuned_qwen3_vl(folder):
    (folder / "genseg.json").unlink()
    with pytest.raises(CheckpointError, match=r"facebook/sam2\.1-hiera-large is not on this disk"):
        checkpoints.pull(str(folder), options=HubOptions(local_files_only=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"dialect": "klingon"}', "unknown dialect 'klingon'; upgrade fiftyone-genseg, or name one of genseg, glm4v"),
        ("[1]", "not a JSON object"),
        ("{", "not a JSON object"),
        ('{"dialect": "genseg", "segmenter": "../../etc"}', "neither a usable folder nor a Hub id"),
        ('{"dialect": "genseg", "segmenter": "/etc"}', "neither a usable folder nor a Hub id"),
    ],
)
def test_malformed_settings_are_explained(folder, settings, message):
    (folder / "genseg.json").write_text(settings)
    with pytest.raises(CheckpointError, match=message):
        checkpoints.pull(str(folder))


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        (None, "attn_implementation", "stranger/kernel"),
        (None, "_attn_implementation", "paged|stranger/kernel@main:run"),
        (None, "_attn_implementation", {"": "sdpa", "text_config": {"": "stranger/kernel"}}),
        ("text_config", "_attn_implementation", "stranger/kernel"),
        ("vision_config", "attn_implementation", ["stranger/kernel"]),
    ],
)
def test_a_checkpoint_cannot_choose_code_for_its_attention(folder, part, key, value):
    config = json.loads((folder / "config.json").read_text())
    (config[part] if part else config)[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"asks for the attention .*stranger/kernel"):
        checkpoints.pull(str(folder))


def test_an_attention_of_transformers_itself_is_fine(folder, nano):
    config = json.loads((folder / "config.json").read_text()) | {"_attn_implementation": "eager"}
    (folder / "config.json").write_text(json.dumps(config))
    eager = GenSegR1.from_pretrained(str(folder), device="cpu")
    assert eager.segment(SCENE, "the red star").response == nano.segment(SCENE, "the red star").response


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("memory_encoder._target_", "pathlib.Path.touch"),
        ("image_encoder.trunk.stages", [1, 2, 3, {"_target_": "pathlib.Path.touch", "_args_": ["RAN"]}]),
        ("image_size", "${oc.env:HOME}"),
    ],
)
def test_a_segmenter_cannot_choose_code(folder, key, value):
    file = folder / "segmenter" / "config.json"
    config = json.loads(file.read_text())
    config["overrides"][key] = value
    file.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="numbers and lists of numbers only"):
        GenSegR1.from_pretrained(str(folder), device="cpu")


def test_damaged_weights_are_explained(folder):
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be loaded"):
        GenSegR1.from_pretrained(str(folder), device="cpu")


@pytest.mark.parametrize("change", ["one is missing", "saved inside a wrapper"])
def test_weights_that_lack_tensors_are_refused(folder, change):
    """Transformers would fill them with random numbers."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    if change == "one is missing":
        tensors.pop("model.visual.blocks.0.norm2.weight")
    else:
        tensors = {f"module.{name}": tensor for name, tensor in tensors.items()}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"the weights of .* lack \d+ tensors: .*; pull or save them again"):
        GenSegR1.from_pretrained(str(folder), device="cpu")


def test_an_adapter_beside_the_weights_is_refused(folder):
    """Transformers would add it to weights that may have it already."""
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "owner/base"}')
    with pytest.raises(CheckpointError, match="has the files of a LoRA adapter"):
        checkpoints.pull(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="merge an adapter that is not merged yet"):
        checkpoints.pull(str(folder))


@pytest.mark.parametrize("name", ["model.fp16.safetensors", "model-00001-of-00001.safetensors"])
def test_weights_that_transformers_does_not_find_are_refused(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(CheckpointError, match="has neither model"):
        checkpoints.pull(str(folder))


def test_a_processor_without_a_chat_template_is_refused(folder):
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="has no chat template; add chat_template"):
        GenSegR1.from_pretrained(str(folder), device="cpu")


def test_a_folder_without_safetensors_is_refused(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="other formats are not loaded"):
        checkpoints.pull(str(folder))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nanno", "no checkpoint 'nanno'; known names: nano, nano-sft, Qwen"),
        ("./nowhere", "no folder ./nowhere"),
        ("a/b/c", "no folder a/b/c"),
        ("bad name/x", "not a Hub id"),
        ("owner/name@", "must be owner/name@revision"),
        ("./nowhere@main", "no folder ./nowhere@main"),
    ],
)
def test_a_wrong_name_is_explained(name, message):
    with pytest.raises(CheckpointError, match=message):
        checkpoints.check_name(name)
    with pytest.raises(CheckpointError):
        checkpoints.pull(name, options=HubOptions(local_files_only=True))


def test_a_refusal_of_the_hub_is_explained(hub, folder):
    with pytest.raises(CheckpointError, match=r"no repository owner/absent that you may see.*hf auth login"):
        checkpoints.pull("owner/absent")
    publish.push(folder, REPO)
    with pytest.raises(CheckpointError, match=f"{REPO} has no revision 'v9'"):
        checkpoints.pull(REPO, revision="v9")
    with (
        hub.fault("GET /api/models/", 403, headers={"X-Error-Code": "GatedRepo"}),
        pytest.raises(CheckpointError, match=f"{REPO} is gated: accept its terms at .*/{REPO}"),
    ):
        checkpoints.pull(REPO)
    with (
        hub.fault("GET .*/resolve/", 403),
        pytest.raises(CheckpointError, match=f"the Hub refused {REPO}: "),
    ):
        checkpoints.pull(REPO)


def test_arriving_bytes_are_reported(hub, folder):
    publish.push(folder, REPO)
    arrived = []
    checkpoints.plan(REPO)  # downloads genseg.json
    planned = checkpoints.plan(REPO).missing
    checkpoints.pull(REPO, on_bytes=arrived.append)
    assert len(arrived) > 10  # large files arrive in parts
    assert sum(arrived) == planned > 18_000_000
    checkpoints.pull(REPO, on_bytes=arrived.append)
    assert sum(arrived) == planned


def test_a_full_disk_is_explained(monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(CheckpointError, match=r"disk is full.*HF_HOME"):
        checkpoints.pull("owner/name")


def test_no_network_is_explained(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="cannot be reached: check the network"):
        checkpoints.pull("owner/name")
    assert not checkpoints.is_on_disk("Qwen/Qwen3-VL-8B-Instruct")


def test_an_unknown_device_is_explained():
    with pytest.raises(CheckpointError, match="no device 'gpu'; choose auto"):
        GenSegR1.from_pretrained("nano", device="gpu")


def test_the_warm_start_shares_the_segmenter_of_nano():
    nano, before = checkpoints.pull("nano"), checkpoints.pull("nano-sft")
    assert before.segmenter == nano.segmenter
    assert before.segmenter_config is None
    assert before.reasoner != nano.reasoner
    assert before.dialect == nano.dialect
    assert GenSegR1.from_pretrained("nano-sft", device="cpu").segment(SCENE, "the red star").response.error is None
