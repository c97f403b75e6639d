"""The panel "Compare answers", event by event as the App sends them, without a browser."""

import asyncio
import json
import re
from pathlib import Path

import fiftyone as fo
import pytest
from fiftyone.operators.executor import ExecutionContext, execute_or_delegate_operator

from fiftyone_genseg import proposals
from fiftyone_genseg.evaluation import differences
from fiftyone_genseg.statuses import NO_TARGET, SEGMENTED
from tests.helpers.squares import one, response, square

URI = "@fiftyone-genseg/genseg/side_by_side"


class Opened:
    """The open panel: sends events and keeps what the App would show."""

    def __init__(self, dataset, modal=True):
        self.dataset, self.view, self.modal = dataset, dataset.view(), modal
        self.sample, self.data, self.schema, self.asked = "", {}, "", []

    def send(self, method, **params):
        request = {
            "dataset_name": self.dataset.name,
            "view": self.view._serialize(),
            "params": {"panel_id": f"panel-{id(self)}", "__method__": method, "panel_state": {}, **params},
            "current_sample" if self.modal else "selected": self.sample if self.modal else [self.sample],
        }
        result = asyncio.run(execute_or_delegate_operator(URI, request, exhaust=True))
        assert result.error is None, result.error
        self.asked = []
        for call in result.executor._requests:
            name, given = call.operator_uri.split("/")[-1], call.params
            assert not name.endswith("panel_state")
            if name.endswith("panel_data"):
                self.data |= given["data"]
            elif name == "show_panel_output":
                self.schema = json.dumps(given["output"])
            else:
                self.asked.append((name, given))
        return self

    def go(self, direction):
        """Press a button, and open the sample that it asks for; return the sample's number."""
        self.send(f"{direction}_difference")
        for name, given in self.asked:
            assert name == ("open_sample" if self.modal else "set_selected_samples")
            self.sample = given["id"] if self.modal else given["samples"][0]["id"]
            self.send("on_change_current_sample" if self.modal else "on_change_selected")
        return self.dataset.values("id").index(self.sample) if self.sample else None

    def menu(self, name):
        (texts,) = re.findall(rf'"{name}_\d+".*?"text": (\[.*?\])', self.schema)
        return json.loads(texts)


def sample(first, second, thought="looked <i>twice</i>\n# and [again](http://a.b)"):
    """Return a sample for "the <b>red</b> car"; a side is a status with a mask, or without."""
    made = one("the <b>red</b> car", [square(0, 0)], None, None)
    for name, (status, masks) in zip(("plain", "tuned"), (first, second), strict=True):
        made[name] = fo.Detections(detections=masks)
        answer = response("the <b>red</b> car", status)
        answer["reasoning"], answer["checkpoint"] = thought, f"{name}@abc"
        made[f"{name}_responses"] = [answer]
    return made


@pytest.fixture
def dataset(make, plugin):
    """Ten samples: 2 and 4 differ by their masks, 7 by its outcome."""
    hit, shifted, missed = (
        lambda: (SEGMENTED, [square(0, 0)]),
        lambda: (SEGMENTED, [square(2, 0)]),
        lambda: (NO_TARGET, []),
    )
    sides = [(hit, hit)] * 10
    sides[2] = sides[4] = hit, shifted
    sides[7] = missed, hit
    return make(*[sample(first(), second()) for first, second in sides])


def test_the_empty_states_tell_the_next_step(make, plugin, dataset):
    plain = Opened(make({"expression": "a"})).send("on_load")
    assert "Nothing to compare" in plain.schema
    assert "compare_checkpoints" in plain.schema
    assert "Open a sample" in Opened(dataset).send("on_load").schema


