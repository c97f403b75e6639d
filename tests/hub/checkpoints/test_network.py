"""What is whole in the cache needs no Hub, and every other request ends in time with the fault in words."""

import json
import logging
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import pytest
from filelock import FileLock
from genseg_hub import checkpoints
from genseg_hub.checkpoints import fingerprint
from genseg_hub.errors import CheckpointError, HubError, PublishError
from genseg_hub.options import HubOptions
from genseg_hub.publishing import publish
from huggingface_hub import constants

from tests.helpers.checkpoints import NANO, run, weights
from tests.helpers.hub_server import COMMIT, REPO, UPLOAD, Repository
from tests.helpers.proxies import refusing

ANY = "."
INFO, LIST, HEAD, FILE = "GET /api/models/[^/]+/[^/]+(/revision/.*)?$", "GET /api/.*/tree/", "HEAD /", "GET .*/resolve/"
WEIGHTS = "GET .*/resolve/.*/segmenter/model.safetensors"
LIMIT = 0.4  # seconds; a busy machine answers a question on the loopback in less
SLOW = ("hold", "drip", "trickle")
# Fault of a question -> words of the error; each is told apart from the others.
FAULTS = {
    "hold": "cannot be reached",
    "drip": "cannot be reached",
    "reset": "cannot be reached",
    "end": "cannot be reached",
    "portal": "does not answer as a Hub does",
    "loop": "does not answer as a Hub does",
    401: "the Hub refused me/nano: HTTP 401",
    403: "the Hub refused me/nano: HTTP 403",
    404: r"HTTP 404",
    429: "the Hub asks to slow down .*HTTP 429.*again in 7 seconds",
    500: "has a problem .*HTTP 500",
    503: "has a problem .*HTTP 503",
}


