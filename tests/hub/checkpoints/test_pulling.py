"""A name becomes files on this disk, or an error that says what to do."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from genseg_hub import GenSegR1, checkpoints
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.errors import CheckpointError
from huggingface_hub import constants
from PIL import Image

NANO = EMBEDDED["nano"]


class _Hub(BaseHTTPRequestHandler):
    """A server that refuses in the Hub's own way: the error code depends on the repository's name."""

    def do_GET(self):
        name = self.path
        for part, status, code in (
            ("gated", 403, "GatedRepo"),
            ("no-revision", 404, "RevisionNotFound"),
            ("absent", 404, "RepoNotFound"),
            ("down", 500, ""),
        ):
            if part in name:
                self.send_response(status)
                if code:
                    self.send_header("X-Error-Code", code)
                self.end_headers()
                return
        self.send_response(404)
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.ENDPOINT", endpoint, raising=False)
    from huggingface_hub import hf_api

    monkeypatch.setattr(hf_api.api, "endpoint", endpoint)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    yield endpoint
    server.shutdown()


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
        checkpoints.pull(str(folder), local_files_only=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"dialect": "klingon"}', "dialect 'klingon', known are genseg, qwen3_vl"),
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


def test_an_attention_of_transformers_itself_is_fine(folder):
    config = json.loads((folder / "config.json").read_text()) | {"_attn_implementation": "eager"}
    (folder / "config.json").write_text(json.dumps(config))
    assert GenSegR1.from_pretrained(str(folder), device="cpu").reasoner.model.config._attn_implementation == "eager"


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
    with pytest.raises(CheckpointError, match="cannot be loaded from"):
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
        checkpoints.pull(name, local_files_only=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/absent", "no repository owner/absent that you may see.*hf auth login"),
        ("owner/gated", "is gated: accept its terms at .*/owner/gated"),
        ("owner/no-revision", "has no revision 'v9'"),
    ],
)
def test_what_the_hub_refuses_is_explained(hub, name, message):
    with pytest.raises(CheckpointError, match=message):
        checkpoints.pull(name, revision="v9")


def test_a_full_disk_is_explained(monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.hub, "snapshot_download", full)
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
    assert GenSegR1.from_pretrained("nano-sft", device="cpu").segment(Image.new("RGB", (256, 256)), "the red star")
