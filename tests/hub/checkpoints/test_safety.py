"""Files of a stranger's checkpoint stay in their folder, are what they seem, and take neither time nor memory."""

import contextlib
import json
import shutil

import pytest
from genseg_hub import GenSegR1, checkpoints
from genseg_hub.checkpoints import trial
from genseg_hub.errors import CheckpointError
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.checkpoints import NANO

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 7960000\n"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def load(folder):
    return GenSegR1.from_pretrained(str(folder), device="cpu")


@pytest.mark.parametrize(
    "shard",
    [
        "../x.safetensors",
        "/etc/passwd",
        "a/../../x.safetensors",
        "..\\x.safetensors",
        "C:\\x.safetensors",
        "\\\\host\\share\\x.safetensors",
        "",
        "a\0b",
    ],
)
def test_an_index_names_files_of_its_folder_only(folder, shard):
    shutil.copy(folder / "model.safetensors", folder.parent / "x.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(CheckpointError, match="is no file of its own folder"):
        checkpoints.check_folder(folder, "x")


@given(shard=st.lists(st.sampled_from(["..", ".", "a", "/", "\\", "C:", "~", "\0"]), max_size=6).map("/".join))
def test_a_path_that_leads_out_is_always_seen(tmp_path_factory, shard):
    from genseg_hub.checkpoints.safety import _is_bare

    if _is_bare(shard):
        folder = tmp_path_factory.getbasetemp() / "inside"
        assert (folder / shard).resolve().parent == folder.resolve()


def test_a_configuration_names_no_weights_file(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": "sub/x.safetensors.index.json"}))
    with pytest.raises(CheckpointError, match="names its weights file"):
        checkpoints.check_folder(folder, "x")


@pytest.mark.parametrize("index", ['{"weight_map": {"a": 1}}', '{"weight_map": [1]}', "[" * 100_000, "{", b"\xff\xfe"])
def test_a_damaged_index_is_explained(folder, index):
    (folder / "model.safetensors.index.json").write_bytes(index if isinstance(index, bytes) else index.encode())
    with pytest.raises(CheckpointError, match=r"model.safetensors.index.json of x is damaged"):
        checkpoints.check_folder(folder, "x")


@pytest.mark.parametrize("name", ["config.json", "genseg.json", "generation_config.json"])
@pytest.mark.parametrize("content", ['{"a": ' * 100_000, '{"a": ' * 900 + "1" + "}" * 900, "\ud800", "[" * 100_000])
def test_deep_and_broken_json_is_explained(folder, name, content):
    (folder / name).write_bytes(content.encode(errors="surrogatepass"))
    with contextlib.suppress(CheckpointError):  # and no other error
        checkpoints.check_folder(folder, "x")


def test_links_stay_in_the_folder(folder, tmp_path):
    outside = tmp_path / "outside.safetensors"
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)
    with pytest.raises(CheckpointError, match=r"model.safetensors is a link that leads out of"):
        checkpoints.check_folder(folder, "x")
    outside.rename(folder / "weights.bin")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("weights.bin")
    checkpoints.check_folder(folder, "x")


def test_the_links_of_the_cache_are_fine(folder, tmp_path):
    blobs = tmp_path / "hub" / "models--me--nano" / "blobs"
    snapshot = blobs.parent / "snapshots" / ("0" * 40)
    blobs.mkdir(parents=True)
    (snapshot / "segmenter").mkdir(parents=True)
    for place, file in enumerate(sorted(file for file in folder.rglob("*") if file.is_file())):
        shutil.copy(file, blobs / str(place))
        target = snapshot / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(blobs / str(place))
    assert checkpoints.pull(str(snapshot)).segmenter == snapshot / "segmenter"


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "genseg.json",
        "segmenter/model.safetensors",
        "segmenter/config.json",
    ],
)
def test_a_pointer_of_git_lfs_is_said_to_be_one_before_any_work(folder, name):
    (folder / name).write_text(POINTER)
    with pytest.raises(CheckpointError, match=f"{name.rpartition('/')[2]} .*is a git-lfs pointer.*git lfs pull"):
        checkpoints.pull(str(folder))


@pytest.mark.parametrize(
    "settings", [{"segmenter": "../outside"}, {"segmenter": "a/../../outside"}, {"segmenter": "link"}]
)
def test_a_segmenter_of_the_settings_stays_in_the_folder(folder, settings):
    shutil.copytree(NANO / "segmenter", folder.parent / "outside")
    (folder / "link").symlink_to(folder.parent / "outside")
    (folder / "genseg.json").write_text(json.dumps({"dialect": "genseg"} | settings))
    with pytest.raises(CheckpointError, match="neither a usable folder nor a Hub id"):
        checkpoints.pull(str(folder))


def test_control_codes_of_a_name_are_spelled_out(folder):
    shard = "a\x1b[2J\u202eb.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(CheckpointError) as raised:
        checkpoints.check_folder(folder, "x\x1b[31m\x07")
    assert str(raised.value).isprintable()
    assert r"x\x1b[31m\x07 lacks a\x1b[2J\u202eb.safetensors" in str(raised.value)


@pytest.mark.parametrize("limits", [{"max_new_tokens": 0}, {"max_new_tokens": "many"}, {"num_beams": 1e9}])
def test_limits_that_no_answer_has_are_refused(folder, limits):
    (folder / "generation_config.json").write_text(json.dumps(limits))
    with pytest.raises(CheckpointError, match=r"generation_config.json of x has \w+ .*at least 1"):
        checkpoints.check_folder(folder, "x")


def test_a_checkpoint_cannot_ask_for_beams(folder, nano):
    file = folder / "generation_config.json"
    more = {"num_beams": 100_000, "num_return_sequences": 100_000, "max_new_tokens": 10**9}
    file.write_text(json.dumps((json.loads(file.read_text()) if file.is_file() else {}) | more))
    scene = Image.new("RGB", (192, 192))
    model = load(folder)
    assert model.reasoner.max_new_tokens <= model.dialect.MAX_NEW_TOKENS
    assert model.segment(scene, "the red star").response == nano.segment(scene, "the red star").response


@pytest.fixture
def one_second(monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 1)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (ENDLESS, "chat template takes more than 1 s or 4 GiB"),
        ("{{ 'a' * 10**11 }}", "chat template takes more than 1 s or 4 GiB"),
        ("{{ 'a' * 10**7 }}", "chat template makes a prompt of 10,000,000 characters"),
    ],
)
@pytest.mark.parametrize("file", ["chat_template.jinja", "chat_template.json", "tokenizer_config.json"])
def test_a_template_that_takes_too_much_is_refused(folder, one_second, file, template, message):
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    if file.endswith(".json"):
        before = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
        (folder / file).write_text(json.dumps(before | {"chat_template": template}))
    else:
        (folder / file).write_text(template)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_a_tokenizer_that_takes_too_much_is_refused(folder, one_second):
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated", "invert": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [pattern, tokenizer["pre_tokenizer"]]}
    file.write_text(json.dumps(tokenizer))
    with contextlib.suppress(CheckpointError):  # tokenizers may end such a search by itself
        trial.check(folder, "x")


def test_checkpoints_are_tried_once(folder, monkeypatch, tmp_path):
    trial.check(folder, "x")
    monkeypatch.setattr(trial.subprocess, "run", lambda *_, **__: pytest.fail("it was tried again"))
    trial.check(shutil.copytree(folder, tmp_path / "copy"), "x")
    trial.check(NANO, "nano")