def test_both_answers_are_shown(dataset):
    panel = Opened(dataset)
    panel.sample = dataset.values("id")[2]
    panel.send("on_load")
    assert panel.data["about_0"] == r"###### the \<b\>red\<\/b\> car" + "\n\n**mask IoU 0.67**, below 0.9"
    sides = panel.data["sides_0"]
    assert sides["first"]["words"].startswith("**plain**\n\nsegmented · plain@abc · IoU 1.00 with the ground truth")
    assert sides["second"]["words"].startswith("**tuned**\n\nsegmented · tuned@abc · IoU 0.67 with the ground truth")
    assert sides["first"]["words"].endswith(r"looked \<i\>twice\<\/i\> \# and \[again\]\(http\:\/\/a\.b\)")
    assert sides["truth"]["words"] == "**ground truth**\n\n1 instance"
    for side in ("first", "second", "truth"):
        assert sides[side]["picture"].startswith("data:image/jpeg;base64,")
    panel.send("choose_threshold", value="0.5")
    assert panel.data["about_0"].endswith("\n\nmask IoU 0.67")
    panel.sample = dataset.values("id")[7]
    panel.send("on_change_current_sample")
    assert panel.data["about_0"].endswith("**other outcome**")
    assert r"no\-target" in panel.data["sides_0"]["first"]["words"]


@pytest.mark.parametrize("modal", [True, False])
def test_from_difference_to_difference(dataset, modal):
    panel = Opened(dataset, modal).send("on_load")
    assert panel.send("next_difference").asked[0][0] == "set_selected_samples"  # no sample is open
    panel.sample = dataset.first().id
    assert [panel.go("next") for _ in range(3)] == [2, 4, 7]
    assert panel.go("next") == 7
    assert panel.data["said"] == "No further difference among 2 samples after this one."
    assert [panel.go("previous") for _ in range(2)] == [4, 2]
    panel.send("choose_threshold", value="0.5")
    assert panel.go("next") == 7
    panel.view = dataset.limit(5)  # without the open sample
    assert panel.go("next") == 7
    assert panel.data["said"] == "No difference among 5 samples of the view."


def test_a_view_has_its_own_order(dataset):
    panel = Opened(dataset)
    panel.view = dataset.sort_by("id", reverse=True)
    panel.sample = dataset.last().id
    assert [panel.go("next") for _ in range(3)] == [7, 4, 2]


def test_a_search_that_takes_long_goes_on_with_the_next_click(dataset, monkeypatch):
    monkeypatch.setattr(differences, "SECONDS", 0)
    monkeypatch.setattr(differences, "_BATCH", 1)
    panel = Opened(dataset)
    panel.sample = dataset.values("id")[4]
    for searched in (1, 2):
        assert panel.go("next") == 4
        left = 5 - searched
        assert panel.data["said"].startswith(f"No difference among {searched} sample")
        assert f"{left} are left" in panel.data["said"]
    assert panel.go("next") == 7


def test_the_fields_are_chosen(dataset):
    for name in ("", "_responses"):
        dataset.clone_sample_field(f"plain{name}", f"third{name}")
    panel = Opened(dataset).send("on_load")
    assert (panel.menu("first")[0], panel.menu("second")[0]) == ("tuned", "third")
    proposals.propose_fields(ExecutionContext(request_params={"dataset_name": dataset.name}), ["plain", "tuned"])
    panel.send("on_load")
    assert (panel.menu("first")[0], panel.menu("second")[0]) == ("plain", "tuned")
    panel.send("choose_second", value="third")
    assert (panel.menu("first")[0], panel.menu("second")[0]) == ("plain", "third")
    panel.send("choose_first", value="third")
    assert (panel.menu("first")[0], panel.menu("second")[0]) == ("third", "plain")
    panel.sample = dataset.first().id
    assert panel.go("next") == 0  # the third field is a copy of the first
    assert panel.data["said"] == "No further difference among 9 samples after this one."
    dataset.delete_sample_fields(["third", "third_responses"])
    panel.send("on_load")
    assert (panel.menu("first")[0], panel.menu("second")[0]) == ("plain", "tuned")


def test_what_cannot_be_read_is_said(dataset):
    broken = dataset.first()
    broken["tuned"] = fo.Detections(detections=[fo.Detection(bounding_box=[0, 0, 0.1, 0.1])])
    broken["filepath"] = str(Path(broken.filepath).with_name("gone.png"))
    broken.save()
    panel = Opened(dataset)
    panel.sample = broken.id
    panel.send("on_load")
    assert "the masks cannot be compared" in panel.data["about_0"]
    assert panel.data["sides_0"]["first"]["picture"] is None
    assert "gone.png" in panel.schema