@contextmanager
def quickly():
    """Give up on requests soon, as with HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", LIMIT)
        patch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", LIMIT)
        yield


@pytest.fixture
def pushed(hub):
    """Return the only commit of a repository with nano."""
    hub.repositories[REPO] = repository = Repository(private=False)
    files = {file.relative_to(NANO).as_posix(): file for file in NANO.rglob("*") if file.is_file()}
    return repository.commit("main", {path: hub.store(file.read_bytes()) for path, file in files.items()}, "first")


@pytest.fixture
def pulled(hub, pushed):
    """Return the commit that is whole in the cache, while the Hub has a newer one."""
    checkpoints.pull(REPO)
    repository = hub.repositories[REPO]
    repository.commit("main", repository.commits[pushed] | {"recipe.yaml": hub.store(b"seed: 1\n")}, "newer")
    hub.requests.clear()
    return pushed


@pytest.mark.parametrize("name", [REPO, f"{REPO}@COMMIT"])
def test_what_is_whole_in_the_cache_needs_no_request(hub, pulled, name):
    name = name.replace("COMMIT", pulled)
    found = checkpoints.pull(name)
    assert found.commit == pulled
    assert weights(found.reasoner) == weights(NANO)
    assert checkpoints.plan(name).missing == 0
    assert fingerprint.identify(name) == {"model": f"{REPO}@{pulled}"}
    assert hub.requests == []


def test_the_newest_commit_comes_when_somebody_asks(hub, pulled):
    newest = hub.heads()[REPO]["main"]
    assert newest != pulled
    assert checkpoints.pull(f"{REPO}@main").commit == newest
    assert checkpoints.pull(REPO).commit == newest, "the branch moved with the files"


def test_the_command_pull_asks_for_the_newest_commit(hub, pulled):
    newest = hub.heads()[REPO]["main"]
    assert f"commit {newest}, checksums" in run("pull", REPO).output
    assert checkpoints.pull(REPO).commit == newest


@pytest.mark.parametrize("answer", list(FAULTS))
@pytest.mark.parametrize("newest", [True, False])
def test_every_fault_of_the_hub_leaves_the_cached_files(hub, pulled, caplog, answer, newest):
    headers = {"Retry-After": "7"} if answer == 429 else {}
    with quickly(), hub.fault(ANY, answer, headers=headers), caplog.at_level(logging.WARNING, "genseg_hub"):
        found = checkpoints.pull(REPO if newest else f"{REPO}@main", newest=newest)
    assert found.commit == pulled
    notice = [record.message for record in caplog.records if record.name.startswith("genseg_hub")]
    assert f"{REPO} is used as the cache has it, at commit {pulled}" in notice[0]
    assert re.search(FAULTS[answer].partition(".*again")[0], notice[0])


@pytest.mark.parametrize("answer", list(FAULTS))
@pytest.mark.parametrize("request_", [INFO, LIST, HEAD])
def test_every_fault_of_a_question_is_told_apart(hub, pushed, request_, answer):
    if request_ == HEAD and answer == "end":
        pytest.skip("the answer to HEAD has no body to end in")
    headers = {"Retry-After": "7"} if answer == 429 else {}
    with (
        quickly(),
        hub.fault(request_, answer, headers=headers),
        pytest.raises(HubError, match=FAULTS[answer]) as raised,
    ):
        checkpoints.pull(REPO)
    assert "Traceback" not in str(raised.value)
    assert checkpoints.plan(REPO).revision == pushed


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("hold", "cannot be reached.*ReadTimeout"),
        ("portal", "does not answer as a Hub does"),
        ("loop", "does not answer as a Hub does"),
        (403, "the Hub refused me/nano: HTTP 403"),
        (404, "does not find a file of me/nano .*HTTP 404"),
        (500, "has a problem .*HTTP 500"),
    ],
)
def test_a_download_that_fails_for_good_ends_in_words(hub, pushed, answer, message):
    with quickly(), hub.fault(WEIGHTS, answer), pytest.raises(HubError, match=message):
        checkpoints.pull(REPO)
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))
    assert weights(checkpoints.pull(REPO).reasoner) == weights(NANO)


@pytest.mark.parametrize("answer", SLOW)
def test_a_stalled_download_is_taken_up_again(hub, pushed, answer):
    with quickly(), hub.fault(WEIGHTS, answer, times=2):
        found = checkpoints.pull(REPO)
    assert weights(found.reasoner) == weights(NANO)


def test_a_reset_download_goes_on_in_the_middle(hub, pushed):
    size = (NANO / "segmenter" / "model.safetensors").stat().st_size
    with quickly(), hub.fault(WEIGHTS, "reset", times=1):
        checkpoints.pull(REPO)
    assert hub.sent["segmenter/model.safetensors"] < size + size // 2


def test_a_newer_commit_that_does_not_arrive_leaves_the_one_before(hub, pulled, folder, caplog):
    with open(folder / "segmenter" / "model.safetensors", "r+b") as file:
        file.seek(-8, 2)
        file.write(b"12345678")
    newest = publish.push(folder, REPO).commit
    with quickly(), hub.fault(WEIGHTS, 500):
        assert checkpoints.pull(REPO, newest=True).commit == pulled
    assert checkpoints.pull(REPO, options=HubOptions(local_files_only=True)).commit == pulled
    assert checkpoints.pull(REPO, newest=True).commit == newest


def test_a_snapshot_without_a_list_is_completed_by_the_hub_or_used_without_it(hub, pushed, caplog):
    """Transformers alone, or an earlier huggingface_hub, leaves no list of a commit's files."""
    found = checkpoints.pull(REPO)
    shutil.rmtree(found.reasoner.parents[1] / "trees")
    from huggingface_hub import _tree_cache

    _tree_cache._IN_MEMORY_TREE_CACHE.clear()
    (found.reasoner / "tokenizer.json").unlink()
    with quickly(), hub.fault(ANY, "hold"), caplog.at_level(logging.WARNING, "genseg_hub"):
        assert checkpoints.pull(REPO).commit == pushed
    assert "is used as the cache has it" in caplog.text
    assert (checkpoints.pull(REPO).reasoner / "tokenizer.json").is_file()


def test_a_download_that_was_asked_for_again_is_not_replaced_by_the_cache(hub, pulled):
    with quickly(), hub.fault(ANY, 503), pytest.raises(HubError, match="has a problem"):
        checkpoints.pull(REPO, options=HubOptions(force_download=True))


