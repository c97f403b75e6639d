"""The options of a model: the same in every command that loads one, in the form and in a stored request."""

import json
import sys

import fiftyone.operators as foo
import pytest
from genseg_hub import GenSegR1
from genseg_hub.options import HubOptions, ReasonerOptions, ServerOptions
from typer.main import get_command

from fiftyone_genseg.cli import app, benchmark
from fiftyone_genseg.segmentation.request import MODEL_OPTIONS, SegmentRequest
from tests.conftest import PHOTOS
from tests.fiftyone_genseg.operators.test_referring_segment import URI, form
from tests.helpers.checkpoints import run

NAMES = {name for kind in (ReasonerOptions, HubOptions, ServerOptions) for name in kind.__dataclass_fields__}
PHOTO = next(iter(sorted((PHOTOS / "images").iterdir())))


@pytest.fixture
def given(monkeypatch) -> list[dict]:
    """Return the options of each load."""
    options = []
    load = GenSegR1.from_pretrained

    def kept(*args, **kwargs):
        options.append({name: value for name, value in kwargs.items() if name in NAMES})
        return load(*args, **kwargs)

    monkeypatch.setattr(GenSegR1, "from_pretrained", kept)
    return options


def test_every_command_that_loads_a_model_has_every_option():
    commands = get_command(app).commands
    loading = [commands[name] for name in ("segment", "segment-dataset", "benchmark", "demo")]
    loading.append(commands["evaluate"].commands["refscenes"])
    for command in loading:
        assert {p.name for p in command.params} >= NAMES, command.name


def test_options_reach_the_model(given, dataset, tmp_path):
    typed = [
        "--model",
        "nano",
        "--max-new-tokens",
        "7",
        "--max-pixels",
        "4096",
        "--dtype",
        "bfloat16",
        "--device",
        "cpu",
    ]
    expected = {"max_new_tokens": 7, "max_pixels": 4096, "dtype": "bfloat16"}
    result = run("segment", PHOTO, "the vase", *typed, "--local-files-only")
    assert result.exit_code == 0, result.output
    result = run("segment-dataset", dataset.name, "--expression-field", "expression", *typed, "--token", "hf_secret")
    assert result.exit_code == 0, result.output
    assert given == [expected | {"local_files_only": True}, expected | {"token": "hf_secret"}]
    assert "hf_secret" not in result.output


def test_a_value_that_cannot_be_ends_the_command_before_its_work(given):
    for typed, message in (
        (["--max-pixels", "0"], "max_pixels must be a whole number of at least 1"),
        (["--dialect", "latin"], "there is no dialect 'latin'"),
        (["--dtype", "int4"], "'int4' is not one of"),
    ):
        result = run("segment", PHOTO, "the vase", "--model", "nano", *typed)
        assert result.exit_code == 2
        assert message in " ".join(result.output.replace("│", " ").split())
    assert given == []


def test_the_form_asks_for_the_options_behind_a_switch(dataset):
    assert not NAMES & {*form(dataset)}
    shown = form(dataset, advanced=True)
    assert {*MODEL_OPTIONS} <= {*shown}
    assert "token" not in shown
    assert [choice["value"] for choice in shown["quantization"]["view"]["choices"]] == ["4bit", "8bit"]
    assert "There is no dialect" in form(dataset, advanced=True, dialect="latin")["problem"]["error_message"]


def test_options_of_the_form_reach_the_model_and_come_back_from_a_stored_request(dataset, plugin, given):
    params = {"max_new_tokens": 9, "device": "cpu", "cache_dir": "", "force_download": False}
    foo.execute_operator(URI, {"dataset": dataset}, params=params)
    assert given == [{"max_new_tokens": 9}]
    request = SegmentRequest(("a",), model_options={"max_new_tokens": 9, "dialect": "genseg"})
    again = SegmentRequest.from_params(dataset, json.loads(json.dumps(request.to_params())))
    assert again == request


def test_the_operator_takes_the_options_from_python(dataset, plugin, given):
    operator = foo.get_operator(URI)
    operator(dataset, expression_field="expression", max_new_tokens=8, device="cpu")
    assert given == [{"max_new_tokens": 8}]
    with pytest.raises(Exception, match="there is no option 'token'"):
        SegmentRequest(("a",), model_options={"token": "x"}).check(dataset)


def test_the_token_is_in_no_file_of_a_benchmark_run(tmp_path, monkeypatch):
    typed = ["benchmark", "coco", "--token", "hf_one", "--token=hf_two", "--limit", "4"]
    monkeypatch.setattr(sys, "argv", ["genseg", *typed])
    assert benchmark._command(sys.argv[1:]) == "genseg benchmark coco --token '***' '--token=***' --limit 4"


def test_options_of_a_server_need_a_server(dataset):
    assert "Concurrency belong to a server" in form(dataset, concurrency=3)["problem"]["error_message"]
    result = run("segment", PHOTO, "the vase", "--model", "nano", "--timeout", "5")
    assert result.exit_code == 1
    assert "timeout belong to a server; give its address as server=" in result.output


def test_values_of_fields_that_the_form_no_longer_shows_do_not_count(dataset):
    hidden = {"advanced": False, "max_pixels": 5000, "timeout": 5.0}
    assert SegmentRequest.from_params(dataset, hidden).model_options == {}
    shown = hidden | {"advanced": True}
    assert SegmentRequest.from_params(dataset, shown).model_options == {"max_pixels": 5000}, "there is no server"
    with_server = shown | {"server": "http://localhost:1/v1"}
    assert SegmentRequest.from_params(dataset, with_server).model_options == {"max_pixels": 5000, "timeout": 5.0}
