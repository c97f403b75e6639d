"""`genseg doctor`: what it finds, what it advises, and when it fails."""

import json

import pytest
from genseg_hub.checkpoints.catalog import KNOWN
from genseg_hub.extras import install_command
from huggingface_hub import constants
from packaging.requirements import Requirement

from fiftyone_genseg import database, doctor, machine
from tests.helpers.chat_server import said, serving
from tests.helpers.checkpoints import run
from tests.helpers.hub_server import WRITER

NOBODY = "127.0.0.1:9"
CPU = machine.Device("cpu", "CPU with 2 cores", 32.0)


@pytest.fixture(autouse=True)
def _machine(hub, monkeypatch):
    """Have a Hub, no servers, and a CPU with 32 GB."""
    monkeypatch.setattr(doctor, "PORTS", {})
    monkeypatch.setattr(machine, "gpus", tuple)
    monkeypatch.setattr(machine, "cpu", lambda: CPU)


@pytest.fixture
def server():
    with serving(lambda request: said("")) as started:
        yield started


def report() -> dict:
    result = run("doctor", "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def of(about: str) -> doctor.Finding:
    (found,) = [doctor.Finding(**finding) for finding in report()["findings"] if finding["about"] == about]
    return found


def test_people_get_a_line_for_each_thing_and_each_checkpoint(hub):
    result = run("doctor")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
    stated = {line[1]: line[0] for line in lines if line[0] in ("ok", "note", "warning", "broken")}
    assert set(stated) == {
        "Python", "fiftyone-genseg", "fiftyone", "torch", "transformers", "rf-sam-2", "trl", "openai",
        "cpu", "disk", "database", "Hub", "token", "servers", "default",
    }  # fmt: skip
    assert {stated[name] for name in ("Python", "fiftyone", "torch", "cpu", "database", "Hub", "token")} == {"ok"}
    names = [line[0] for line in lines]
    assert [known.name in names for known in KNOWN] == [not known.name.startswith("nano") for known in KNOWN]
    assert "Qwen/Qwen3-VL-2B-Instruct (recommended)" in result.stdout
    assert "genseg pull Qwen/Qwen3-VL-2B-Instruct" in result.stdout
    assert "On a CPU it is slow" in " ".join(result.stdout.split())
    assert "nano knows rendered shapes only" in result.stdout
    assert hub.requests == ["HEAD /"]


def test_machines_get_the_same_as_json():
    found = report()
    assert set(found) == {"findings", "checkpoints"}
    assert set(found["findings"][0]) == {"state", "about", "found", "remedy"}
    (best,) = [one for one in found["checkpoints"] if one["recommended"]]
    assert (best["name"], best["fits"], best["on_disk"]) == ("Qwen/Qwen3-VL-2B-Instruct", True, False)


def test_the_token_is_never_shown(hub):
    result = run("doctor", "--json")
    assert "a token is set" in result.stdout
    assert WRITER not in result.output


def test_no_token_is_no_problem(monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    token = of("token")
    assert (token.state, token.found) == (doctor.NOTE, "no token is set")
    assert "hf auth login" in token.remedy


def test_a_hub_that_refuses_or_is_not_there_is_a_warning(hub, monkeypatch):
    with hub.fault("HEAD", 503):
        assert of("Hub").found == f"{hub.endpoint} refuses with status 503"
    monkeypatch.setattr(constants, "ENDPOINT", f"http://{NOBODY}")
    silent = of("Hub")
    assert silent.state == doctor.WARNING
    assert f"http://{NOBODY} does not answer" in silent.found
    assert "HF_ENDPOINT" in silent.remedy


def test_offline_the_hub_is_not_asked(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = of("Hub")
    assert (offline.state, offline.remedy) == (doctor.NOTE, "unset HF_HUB_OFFLINE to download checkpoints")
    assert hub.requests == []


def test_a_missing_package_that_every_run_needs_fails_the_command(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", {"genseg-needs-this": None})
    result = run("doctor", "--json")
    assert result.exit_code == 1
    assert {"state": "broken", "about": "genseg-needs-this", "found": "not installed"}.items() <= next(
        finding for finding in json.loads(result.stdout)["findings"] if finding["state"] == "broken"
    ).items()


@pytest.mark.parametrize(
    ("name", "extra", "needed", "state", "remedy"),
    [
        ("torch", None, "torch>=1", doctor.OK, ""),
        ("torch", None, "torch>=999", doctor.BROKEN, 'pip install "torch>=999"'),
        ("trl", "train", "trl>=999", doctor.WARNING, 'pip install "trl>=999"'),
        ("not-here", None, None, doctor.BROKEN, 'pip install "not-here"'),
        ("not-here", "train", "not-here>=2", doctor.NOTE, install_command("train")),
        ("not-here", "serve", None, doctor.NOTE, install_command("serve")),
    ],
)
def test_packages_are_compared_with_what_is_needed(name, extra, needed, state, remedy):
    found = doctor.of_package(name, extra, needed and Requirement(needed))
    assert (found.state, found.remedy) == (state, remedy)


def test_a_database_that_does_not_answer_fails_the_command_and_keeps_its_password(monkeypatch):
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", f"mongodb://me:secret@{NOBODY}/?authSource=admin")
    monkeypatch.setattr(doctor, "_DATABASE_SECONDS", 0.1)
    result = run("doctor", "--json")
    assert result.exit_code == 1
    assert f"the MongoDB at {NOBODY} does not answer" in result.stdout
    assert "secret" not in result.output


def test_the_database_that_fiftyone_brings_is_not_started(tmp_path, monkeypatch):
    monkeypatch.delenv("FIFTYONE_DATABASE_URI")
    monkeypatch.setattr(database, "_mongod", lambda: None)
    with pytest.raises(RuntimeError, match="there is no MongoDB"):
        database.check(1.0)
    mongod = tmp_path / "mongod"
    monkeypatch.setattr(database, "_mongod", lambda: mongod)
    mongod.write_text('#!/bin/sh\necho "$@"; echo "db version v6.0.5"\n')
    mongod.chmod(0o755)
    assert database.check(1.0) == "MongoDB 6.0.5, installed with FiftyOne"
    mongod.write_text("#!/bin/sh\necho libcrypto.so.1.1 is missing >&2; exit 127\n")
    with pytest.raises(RuntimeError, match=r"mongod cannot be started: libcrypto\.so\.1\.1 is missing"):
        database.check(1.0)


def test_the_database_of_fiftyones_config_is_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("FIFTYONE_DATABASE_URI")
    (tmp_path / "config.json").write_text(json.dumps({"database_uri": f"mongodb://{NOBODY}"}))
    monkeypatch.setenv("FIFTYONE_CONFIG_PATH", str(tmp_path / "config.json"))
    with pytest.raises(RuntimeError, match=f"MongoDB at {NOBODY} does not answer"):
        database.check(0.1)


def test_servers_are_listed_with_their_models_and_what_to_type(server):
    names = ["nomic-embed-text:latest", "qwen3-vl:8b", "qwen3-vl:8b-instruct"]
    server.models = (200, {}, {"data": [{"id": name, "object": "model", "owned_by": "library"} for name in names]})
    (found,) = doctor.servers({server.server_port: "who knows"})
    assert (found.state, found.about) == (doctor.OK, f"port {server.server_port}")
    assert found.found == "Ollama: nomic-embed-text:latest, qwen3-vl:8b, qwen3-vl:8b-instruct"
    assert found.remedy == f"--server {server.url} --served-model qwen3-vl:8b-instruct"


@pytest.mark.parametrize(
    ("answer", "said_of_it"),
    [
        ((200, {}, {"object": "list", "data": []}), "LM Studio serves no model"),
        ((401, {}, {"error": "who are you?"}), "OPENAI_API_KEY"),
        ((200, {}, {"pages": ["a wiki"]}), "does not list its models"),
        ((200, {}, b"<html>a wiki</html>"), "gave no answer"),
        ((404, {}, b"<html>" + b"x" * 100_000), "answered 404"),
    ],
)
def test_a_server_that_is_of_no_use_is_a_note(server, answer, said_of_it):
    server.models = answer
    (found,) = doctor.servers({server.server_port: "LM Studio"})
    assert found.state == doctor.NOTE
    assert said_of_it in found.found
    assert len(found.found) <= 200


def test_a_port_without_a_server_is_left_out(server):
    server.models = (200, {}, {"data": [{"id": "m"}]})
    (found,) = doctor.servers({9: "nobody", server.server_port: "somebody"})
    assert found.found == "somebody: m"
    (none,) = doctor.servers({9: "nobody"})
    assert none.found == "none on the ports 9"


def test_a_full_disk_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "download_size", lambda known: 1e9)
    full = of("disk")
    assert full.state == doctor.WARNING
    assert str(tmp_path / "cache") in full.found
    assert "HF_HOME" in full.remedy


def test_pytorch_that_cannot_be_imported_is_told(monkeypatch):
    def broken():
        raise ImportError("libcudart.so is missing")

    monkeypatch.setattr(machine, "gpus", broken)
    result = run("doctor", "--json")
    assert result.exit_code == 1
    assert "cannot be imported: libcudart.so is missing" in result.stdout
