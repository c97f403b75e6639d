"""The operators behind the panel "Ask", as the App runs them."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from fiftyone.operators.executor import ExecutionContext, ExecutionError, execute_or_delegate_operator

from fiftyone_genseg import outputs, uris
from fiftyone_genseg.asking import settings
from fiftyone_genseg.cards import cards
from fiftyone_genseg.messages import plain
from fiftyone_genseg.operators.ask_settings import AskSettings

pytestmark = pytest.mark.usefixtures("new_questions")


@pytest.fixture
def messages(dataset, plugin):
    """Return a function that asks, and returns the messages to the App as (operator, params)."""

    def ask(expression, sample_id=None, **request):
        request = {
            "dataset_name": dataset.name,
            "view": dataset.view()._serialize(),
            "params": {"panel_id": "a panel", "sample_id": sample_id or dataset.first().id, "expression": expression},
            **request,
        }
        result = asyncio.run(execute_or_delegate_operator(uris.ASK, request))
        said = [message.body for message in result.result]
        return [(call.operator_uri.split("/")[-1], call.params) for call in said]

    return ask


def test_the_app_is_told_each_step(dataset, messages):
    target = next(sample for sample in dataset if sample["ground_truth"].detections)
    told = messages(target["expression"], target.id)
    names = [name for name, _ in told]
    assert names[:2] == ["patch_panel_data", "show_field"]
    assert names[-2:] == ["show_sample", "ask_panel#answered"]
    assert names.count("show_sample") == 2  # with boxes, and with masks
    said = [params["data"]["progress"] for name, params in told if name == "patch_panel_data"]
    assert any("Thinking" in words for words in said)
    shown = [params["sample"] for name, params in told if name == "show_sample"]
    assert [bool(sample["genseg"]["detections"]) for sample in shown] == [False, True]
    assert isinstance(shown[-1]["genseg"]["detections"][0]["mask"], str)
    dataset.reload()
    assert [card.expression for card in cards(dataset[target.id], "genseg")] == [target["expression"]]
    assert "show_field" not in [name for name, _ in messages("the red thing", target.id)]  # it is known now


def test_one_event_that_comes_twice_declares_the_fields_once(dataset, messages, monkeypatch):
    declare, told = outputs.declare_fields, []

    def declare_while_the_event_comes_again(*args):
        with ThreadPoolExecutor(1) as thread:
            told.append(thread.submit(messages, "the red thing").result())
        declare(*args)

    monkeypatch.setattr(outputs, "declare_fields", declare_while_the_event_comes_again)
    assert [name for name, _ in messages("the red thing")].count("show_field") == 1
    (again,) = told
    assert {name for name, _ in again} == {"patch_panel_data"}


@pytest.mark.parametrize(
    ("saved", "expression", "said"),
    [
        ({}, "  ", "expression"),
        ({"checkpoint": "Qwen/Qwen3-VL-4B-Instruct"}, "a", 'is not on this disk: run "Pull checkpoint" first'),
        ({"checkpoint": "nano", "output_field": "ground_truth"}, "a", "no run wrote there"),
        ({"checkpoint": "nano", "server": "localhost"}, "a", "localhost"),
    ],
)
def test_what_cannot_be_asked_is_said(dataset, messages, saved, expression, said):
    if saved:
        settings.save(dataset, saved)
    told = messages(expression)
    ((_, error),) = [(name, params) for name, params in told if name == "notify"]
    assert said in error["message"]
    assert error["variant"] == "error"
    name, last = told[-1]
    assert name == "patch_panel_data"
    assert plain(said) in last["data"]["progress"]  # it stays in the panel
    assert not dataset.has_field("genseg_responses")


def test_no_sample_is_said(dataset, messages):
    told = messages("a", "0" * 24)
    assert any("no samples" in params.get("message", "") for _, params in told)


def test_settings_are_checked_and_kept(dataset, plugin):
    def form(**params):
        ctx = ExecutionContext({"dataset_name": dataset.name, "params": params})
        return AskSettings().resolve_input(ctx).to_json()["type"]["properties"]

    def send(**params):
        request = {"dataset_name": dataset.name, "params": params}
        return asyncio.run(execute_or_delegate_operator(uris.ASK_SETTINGS, request))

    assert "problem" not in form()
    assert form()["checkpoint"]["default"] == "nano"
    assert next(iter(form(checkpoint="no such/thing/here"))) == "problem"
    with pytest.raises(ExecutionError, match="no such/thing/here"):
        send(checkpoint="no such/thing/here")
    assert settings.load(dataset) == {"checkpoint": "nano"}
    assert send(checkpoint="nano-sft", output_field="asked").error is None
    assert settings.load(dataset) == {"checkpoint": "nano-sft", "output_field": "asked"}
    assert form()["output_field"]["default"] == "asked"
    assert send(checkpoint="", server="http://127.0.0.1:9/v1").error is None  # the model of the server
    assert settings.request_for(dataset, "a").name is None
