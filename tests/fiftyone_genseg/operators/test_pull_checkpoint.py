"""The operator "Pull checkpoint", and a checkpoint that "Referring segment" fetches first, on a Hub of the loopback."""

import asyncio
import json

import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionContext, ExecutionError, execute_or_delegate_operator
from genseg_hub import checkpoints
from genseg_hub.options import HubOptions
from genseg_hub.publishing import publish

from fiftyone_genseg.operators.pull_checkpoint import PullCheckpoint
from tests.helpers.checkpoints import NANO, weights
from tests.helpers.hub_server import REPO

URI = "@fiftyone-genseg/genseg/pull_checkpoint"
SEGMENT = "@fiftyone-genseg/genseg/referring_segment"


@pytest.fixture(autouse=True)
def pushed(hub, folder):
    return publish.push(folder, REPO).commit


def form(name) -> dict:
    context = ExecutionContext(operator_uri=URI, request_params={"params": {"checkpoint": name}})
    return PullCheckpoint().resolve_input(context).to_json()["type"]["properties"]


def messages(uri, dataset, **params) -> list[tuple[str, dict]]:
    """Return what the App is told while an operator runs."""
    request = {"dataset_name": dataset.name, "view": dataset.view()._serialize(), "params": params}

    async def collect():
        result = await execute_or_delegate_operator(uri, request)
        return [message async for message in _stream(result)]

    return [(m.body.operator_uri.split("/")[-1], m.body.params) for m in asyncio.run(collect())]


async def _stream(result):
    if hasattr(result.result, "__aiter__"):
        async for message in result.result:
            yield message
    else:
        for message in result.result:
            yield message


def progress(told: list[tuple[str, dict]]) -> list[tuple[float, str]]:
    """Return the shares that the App was told, with their labels."""
    shown = [params for name, params in told if name == "show_output" and "progress" in params["results"]]
    views = [params["outputs"]["type"]["properties"]["progress"]["view"] for params in shown]
    return [(params["results"]["progress"], view["label"]) for params, view in zip(shown, views, strict=True)]


def test_the_form_says_how_much_and_where(hub, tmp_path):
    plan = json.dumps(form(REPO)["plan"])
    assert "10 files, 18.1 MB, of which 18.1 MB to download into" in plan
    assert str(tmp_path / "cache") in plan
    checkpoints.pull(REPO)
    assert "of which 0 B" in json.dumps(form(REPO)["plan"])
    assert "no repository me/other that you may see" in form("me/other")["problem"]["error_message"]


def test_progress_is_shown_and_the_checksums_are_compared(dataset, plugin, pushed, tmp_path):
    told = messages(URI, dataset, checkpoint=REPO)
    shares, labels = zip(*progress(told), strict=True)
    shares = list(shares)
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert any(0 < share < 1 for share in shares)
    assert shares[-1] == 1
    assert labels[-1] == f"Pull checkpoint: 18.1 MB of 18.1 MB of {REPO}, into {tmp_path / 'cache'}"
    ((_, last),) = [t for t in told if t[0] == "notify"]
    assert f"{REPO}@{pushed} is in" in last["message"]
    assert "checksums of 10 files agree" in last["message"]
    assert weights(checkpoints.pull(REPO, options=HubOptions(local_files_only=True)).reasoner) == weights(NANO)


def test_a_checkpoint_on_this_disk_shows_no_download(dataset, plugin):
    checkpoints.pull(REPO)
    told = messages(URI, dataset, checkpoint=REPO)
    assert [name for name, _ in told] == ["show_output", "notify", "show_output"]
    assert [label for _, label in progress(told)] == ["Pull checkpoint: starting"]


def test_a_resumed_download_counts_what_is_here(hub, dataset, plugin):
    with hub.fault("GET .*/resolve/.*/model.safetensors", "reset", times=1):
        told = messages(URI, dataset, checkpoint=REPO)
    shares = [share for share, _ in progress(told)]
    assert max(shares) == shares[-1] == 1


def test_what_cannot_be_pulled_is_refused(dataset, plugin):
    with pytest.raises(ExecutionError, match="The Hub has no repository me/other"):
        foo.execute_operator(URI, {"dataset": dataset}, params={"checkpoint": "me/other"})


def test_a_download_that_fails_is_explained(hub, dataset, plugin):
    with hub.fault("GET .*/resolve/.*/model.safetensors", 403):
        ((_, told),) = [t for t in messages(URI, dataset, checkpoint=REPO) if t[0] == "notify"]
    assert told["variant"] == "error"
    assert f"Nothing was pulled: the Hub refused {REPO}" in told["message"]


def test_segmenting_fetches_what_is_missing_and_names_the_commit(dataset, plugin, pushed):
    told = messages(SEGMENT, dataset, checkpoint=REPO, expressions="all shapes", device="cpu")
    labels = [label for _, label in progress(told)]
    assert any(f"of 18.1 MB of {REPO}" in label for label in labels)
    assert "4 of" in labels[-1] or "of 16 expressions" in labels[-1]
    dataset.reload()
    assert dataset.distinct("genseg_responses.checkpoint") == [f"{REPO}@{pushed}"]
    assert dataset.distinct("genseg.detections.checkpoint") == [f"{REPO}@{pushed}"]