def test_a_command_that_cannot_compare_checksums_says_that_the_files_are_here(hub, pulled):
    with quickly(), hub.fault(ANY, "hold"):
        output = run("pull", REPO)
    assert output.exit_code == 1
    assert f"the checksums of {REPO} were not compared; its files are in the cache, at {pulled}" in output.output


@pytest.mark.parametrize(("status", "message"), [(403, "HTTP 403"), (407, "the proxy wants a login .*HTTP 407")])
def test_a_refusing_proxy_is_told(hub, pulled, monkeypatch, status, message):
    with refusing(status) as address:
        monkeypatch.setenv("http_proxy", address)
        huggingface_hub.close_session()
        try:
            assert checkpoints.pull(REPO).commit == checkpoints.pull(f"{REPO}@main").commit == pulled
            with pytest.raises(HubError, match=message):
                checkpoints.pull("me/other")
        finally:
            huggingface_hub.close_session()


def test_a_proxy_that_refuses_a_tunnel_is_told(hub, pulled, monkeypatch):
    with refusing(403) as address:
        monkeypatch.setenv("https_proxy", address)
        monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
        huggingface_hub.close_session()
        try:
            assert checkpoints.pull(f"{REPO}@main").commit == pulled
            with pytest.raises(HubError, match=r"https://hub.invalid cannot be reached.*\(ProxyError: 403"):
                checkpoints.pull("me/other")
        finally:
            huggingface_hub.close_session()


def test_what_a_killed_download_left_is_removed_unless_it_still_runs(hub, pushed):
    cache = Path(constants.HF_HUB_CACHE)
    blobs, locks = cache / "models--me--nano" / "blobs", cache / ".locks" / "models--me--nano"
    blobs.mkdir(parents=True)
    locks.mkdir(parents=True)
    dead, alive = blobs / "abc.12345678.incomplete", blobs / "def.12345678.incomplete"
    for file in (dead, alive):
        file.write_bytes(b"half")
    with FileLock(locks / "def.lock"):
        checkpoints.pull(REPO)
    assert (dead.exists(), alive.exists()) == (False, True)


def test_a_token_is_not_repeated(hub):
    with pytest.raises(CheckpointError) as raised:
        checkpoints.pull(REPO, options=HubOptions(token="secret\r\nX-Y: z"))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ("POST /api/repos/create", "hold"),
        ("POST /api/repos/create", "drip"),
        ("GET /api/models/", "hold"),
        ("GET /api/models/", "drip"),
        (COMMIT, "hold"),
        (COMMIT, "drip"),
        (UPLOAD, "hold"),
    ],
)
def test_a_push_to_a_silent_hub_ends(hub, folder, request_, answer):
    with quickly(), hub.fault(request_, answer), pytest.raises(PublishError, match=r"connection to .* failed"):
        publish.push(folder, REPO)
    publish.push(folder, REPO)
    assert hub.content(REPO, "model.safetensors") == (folder / "model.safetensors").read_bytes()


def test_limits_hold_for_a_client_that_somebody_made(hub, pushed):
    made = []

    def factory():
        from huggingface_hub.utils._http import default_client_factory

        made.append(default_client_factory())
        return made[-1]

    from huggingface_hub.utils import _http

    before = _http._GLOBAL_CLIENT_FACTORY
    huggingface_hub.set_client_factory(factory)
    try:
        with quickly(), hub.fault(INFO, "hold"), pytest.raises(HubError, match="cannot be reached"):
            checkpoints.pull(REPO)
        assert made
    finally:
        huggingface_hub.set_client_factory(before)


def test_an_answer_in_other_words_is_no_hubs(hub, pushed):
    """A mirror that answers 200 with JSON of its own."""
    hub.repositories[REPO].refs["main"] = "no commit"
    hub.repositories[REPO].commits["no commit"] = {}
    with pytest.raises(HubError, match="does not answer as a Hub does"):
        checkpoints.pull(REPO)
    assert json.dumps(hub.heads())
