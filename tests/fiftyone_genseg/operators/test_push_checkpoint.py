"""The operator "Push checkpoint to Hub", on a Hub of the loopback."""

import json

import fiftyone.operators as foo
import huggingface_hub
import pytest
from fiftyone.operators.delegated import DelegatedOperationService
from fiftyone.operators.executor import ExecutionContext

from fiftyone_genseg.operators.push_checkpoint import PushCheckpoint
from tests.helpers.hub_server import REPO, WRITER

URI = "@fiftyone-genseg/genseg/push_checkpoint"


def form(**params) -> dict:
    context = ExecutionContext(operator_uri=URI, request_params={"params": params})
    return PushCheckpoint().resolve_input(context).to_json()["type"]["properties"]


def test_the_form_shows_what_would_be_sent(hub, folder):
    properties = form(folder=str(folder), repo_id=REPO)
    preview = json.dumps(properties["preview"])
    assert "18 files, 18.2 MB" in preview
    assert "segmenter/model.safetensors" in preview
    assert "problem" not in properties
    assert hub.requests == []


@pytest.mark.parametrize(
    ("params", "message"),
    [({"folder": "/nowhere"}, "there is no folder /nowhere"), ({"repo_id": "nano"}, "'nano' is not a Hub id")],
)
def test_the_form_says_what_is_wrong(folder, params, message):
    problem = form(**({"folder": str(folder), "repo_id": REPO} | params))["problem"]
    assert problem["invalid"]
    assert message in problem["error_message"]


def test_the_token_is_a_secret_and_never_a_parameter(hub, folder, plugin, monkeypatch):
    assert "token" not in "".join(form()).lower()
    result = foo.execute_operator(URI, params={"folder": str(folder), "repo_id": REPO, "private": True})
    assert result.result["commit"] == hub.heads()[REPO]["main"]
    assert hub.repositories[REPO].private
    assert WRITER not in json.dumps(result.result)


def test_a_damaged_secret_is_in_no_run(hub, folder, plugin, dataset, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hidden and broken")
    params = {"folder": str(folder), "repo_id": REPO}
    foo.execute_operator(URI, {"dataset": dataset}, params=params, request_delegation=True)
    service = DelegatedOperationService()
    service.execute_queued_operations(log=False)
    (operation,) = [o for o in service.list_operations() if o.dataset_id == dataset._doc.id]
    assert operation.run_state == "failed"
    assert "the token for the Hub is malformed" in operation.result.error
    assert "hidden" not in str(operation.to_pymongo())
    assert hub.requests == []


def test_without_a_secret_the_login_counts(hub, folder, plugin, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: WRITER)
    result = foo.execute_operator(URI, params={"folder": str(folder), "repo_id": REPO, "revision": "v2"})
    assert result.result["commit"] == hub.heads()[REPO]["v2"]


def test_a_failure_is_explained(hub, folder, plugin, monkeypatch):
    with hub.fault("POST .*/commit/", 403), pytest.raises(Exception, match="may not write to me/nano"):
        foo.execute_operator(URI, params={"folder": str(folder), "repo_id": REPO})
