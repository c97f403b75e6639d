"""A model that only a server knows, from the command line and from the App; the servers are simulated."""

import json

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from genseg_hub import GenSegR1
from genseg_hub.errors import CheckpointError, ReasonerError
from genseg_training.nano.refscenes import refscenes
from PIL import Image

from fiftyone_genseg.operators import _served_models
from tests.fiftyone_genseg.operators import test_referring_segment as test_operator
from tests.fiftyone_genseg.operators.test_pull_checkpoint import messages
from tests.helpers.chat_server import said, serving
from tests.helpers.checkpoints import run
from tests.helpers.simulated_servers import KEY, KINDS, LISTS, simulated

SEGMENT = "@fiftyone-genseg/genseg/referring_segment"
NAMES = {kind: LISTS[kind]["data"][0]["id"] for kind in KINDS}
BOX = '[{"bbox_2d": [100, 100, 600, 600], "points": [[300, 300], [400, 400]]}]'


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    _served_models._lists.clear()


@pytest.fixture
def scene(tmp_path):
    """Return a scene as a file, and an expression about it."""
    example = next(iter(refscenes("val", 1)))
    Image.fromarray(example.image).save(tmp_path / "scene.png")
    return tmp_path / "scene.png", "all shapes"


@pytest.mark.parametrize("kind", KINDS)
def test_genseg_segment_asks_a_model_that_only_the_server_knows(kind, scene, nano):
    with simulated(kind, nano.reasoner) as server:
        command = ["segment", *scene, "--server", server.url, "--served-model", NAMES[kind]]
        result = run(*command, "--segmenter", "nano", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["model"] == f"{NAMES[kind]}+nano"
    here = nano.segment(*scene).response
    assert len(told["instances"]) == len(here.instances) > 1
    if kind != "gateway":  # which gets a JPEG, and so answers a little differently
        assert told["reasoning"] == here.reasoning
        assert [i["box"] for i in told["instances"]] == [pytest.approx(i.box) for i in here.instances]
    assert {request["model"] for request in server.requests} == {NAMES[kind]}
    assert KEY not in result.output


@pytest.mark.parametrize("kind", ["ollama", "lmstudio", "llama.cpp", "mlx-vlm", "gateway"])
def test_the_only_vision_model_needs_no_name_in_python(kind, scene, nano):
    with simulated(kind, nano.reasoner) as server:
        model = GenSegR1.from_pretrained(server=server.url, segmenter="nano", device="cpu")
        assert model.segment(*scene).masks
    assert model.checkpoint.served == NAMES[kind]
    assert model.dialect.__name__.endswith("qwen3_vl")


def test_the_dialect_and_the_limit_are_those_of_the_name():
    with serving(lambda request: said("", "length", reasoning="hmm")) as server:
        server.models = (200, {}, LISTS["openrouter"])
        options = {"server": server.url, "segmenter": "nano", "device": "cpu"}
        model = GenSegR1.from_pretrained(served_model="Qwen/Qwen3-VL-8B-Thinking", **options)
        model.segment(Image.new("RGB", (64, 64)), "x")
        assert [request["max_tokens"] for request in server.requests] == [8192]
        server.requests.clear()
        model = GenSegR1.from_pretrained(served_model="qwen/qwen3-vl-8b-instruct", **options)
        model.segment(Image.new("RGB", (64, 64)), "x")
        assert [request["max_tokens"] for request in server.requests] == [model.dialect.MAX_NEW_TOKENS, 8192]
        server.requests.clear()
        model = GenSegR1.from_pretrained(served_model="qwen/qwen3-vl-8b-instruct", max_new_tokens=99, **options)
        model.segment(Image.new("RGB", (64, 64)), "x")
        assert [request["max_tokens"] for request in server.requests] == [99]
        with pytest.raises(CheckpointError, match=r"no dialect is known for it.*--dialect"):
            GenSegR1.from_pretrained(served_model="google/gemini-2.5-flash", **options)
        chosen = GenSegR1.from_pretrained(served_model="google/gemini-2.5-flash", dialect="qwen3_vl", **options)
        assert chosen.checkpoint.pinned == "google/gemini-2.5-flash+nano"
        with pytest.raises(ReasonerError, match="and none was named; choose a model with"):
            GenSegR1.from_pretrained(**options)


def test_a_checkpoint_may_have_another_name_on_the_server(nano, scene):
    with serving(lambda request: said("<answer>[]</answer>")) as server:
        model = GenSegR1.from_pretrained("nano", device="cpu", server=server.url, served_model="served")
        assert model.segment(*scene).response.no_target
        assert (model.checkpoint.name, model.checkpoint.served) == ("nano", "served")
    assert server.requests[0]["model"] == "served"


def test_a_served_model_needs_a_server():
    with pytest.raises(TypeError, match="needs its address, server="):
        GenSegR1.from_pretrained("nano", served_model="x")
    with pytest.raises(TypeError, match="give the name of a checkpoint"):
        GenSegR1.from_pretrained()
    result = run("evaluate", "refscenes", "--limit", 1, "--served-model", "x")
    assert result.exit_code == 1
    assert "needs its address, server= (--server)" in result.stderr


def test_a_benchmark_run_is_of_the_served_model(tmp_path, monkeypatch):
    import runpy

    import datasets

    from tests.conftest import ROOT

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    runpy.run_path(str(ROOT / "examples" / "own_benchmark.py"))["write"](tmp_path / "scenes", 2)
    command = ["benchmark", "coco", "--split", "data", "--root", tmp_path / "scenes", "--device", "cpu"]
    command += ["--out", tmp_path / "out"]
    with serving(lambda request: said(BOX)) as server:
        server.models = (200, {}, LISTS["ollama"])
        served = ["--server", server.url, "--served-model", "qwen3-vl:8b-instruct"]
        result = run(*command, *served, "--segmenter", "nano")
        assert result.exit_code == 0, result.output
        count = len(server.requests)
        again = run(*command, *served, "--segmenter", "nano")
        assert again.exit_code == 0, again.output
    assert count == len(server.requests) == 2
    settings = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (settings["model"], settings["served"]) == ("qwen3-vl:8b-instruct+nano", "qwen3-vl:8b-instruct")
    assert settings["dialect"] == "qwen3_vl"


@pytest.fixture
def scenes(scene):
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=str(scene[0]))])
    yield dataset
    dataset.delete()


