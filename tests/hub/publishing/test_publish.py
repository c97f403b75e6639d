"""A push publishes a whole folder in one commit, or nothing after any fault."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from genseg_hub import GenSegR1, checkpoints
from genseg_hub.errors import PublishError
from genseg_hub.publishing import publish
from huggingface_hub import constants
from PIL import Image, ImageDraw
from safetensors.numpy import load_file, save_file

from tests.helpers.checkpoints import NANO, run, weights
from tests.helpers.hub_server import COMMIT, READER, REPO, UPLOAD, WRITER


def test_a_checkpoint_travels_and_is_the_same(hub, folder, nano):
    pushed = run("push", folder, REPO)
    assert pushed.exit_code == 0, pushed.output
    head = hub.heads()[REPO]["main"]
    assert f"commit {head}" in pushed.output
    pulled = run("pull", REPO)
    assert pulled.exit_code == 0, pulled.output
    assert "10 files, 18.1 MB, of which 18.1 MB to download into" in pulled.output
    assert f"commit {head}, checksums of 10 files agree" in pulled.output
    checkpoint = checkpoints.pull(REPO)
    assert checkpoint.commit == head
    assert weights(checkpoint.reasoner) == weights(NANO)
    scene = Image.new("RGB", (192, 192), "white")
    ImageDraw.Draw(scene).ellipse((40, 40, 110, 110), fill="red")
    ours, theirs = (
        model.segment(scene, "the red circle") for model in (nano, GenSegR1.from_pretrained(REPO, device="cpu"))
    )
    assert ours.response == theirs.response
    assert np.array_equal(ours.mask, theirs.mask)
    assert "of which 0 B to download" in run("pull", f"{REPO}@{head}").output


def test_only_files_of_a_checkpoint_are_sent(hub, folder):
    for name in (
        "optimizer.pt",
        "model.bin",
        "state.pkl",
        "run.py",
        ".env",
        "checkpoint-5/model.safetensors",
        "notes.txt",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    (folder / "logs" / ".hidden.jsonl").write_text("{}")
    publish.push(folder, REPO)
    assert hub.paths(REPO) == {".gitattributes"} | {
        str(file.relative_to(NANO)) for file in NANO.rglob("*") if file.is_file()
    }


def test_a_dry_run_asks_nobody_and_says_the_same(hub, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    planned = publish.push(folder, REPO, dry_run=True)
    listed = run("push", folder, REPO, "--dry-run").output
    assert f"would publish 18 files, 18.2 MB at {hub.endpoint}/me/nano/tree/main" in listed
    assert (planned.commit, planned.changed, hub.requests) == (None, False, [])
    assert publish.push(folder, REPO, token=WRITER).files == planned.files
    assert {path: len(hub.content(REPO, path)) for path, _ in planned.files} == dict(planned.files)


def test_the_same_content_makes_no_commit(hub, folder):
    first = publish.push(folder, REPO)
    second = publish.push(folder, REPO)
    assert (first.changed, second.changed, second.commit) == (True, False, first.commit)
    assert "no new commit" in run("push", folder, REPO).output


def test_a_branch_is_made_and_main_stays(hub, folder):
    publish.push(folder, REPO)
    main = hub.heads()[REPO]["main"]
    (folder / "recipe.yaml").write_text("seed: 1\n")
    published = publish.push(folder, REPO, revision="v2")
    assert hub.heads()[REPO] == {"main": main, "v2": published.commit}
    assert checkpoints.pull(REPO, revision="v2").commit == published.commit


def test_files_of_an_earlier_checkpoint_do_not_stay(hub, folder):
    shutil.copy(folder / "model.safetensors", folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    publish.push(folder, REPO)
    (folder / "model-00001-of-00001.safetensors").unlink()
    (folder / "model.safetensors.index.json").unlink()
    (folder / "logs" / "vision.jsonl").unlink()
    publish.push(folder, REPO)
    assert {path for path in hub.paths(REPO) if "safetensors" in path} == set(weights(NANO))
    assert "logs/vision.jsonl" not in hub.paths(REPO)
    assert ".gitattributes" in hub.paths(REPO), "files of other kinds stay"


def test_a_private_repository_is_private(hub, folder):
    publish.push(folder, "me/secret", private=True)
    assert hub.repositories["me/secret"].private
    publish.push(folder, REPO)
    heads = hub.heads()
    with pytest.raises(PublishError, match="public repository already, nothing was published"):
        publish.push(folder, REPO, private=True)
    assert hub.heads() == heads


# Refusals before any request


KEYS = {
    "hf_" + "a" * 34: "a token of the Hub",
    "sk-proj-" + "a1B_" * 12: "a key of OpenAI or Anthropic",
    "sk-" + "a" * 48: "a key of OpenAI or Anthropic",
    "sk-ant-api03-" + "x" * 90: "a key of OpenAI or Anthropic",
    "AKIA" + "IOSFODNN7EXAMPL0": "a key of AWS",
    "aws_secret_access_key: wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY": "a key",
    "ghp_" + "b" * 36: "a token of GitHub",
    "github_pat_" + "c" * 82: "a token of GitHub",
    "glpat-" + "d" * 20: "a token of GitLab",
    "AIza" + "e" * 35: "a key of Google",
    "xoxb-123456789012-abcdefghijkl": "a token of Slack",
    "-----BEGIN OPENSSH PRIVATE KEY-----": "a private key",
    "-----BEGIN PRIVATE KEY-----": "a private key",
    "wandb_api_key: " + "0f" * 20: "a key",
    "https://me:pa55word@host.org/x.git": "a password in an address",
    "x\nwandb_password: hunter2": "a value for 'password'",
}


def _metadata(folder, value):
    file = folder / "model.safetensors"
    save_file(load_file(file), file, metadata={"format": "pt", "note": value})


def _truncate(folder):
    os.truncate(folder / "segmenter" / "model.safetensors", 1_000_000)


def _link_out(folder):
    outside = folder.parent / "outside.json"
    outside.write_text("{}")
    (folder / "vocab.json").symlink_to(outside)


def _report(folder, content):
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "x.json").write_text(content)


def _settings(folder, **more):
    (folder / "README.md").unlink()
    file = folder / checkpoints.SETTINGS_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "not a usable checkpoint, nothing was published"),
        (lambda f: (f / "genseg.json").write_text("{"), "not a usable checkpoint.*not a JSON object"),
        (lambda f: (f / "segmenter" / "model.safetensors").unlink(), "segmenter lacks model.safetensors"),
        (lambda f: (f / "genseg.json").write_text('{"segmenter": "sam"}'), "segmenter 'sam' is neither"),
        (_truncate, r"segmenter/model.safetensors is truncated or damaged"),
        (_link_out, r"vocab.json is a link that leads out of"),
        (lambda f: (f / "recipe.yaml").write_text("hub_token: hf_" + "a" * 34), "seems to hold a token"),
        *(
            (lambda f, key=key: (f / "recipe.yaml").write_text(f"note: {key}\n"), f"seems to hold {what}, nothing was")
            for key, what in KEYS.items()
        ),
        (
            lambda f: _metadata(f, "sk-proj-" + "a1B" * 12),
            r"the header of .*model.safetensors seems to hold a key of Open",
        ),
        (lambda f: (f / "README.md").write_text("---\n[\n---\n"), "model card .* cannot be made"),
        (lambda f: _report(f, '{"benchmark": "x", "n": 1}'), "cannot be made.*evaluation/x.json has no 'policy'"),
        (lambda f: _report(f, "3"), "model card .* cannot be made"),
        (lambda f: _settings(f, versions=["torch"]), "model card .* cannot be made"),
        (shutil.rmtree, "there is no folder"),
    ],
)
def test_a_bad_folder_is_refused_before_any_request(hub, folder, spoil, message):
    spoil(folder)
    with pytest.raises(PublishError, match=message):
        publish.push(folder, REPO)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["nano", "a/b/c", "me/bad name", ""])
def test_a_bad_name_is_refused_before_any_request(hub, folder, name):
    with pytest.raises(PublishError, match="is not a Hub id"):
        publish.push(folder, name)
    refused = run("push", folder, name)
    assert refused.exit_code == 1
    assert "is not a Hub id" in refused.output
    assert hub.requests == []


def test_without_a_token_nothing_is_asked(hub, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PublishError, match=r"no token.*hf auth login.*HF_TOKEN"):
        publish.push(folder, REPO)
    assert hub.requests == []


# Faults on the way up


@pytest.mark.parametrize(
    ("request_", "answer", "headers", "message"),
    [
        (COMMIT, 401, {}, "does not accept the token, nothing was published: run `hf auth login`"),
        (COMMIT, 403, {}, "may not write to me/nano, nothing was published"),
        (COMMIT, 404, {}, "does not find me/nano"),
        (COMMIT, 409, {}, "somebody else changed me/nano meanwhile, nothing was published"),
        (COMMIT, 429, {"Retry-After": "7"}, "slow down, nothing was published: push again in 7 seconds"),
        (COMMIT, 500, {}, "has a problem, it cannot be known whether me/nano was published: see http"),
        (COMMIT, "reset", {}, "connection .* failed, it cannot be known whether"),
        ("POST .*/preupload/", 429, {"Retry-After": "7"}, "slow down, nothing was published: push again in 7 seconds"),
        (UPLOAD, 500, {}, "has a problem, nothing was published"),
        (UPLOAD, 507, {}, "has a problem, nothing was published"),
        (UPLOAD, "reset", {}, "connection .* failed, nothing was published"),
        (UPLOAD, "damage", {}, "refused me/nano, nothing was published.*SHA-256"),
    ],
)
def test_a_fault_publishes_nothing_and_a_second_push_succeeds(hub, folder, request_, answer, headers, message):
    publish.push(folder, REPO)
    heads = hub.heads()
    shutil.copy(folder / "model.safetensors", folder / "model-2.safetensors")
    with open(folder / "model-2.safetensors", "r+b") as file:  # other content of the same shape
        file.seek(-8, os.SEEK_END)
        file.write(b"12345678")
    with hub.fault(request_, answer, headers=headers), pytest.raises(PublishError, match=message):
        publish.push(folder, REPO)
    assert hub.heads() == heads
    assert publish.push(folder, REPO).changed
    assert hub.content(REPO, "model-2.safetensors") == (folder / "model-2.safetensors").read_bytes()


@pytest.mark.parametrize("request_", ["POST /api/repos/create", "GET /api/models/", "POST /api/validate-yaml", COMMIT])
def test_the_push_comes_back_when_the_hub_says(hub, folder, request_):
    with hub.fault(request_, 429, headers={"Retry-After": "7"}, times=1):
        assert publish.push(folder, REPO).changed
    assert hub.waited == [7]


def test_an_answer_that_is_no_hubs_is_explained(hub, folder):
    with (
        hub.fault("POST /api/validate-yaml", "page"),
        pytest.raises(PublishError, match="not answer as a Hub does, noth"),
    ):
        publish.push(folder, REPO)
    assert hub.paths(REPO) == {".gitattributes"}


@pytest.mark.parametrize(("request_", "answer"), [(UPLOAD, "reset"), (UPLOAD, 500), ("POST .*/preupload/", 429)])
def test_a_passing_fault_is_not_noticed(hub, folder, request_, answer):
    with hub.fault(request_, answer, times=2):
        assert publish.push(folder, REPO).changed


@pytest.mark.parametrize(
    ("token", "message"), [("wrong", "does not accept the token"), (READER, "may not write to me/nano")]
)
def test_a_token_without_the_right_is_explained(hub, folder, token, message):
    with pytest.raises(PublishError, match=message):
        publish.push(folder, REPO, token=token)
    assert hub.heads() == {}
    assert publish.push(folder, REPO).changed


@pytest.mark.parametrize("token", ["secret\r\nX-Y: z", "secret and more", "s\u00e9cret"])
def test_what_cannot_be_a_token_is_refused_and_not_repeated(hub, folder, token):
    with pytest.raises(PublishError, match="the token for the Hub is malformed, nothing was published") as refusal:
        publish.push(folder, REPO, token=token)
    assert "cret" not in str(refusal.value)
    assert refusal.value.__cause__ is refusal.value.__context__ is None
    assert hub.requests == []


def test_space_around_a_token_does_not_matter(hub, folder):
    assert publish.push(folder, REPO, token=f" {WRITER}\n").changed


def test_a_concurrent_push_is_not_mixed_in(hub, folder):
    publish.push(folder, REPO)
    (folder / "recipe.yaml").write_text("seed: 1\n")
    repository = hub.repositories[REPO]

    def meanwhile():
        repository.commit("main", repository.commits[repository.refs["main"]], "somebody else's")

    with (
        hub.fault("POST /api/validate-yaml", meanwhile, times=1),
        pytest.raises(PublishError, match="somebody else changed me/nano meanwhile, nothing was published"),
    ):
        publish.push(folder, REPO)
    assert "recipe.yaml" not in hub.paths(REPO)
    assert publish.push(folder, REPO).changed


def test_no_network_is_explained(folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PublishError, match=r"connection to .* failed, nothing was published; .* HF_HUB_OFFLINE"):
        publish.push(folder, REPO)


def test_a_push_that_is_killed_before_its_commit_publishes_nothing(hub, folder, tmp_path):
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "hf")}
    code = f"from genseg_hub.publishing import publish; publish.push({str(folder)!r}, {REPO!r})"
    with hub.fault("POST .*/lfs/verify", "hold") as fault:
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
        assert fault.held.wait(60)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert hub.large
    assert not [request for request in hub.requests if re.search(COMMIT, request)]
    assert hub.paths(REPO) == {".gitattributes"}
    assert publish.push(folder, REPO).changed


def test_a_commit_never_names_a_missing_file(hub, folder):
    """Check the promise of the test server on which the other tests rely."""
    with hub.fault(UPLOAD, 200), pytest.raises(PublishError, match="nothing was published"):
        publish.push(folder, REPO)
    assert hub.paths(REPO) == {".gitattributes"}
