"""The panel "Ask", event by event as the App sends them, without a browser."""

import asyncio
import json

import pytest
from fiftyone.operators.executor import execute_or_delegate_operator

from fiftyone_genseg import uris
from fiftyone_genseg.asking import answering, corrections
from fiftyone_genseg.segmentation.request import SegmentRequest

pytestmark = pytest.mark.usefixtures("new_questions")


@pytest.fixture
def panel(dataset, plugin):
    """Return a function that sends an event about a sample, and returns the messages to the App."""

    def send(method, sample=None, state=None, selected=(), **params):
        request = {
            "dataset_name": dataset.name,
            "view": dataset.view()._serialize(),
            "current_sample": sample,
            "selected": list(selected),
            "params": {"panel_id": "ask", "__method__": method, "panel_state": state or {}, **params},
        }
        result = asyncio.run(execute_or_delegate_operator(uris.ASK_PANEL, request, exhaust=True))
        assert result.error is None, result.error
        return [(call.operator_uri.split("/")[-1], call.params) for call in result.executor._requests]

    return send


def drawn(messages):
    return json.dumps(dict(messages)["show_panel_output"]["output"])


def test_enter_asks_and_a_letter_does_nothing(dataset, panel):
    sample = dataset.first().id
    assert panel("typed", sample, path="expression", value="the red") == []
    told = dict(panel("typed", sample, path="expression", value=" the  red thing\n"))
    assert told["ask"] == {"panel_id": "ask", "sample_id": sample, "expression": "the red thing"}
    assert told["patch_panel_state"]["state"] == {"expression": ""}
    told = dict(panel("ask", sample, state={"expression": "the cup"}))
    assert told["ask"]["expression"] == "the cup"
    assert "ask" not in dict(panel("typed", sample, path="expression", value="\n"))


def test_in_the_grid_one_selected_sample_is_asked_about(dataset, panel):
    first, second = dataset.values("id")[:2]
    assert "select one in the grid" in drawn(panel("on_load"))
    assert "select one in the grid" in drawn(panel("on_load", selected=[first, second]))
    layout = drawn(panel("on_load", selected=[second]))
    assert second in layout
    assert '"TextFieldView"' not in layout  # the App would write it into the panel's state, and clear the filters


def test_answers_are_judged_and_corrected(dataset, panel):
    target = next(sample for sample in dataset if sample["ground_truth"].detections)
    expression = target["expression"]
    list(answering.ask(dataset, target.id, SegmentRequest((expression,), device="cpu")))
    layout = drawn(panel("on_load", target.id))
    assert expression in layout
    assert "Nothing is meant" in layout
    told = dict(panel("correct", target.id, expression=expression))
    written = told["patch_panel_state"]["state"]["prompt"]
    assert written.startswith("box ")
    assert "Segment again" in drawn(told.items())
    before = dataset[target.id]["genseg_boxes"].detections[0].bounding_box
    told = dict(panel("move", target.id, direction="right"))
    assert told["show_sample"]["sample"]["_id"] == target.id
    dataset.reload()
    assert dataset[target.id]["genseg_boxes"].detections[0].bounding_box[0] > before[0]
    told = dict(panel("again_from_text", target.id, state={"prompt": "box 1 2 3"}))
    assert "cannot be read" in told["notify"]["message"]
    panel("add_outside", target.id)
    panel("again_from_text", target.id, state={"prompt": "box 5 5 60 60\n+ 30 30"})
    (prompt,) = corrections.prompts_of(dataset[target.id], "genseg", expression)
    assert prompt.box == pytest.approx((5, 5, 60, 60), abs=0.01)
    panel("again_from_text", target.id, state={"prompt": written})
    told = dict(panel("keep", target.id, expression=expression))
    assert told["show_field"]["field"] == "kept"
    assert corrections.is_kept(dataset[target.id], expression)
    assert "show_field" not in dict(panel("nothing", target.id, expression=expression))
    panel("forget", target.id, expression=expression)
    assert not corrections.is_kept(dataset[target.id], expression)
    panel("delete", target.id, expression=expression)
    assert "Nothing was asked" in drawn(panel("on_load", target.id))
    told = dict(panel("keep", target.id, expression=expression))
    assert "ask again" in told["notify"]["message"]


def test_on_all_opens_the_form(dataset, panel):
    told = dict(panel("on_all", dataset.first().id, expression="the red thing"))
    params = told["prompt_user_for_operation"]["params"]
    assert (params["source"], params["expressions"]) == ("typed", "the red thing")


def test_beside_the_grid_the_editor_writes_no_state(dataset, panel):
    target = next(sample for sample in dataset if sample["ground_truth"].detections)
    list(answering.ask(dataset, target.id, SegmentRequest((target["expression"],), device="cpu")))
    told = dict(panel("correct", selected=[target.id], expression=target["expression"]))
    assert "patch_panel_state" not in told
    assert "Segment again" in drawn(told.items())
    assert '"TextFieldView"' not in drawn(told.items())
    assert "patch_panel_state" not in dict(panel("move", selected=[target.id], direction="right"))