@pytest.mark.parametrize("kind", KINDS)
def test_the_form_offers_the_model_and_the_operator_asks_it(kind, scenes, plugin, nano):
    with simulated(kind, nano.reasoner) as server:
        params = {"server": server.url, "served_model": NAMES[kind], "expressions": "all shapes", "device": "cpu"}
        params |= {"segmenter": "nano", "checkpoint": "nano"}  # the form's untouched default
        shown = test_operator.form(scenes, **params)
        assert NAMES[kind] in [choice["value"] for choice in shown["served_model"]["view"]["choices"]]
        assert "problem" not in shown
        foo.execute_operator(SEGMENT, {"dataset": scenes}, params=params)
    scenes.reload()
    assert scenes.distinct("genseg_responses.checkpoint") == [f"{NAMES[kind]}+nano"]
    assert scenes.distinct("genseg_responses.status") == ["segmented"]
    assert scenes.count("genseg.detections") > 0


def test_segment_dataset_asks_a_model_that_only_the_server_knows(scenes, nano):
    with simulated("openrouter", nano.reasoner) as server:
        command = ["segment-dataset", scenes.name, "--expression", "all shapes", "--device", "cpu"]
        named = ["--server", server.url, "--served-model", "Qwen/Qwen3-VL-8B-Instruct", "--segmenter", "nano"]
        result = run(*command, *named)
        assert result.exit_code == 0, result.output
    assert result.stdout.startswith("1 segmented")
    scenes.reload()
    assert scenes.distinct("genseg_responses.checkpoint") == [f"{NAMES['openrouter']}+nano"]
    assert KEY not in scenes.to_json()
    result = run(*command, "--served-model", "x")
    assert result.exit_code == 1
    assert "the model x is on a server; give its address, too" in result.stderr


def test_evaluate_refscenes_names_the_served_model(nano):
    with simulated("llama.cpp", nano.reasoner) as server:
        command = ["evaluate", "refscenes", "--limit", 2, "--device", "cpu", "--segmenter", "nano"]
        result = run(*command, "--server", server.url, "--served-model", NAMES["llama.cpp"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout.splitlines()[-1])
    assert (figures["model"], figures["served"]) == (f"{NAMES['llama.cpp']}+nano", NAMES["llama.cpp"])


def test_the_operator_says_what_the_server_has(scenes, plugin):
    with serving(lambda request: said("")) as server:
        server.models = (200, {}, LISTS["ollama"])
        params = {"server": server.url, "served_model": "qwen3-vl:4b", "expressions": "x", "device": "cpu"}
        told = messages(SEGMENT, scenes, **params)
    ((_, last),) = [message for message in told if message[0] == "notify"]
    assert "does not serve qwen3-vl:4b, but llama3.2:latest" in last["message"]
    assert "`ollama pull qwen3-vl:4b`" in last["message"]


def test_the_form_lists_the_models_of_the_server(dataset):
    with serving(lambda request: said("")) as server:
        server.models = (200, {}, LISTS["ollama"])
        shown = test_operator.form(dataset, server=server.url)["served_model"]
        choices = [choice["value"] for choice in shown["view"]["choices"]]
        assert choices == ["qwen3-vl:8b-instruct", "llama3.2:latest"]  # embeddings see nothing
        server.models = (200, {}, {"data": []})
        again = test_operator.form(dataset, server=server.url)["served_model"]
    assert again["view"]["choices"] == shown["view"]["choices"]  # at the next keystroke the server is not asked again
    assert server.keys == []
    assert "served_model" not in test_operator.form(dataset)
    assert "served_model" not in test_operator.form(dataset, server=" ")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:1/v1", "cannot be reached"),
        ("http://127.0.0.1:1", "usually ends in /v1"),
        ("http:/", "no address of a server"),
    ],
)
def test_the_form_works_without_the_list(dataset, address, reason):
    shown = test_operator.form(dataset, server=address)["served_model"]
    assert reason in shown["view"]["description"]
    assert shown["view"]["choices"] == []
