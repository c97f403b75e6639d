"""The commands and operators that ask a server: what is asked, what is kept, and what is refused before the work.

The server answers what the tests say; that an engine answers as the same weights here do is tested in tests/hub.
"""

import json
import runpy
from types import SimpleNamespace

import datasets
import fiftyone.operators as foo
import pytest
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.publishing import publish

from tests.conftest import ROOT
from tests.fiftyone_genseg.operators import test_compare_checkpoints
from tests.fiftyone_genseg.operators import test_referring_segment as test_operator
from tests.fiftyone_genseg.operators.test_pull_checkpoint import messages
from tests.helpers.chat_server import said, serving
from tests.helpers.checkpoints import run
from tests.helpers.hub_server import REPO

KEY = "sk-secret-0123"
NOWHERE = "http://127.0.0.1:1/v1"
SEGMENT = "@fiftyone-genseg/genseg/referring_segment"
COMPARE = "@fiftyone-genseg/genseg/compare_checkpoints"
ANSWER = '<answer>[{"bbox_2d": [100, 100, 600, 600], "points": [[300, 300], [400, 400]]}]</answer>'


@pytest.fixture
def server(monkeypatch):
    """Start a server that has nano and wants a key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda request: said(ANSWER)) as started:
        started.models = (200, {}, {"data": [{"id": "nano"}]})
        yield started


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    """Take away the client's pauses before it asks again."""

    async def sleep(seconds: float) -> None:
        pass

    monkeypatch.setattr("openai._base_client.anyio", SimpleNamespace(sleep=sleep))


@pytest.fixture
def scenes(tmp_path, monkeypatch):
    """Return the command that benchmarks four expressions of RefScenes, in an empty folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    runpy.run_path(str(ROOT / "examples" / "own_benchmark.py"))["write"](tmp_path / "scenes", 4)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return ["benchmark", "coco", "--model", "nano", "--split", "data", "--root", tmp_path / "scenes", "--device", "cpu"]


def notified(told) -> dict:
    ((_, last),) = [message for message in told if message[0] == "notify"]
    return last


def test_a_benchmark_run_keeps_the_answers_of_a_server_apart(scenes, server, tmp_path):
    result = run(*scenes, "--server", server.url)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "here/runs/benchmarks/coco-data/nano_served"
    settings = json.loads((folder / "run.json").read_text())
    assert (settings["model"], settings["served"]) == ("nano", "nano")
    assert json.loads((folder / "metrics.json").read_text())["served"] == "nano"
    assert "Reasoner: on a server, which calls it `nano`" in (folder / "report.md").read_text()
    assert "Served as" in (folder / "report.html").read_text()
    assert len(server.requests) == 4
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert KEY not in result.output
    assert not any(KEY.encode() in file.read_bytes() for file in folder.rglob("*") if file.is_file())
    again = run(*scenes, "--server", server.url + "/", "--policy", "refcoco")
    assert again.exit_code == 0, again.output
    assert len(server.requests) == 4
    here = run(*scenes, "--out", folder)
    assert here.exit_code == 1
    assert "holds a run with the served 'nano', not None" in here.stderr
    server.models = (200, {}, {"data": [{"id": "other", "root": str(EMBEDDED["nano"])}]})
    other = run(*scenes, "--server", server.url)
    assert other.exit_code == 1
    assert "holds a run with the served 'nano', not 'other'" in other.stderr


def test_a_server_that_failed_is_asked_again(scenes, server, tmp_path):
    server.reply = lambda request: (400, {}, {"message": f"not now, {KEY}"})
    result = run(*scenes, "--server", server.url)
    assert result.exit_code == 1
    assert "none of the 4 expressions has a usable answer; 4 x the server" in result.stderr
    folder = tmp_path / "here/runs/benchmarks/coco-data/nano_served"
    assert json.loads((folder / "metrics.json").read_text())["failures"] == 4
    assert KEY not in (folder / "predictions.jsonl").read_text()
    server.reply = lambda request: said(ANSWER)
    result = run(*scenes, "--server", server.url)
    assert result.exit_code == 0, result.output
    assert json.loads((folder / "metrics.json").read_text())["failures"] == 0


def test_a_served_folder_that_was_trained_further_is_noticed(scenes, server, folder):
    server.models = (200, {}, {"data": [{"id": str(folder)}]})
    command = [*scenes, "--model", folder, "--server", server.url, "--out", "out"]
    assert run(*command).exit_code == 0
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    result = run(*command)
    assert result.exit_code == 1
    assert "its files have changed" in result.stderr


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("SERVER", "does not serve nano, but other; start it with `genseg serve nano`"),
        (NOWHERE, f"the server {NOWHERE} cannot be reached"),
        ("localhost:8000", "'localhost:8000' is no address of a server; for example: http://localhost:8000/v1"),
        (f"http://me:{KEY}@host/v1", "no user, password or query; a key goes into OPENAI_API_KEY"),
        ("", "'' is no address of a server"),
    ],
)
@pytest.mark.parametrize("command", ["benchmark", "evaluate", "segment-dataset"])
def test_a_server_that_will_not_do_is_refused_before_the_work(
    command, address, message, scenes, dataset, server, tmp_path
):
    server.models = (200, {}, {"data": [{"id": "other"}]})
    arguments = {
        "benchmark": scenes,
        "evaluate": ["evaluate", "refscenes", "--model", "nano", "--limit", 4, "--out", "figures.json"],
        "segment-dataset": ["segment-dataset", dataset.name, "--model", "nano", "--expression", "all shapes"],
    }[command]
    result = run(*arguments, "--server", server.url if address == "SERVER" else address)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("error:") == 1
    assert KEY not in result.output
    assert list((tmp_path / "here").iterdir()) == []
    assert "genseg" not in dataset.get_field_schema()
    assert server.requests == []


def test_evaluate_refscenes_says_that_it_asked_a_server(server, tmp_path):
    out = tmp_path / "figures.json"
    command = ["evaluate", "refscenes", "--limit", 4, "--device", "cpu", "--out", out]
    result = run(*command, "--server", server.url)
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    assert (figures["model"], figures["served"], figures["n"]) == ("nano", "nano", 4)
    assert len(server.requests) == 4
    run(*command)
    assert "served" not in json.loads(out.read_text())


def test_segment_dataset_asks_a_server(dataset, server):
    command = ["segment-dataset", dataset.name, "--expression", "all shapes", "--server", server.url]
    result = run(*command, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert result.stdout == "16 segmented, 0 no-target\n"
    assert len(server.requests) == 16
    result = run(*command, "--engine", "ray")
    assert result.exit_code == 1
    assert "workers on Ray load the reasoner themselves; leave the server out" in result.stderr


def test_referring_segment_asks_a_server(dataset, plugin, server):
    foo.get_operator(SEGMENT)(dataset, "all shapes", device="cpu", server=server.url)
    dataset.reload()
    assert dataset.count_values("genseg_responses.status") == {"segmented": 16}
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert KEY not in dataset.to_json()
    told = messages(SEGMENT, dataset, server=NOWHERE, output_field="other")
    assert f"Referring segment stopped: the server {NOWHERE} cannot be reached" in notified(told)["message"]
    assert "other" not in dataset.get_field_schema()


def test_a_delegated_run_keeps_no_key(dataset, plugin, server):
    from fiftyone.operators.delegated import DelegatedOperationService

    params = {"server": server.url, "expressions": "all shapes", "device": "cpu"}
    foo.execute_operator(SEGMENT, {"dataset": dataset}, params=params, request_delegation=True)
    service = DelegatedOperationService()
    service.execute_queued_operations(log=False)
    (operation,) = [o for o in service.list_operations() if o.dataset_id == dataset._doc.id]
    assert operation.run_state == "completed"
    assert KEY not in str(operation.to_pymongo())
    assert set(server.keys) == {f"Bearer {KEY}"}


def test_what_a_server_has_is_not_downloaded_for_a_form(hub, folder, dataset, plugin, server):
    publish.push(folder, REPO)
    server.models = (200, {}, {"data": [{"id": REPO}]})
    params = {"checkpoint": REPO, "server": server.url, "expressions": "all shapes", "device": "cpu"}
    foo.execute_operator(SEGMENT, {"dataset": dataset}, params=params | {"raise_errors": True})
    dataset.reload()
    assert dataset.distinct("genseg_responses.checkpoint") == [REPO]  # which commit it has, the server does not say
    assert {path for path in hub.sent if path.endswith("safetensors")} == {"segmenter/model.safetensors"}


def test_forms_refuse_an_address_that_is_none(dataset):
    two = {"checkpoints": ["nano", "nano-sft"]}
    for form, rest in ((test_operator.form, {}), (test_compare_checkpoints.form, two)):
        assert "problem" not in form(dataset, server="http://localhost:8000/v1", **rest)
        assert "problem" not in form(dataset, server=" ", **rest)
        shown = form(dataset, server="localhost:8000", **rest)["problem"]
        assert "'localhost:8000' is no address of a server" in shown["error_message"]
        shown = form(dataset, server=f"http://me:{KEY}@host/v1", **rest)["problem"]
        assert KEY not in json.dumps(shown)
    shown = test_operator.form(dataset, server="http://localhost:8000/v1", engine="ray")["problem"]
    assert "Workers on Ray load the reasoner themselves" in shown["error_message"]


def test_checkpoints_are_compared_where_a_server_has_one_of_them(dataset, plugin, server):
    told = messages(COMPARE, dataset, checkpoints=["nano-sft", "nano"], device="cpu", server=server.url)
    dataset.reload()
    assert sorted(dataset.list_evaluations()) == ["nano", "nano_sft"]
    assert len(server.requests) == 16
    assert dataset.count_values("nano_responses.status") == {"segmented": 16}  # what this server says of all
    last = notified(told)["message"]
    assert last.count("(asked on the server)") == 1
    assert last.endswith("(asked on the server)")


def test_a_server_that_has_none_of_them_is_refused_before_the_work(dataset, plugin, server):
    server.models = (200, {}, {"data": [{"id": "other"}]})
    for address, message in ((server.url, "does not serve nano, but other"), (NOWHERE, "cannot be reached")):
        told = messages(COMPARE, dataset, checkpoints=["nano", "nano-sft"], device="cpu", server=address)
        assert f"The comparison stopped: the server {address} {message}" in notified(told)["message"]
    assert "nano" not in dataset.get_field_schema()
