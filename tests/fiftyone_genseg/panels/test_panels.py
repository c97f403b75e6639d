"""Both panels, event by event as the App sends them, without a browser."""

import asyncio
import json

import datasets
import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import execute_or_delegate_operator
from PIL import Image

import fiftyone_genseg
from fiftyone_genseg import labels
from fiftyone_genseg.datasets.export import export
from fiftyone_genseg.panels import _runs
from tests.helpers.squares import one, response, square

EVALUATION = "@fiftyone-genseg/genseg/referring_evaluation"
SLICES = "@fiftyone-genseg/genseg/failure_slices"


class Panel:
    """One open panel: sends events and keeps what the App would show."""

    def __init__(self, uri, dataset):
        self.uri, self.dataset, self.view = uri, dataset, dataset.view()
        self.id = f"panel-{id(self)}"
        self.state, self.data, self.schema = {}, {}, None

    def send(self, method, **params):
        request = {
            "dataset_name": self.dataset.name,
            "view": self.view._serialize(),
            "params": {"panel_id": self.id, "__method__": method, "panel_state": self.state, **params},
        }
        result = asyncio.run(execute_or_delegate_operator(self.uri, request, exhaust=True))
        assert result.error is None, result.error
        self.asked = []
        for call in result.executor._requests:
            name, given = call.operator_uri.split("/")[-1], call.params
            if name.endswith("panel_state"):
                self.state |= given["state"]
            elif name.endswith("panel_data"):
                self.data |= given["data"]
            elif name == "show_panel_output":
                self.schema = json.dumps(given["output"])
            else:
                self.asked.append((name, given))
        return self

    def shown(self):
        """Sample ids of the view that was asked for."""
        ((_, given),) = [(n, g) for n, g in self.asked if n == "set_view"]
        return set(fo.DatasetView._build(self.dataset, given["view"]).values("id"))


@pytest.fixture
def dataset(make, plugin):
    """60 expressions, the blue ones of run `bad` wrong."""
    samples = []
    for number in range(60):
        colour = ("red", "blue", "green")[number % 3]
        samples.append(
            one(f"the {colour} thing", [square(0, 0)], [square(0, 0)]) | {"light": ["day", "night"][number % 2]}
        )
    dataset = make(*samples)
    dataset.clone_sample_field("genseg", "other")
    dataset.clone_sample_field("genseg_responses", "other_responses")
    for sample in dataset.match(fo.ViewField("expression") == "the blue thing").iter_samples(autosave=True):
        sample["other"] = fo.Detections(detections=[square(20, 10)])
    fiftyone_genseg.evaluate(dataset, "genseg", eval_key="good", progress=False)
    fiftyone_genseg.evaluate(dataset, "other", eval_key="bad", progress=False)
    return dataset


def blue(dataset):
    return set(dataset.match(fo.ViewField("expression") == "the blue thing").values("id"))


@pytest.mark.parametrize("uri", [EVALUATION, SLICES])
def test_the_empty_states_tell_the_next_step(uri, make, plugin):
    plain = make({"expression": "a"})
    assert "Nothing is segmented yet" in Panel(uri, plain).send("on_load").schema
    predicted = make(one("a", [square(0, 0)], [square(0, 0)]))
    opened = Panel(uri, predicted).send("on_load")
    assert "No evaluation yet" in opened.schema
    assert "evaluate_referring_segmentation" in opened.schema


def test_figures_clicks_and_comparison(dataset):
    panel = Panel(EVALUATION, dataset).send("on_load")
    assert panel.state["runs"] == ["bad"]
    assert panel.state["scope"] == "bad: All 60 expressions of the run."
    assert panel.send("click_figures", row=0, column=1).shown() == blue(dataset)
    assert sum(panel.data["plots.histogram"][0]["y"]) == 60
    assert panel.send("click_histogram", idx=0, trace_idx=0).shown() == blue(dataset)
    assert panel.send("click_histogram", idx=19, trace_idx=0).shown() == set(dataset.values("id")) - blue(dataset)
    assert panel.send("click_precision", idx=0, trace_idx=0).shown() == set(dataset.values("id")) - blue(dataset)
    assert panel.send("click_confusion", x="answered", y="target").shown() == set(dataset.values("id"))
    panel.send("compare_with", value="good")
    assert panel.state["runs"] == ["bad", "good"]
    assert "good against bad on 60 expressions" in panel.state["difference"]
    assert "20 better, 0 worse" in panel.state["difference"]
    assert panel.send("click_flips", row=0).shown() == blue(dataset)
    assert panel.send("click_flips", row=1).asked[0][0] == "notify"
    panel.send("alone")
    assert panel.state["runs"] == ["bad"]


def test_a_late_event_does_not_undo_a_choice(dataset):
    """The App sends events with the state as it was when their handler was made."""
    panel = Panel(EVALUATION, dataset).send("on_load")
    early = dict(panel.state)
    panel.send("compare_with", value="good")
    panel.state = early
    panel.send("on_change_view")
    assert panel.state["runs"] == ["bad", "good"]
    panel.send("compare_with", value="")  # what the App sends when it draws the choice
    assert panel.state["runs"] == ["bad", "good"]


def test_the_figures_follow_the_view_but_not_the_panels_own(dataset):
    panel = Panel(EVALUATION, dataset).send("on_load")
    panel.view = dataset.match(fo.ViewField("light") == "day")
    panel.send("on_change_view")
    assert panel.state["scope"].startswith("bad: 30 of the 60 expressions")
    shown = panel.send("click_figures", row=0, column=1).shown()
    assert shown == blue(dataset) & set(panel.view.values("id"))
    panel.view = fo.DatasetView._build(dataset, panel.asked[0][1]["view"])
    panel.send("on_change_view")
    assert panel.state["scope"].startswith("bad: 30 of the 60 expressions")


def test_an_overwritten_run_shows_its_new_figures(dataset):
    panel = Panel(EVALUATION, dataset).send("on_load")
    before = panel.data
    fiftyone_genseg.evaluate(dataset, "genseg", eval_key="bad", progress=False)
    panel.data = {}
    panel.send("reload")
    assert panel.data != before
    assert panel.send("click_histogram", idx=0, trace_idx=0).asked[0][0] == "notify"  # nothing is wrong now


def test_slices_kinds_gallery_and_actions(dataset, tmp_path):
    panel = Panel(SLICES, dataset).send("on_load")
    assert panel.data["slices"][0]["slice"] == "colour = blue"
    panel.send("choose_slice", row=0)
    assert panel.state["chosen"] == "colour = blue: 20 expressions"
    assert panel.data["kinds"] == [{"type": "bar", "name": "reasoner", "x": ["wrong_instance"], "y": [20]}]
    assert len(panel.state["gallery"]) == 6
    assert panel.data["picture_0"].startswith("data:image/jpeg;base64,")
    assert panel.data["expression_0"] == "the blue thing"
    assert panel.data["verdict_0"] == "wrong_instance, IoU 0.00"
    assert panel.send("show_in_grid").shown() == blue(dataset)
    assert panel.send("click_kind", x="wrong_instance").shown() == blue(dataset)
    panel.send("tag")
    dataset.reload()
    assert set(dataset.match_tags("failure-slice").values("id")) == blue(dataset)
    panel.send("choose_against", value="good")
    assert "-100.0 points [-100.0, -100.0] against good on 20 expressions" in panel.state["difference"]
    prompt = panel.send("export").asked[0][1]
    folder = tmp_path / "set"
    foo.execute_operator(
        prompt["operator_uri"], {"dataset": dataset}, params=prompt["params"] | {"folder": str(folder)}
    )
    saved = datasets.load_from_disk(folder)
    assert set(saved["expression"]) == {"the blue thing"}
    assert len(saved) == 20
    assert (panel.data["slices"][0]["wins"], panel.data["slices"][0]["losses"]) == ("0", "20")
    panel.send("choose_slice", row=-1)
    assert panel.state["chosen"] == "everything: 60 expressions"


def test_a_panel_does_not_follow_the_view_that_it_set(dataset):
    panel = Panel(SLICES, dataset).send("on_load").send("choose_slice", row=0).send("show_in_grid")
    panel.view = fo.DatasetView._build(dataset, panel.asked[0][1]["view"])
    panel.send("on_change_view").send("choose_slice", row=-1)
    assert panel.state["chosen"] == "everything: 60 expressions"
    assert len(panel.data["slices"]) > 0


def test_what_is_gone_does_not_wedge_an_open_panel(dataset):
    panel = Panel(SLICES, dataset).send("on_load").send("add_field", value="light")
    _runs._MEMORIES[panel.id]["slice"] = {"light": "night"}
    dataset.delete_sample_field("light")
    panel.send("reload")
    assert panel.state["problem"] is None
    assert panel.state["chosen"] == "everything: 60 expressions"
    figures = Panel(EVALUATION, dataset).send("on_load")
    for key in dataset.list_evaluations():
        dataset.delete_evaluation(key)
    assert figures.send("click_histogram", idx=0, trace_idx=0).asked[0][0] == "notify"
    assert panel.send("show_in_grid").asked[0][0] == "notify"


def test_the_slices_of_another_field_are_not_taken_for_it(dataset):
    dataset.clone_sample_field("light", "shade")
    panel = Panel(SLICES, dataset).send("on_load").send("add_field", value="light")
    panel.send("drop_fields").send("add_field", value="shade")
    assert not any("light" in row["slice"] for row in panel.data["slices"])


def test_runs_under_different_policies_are_not_compared(dataset):
    fiftyone_genseg.evaluate(dataset, "genseg", eval_key="other_policy", policy="refcoco", progress=False)
    panel = Panel(EVALUATION, dataset).send("on_load").send("compare_with", value="good")
    assert "different (policy, min_pixels)" in panel.state["difference"]
    assert panel.data["flips"] == []
    panel = Panel(SLICES, dataset).send("on_load").send("choose_against", value="good")
    assert "different (policy, min_pixels)" in panel.state["difference"]


def test_slices_are_sorted_filtered_and_widened_by_fields(dataset):
    for sample in dataset.match(fo.ViewField("light") == "night").iter_samples(autosave=True):
        sample["other"] = fo.Detections()
    fiftyone_genseg.evaluate(dataset, "other", eval_key="bad", progress=False)
    panel = Panel(SLICES, dataset).send("on_load")
    assert not any("light" in row["slice"] for row in panel.data["slices"])
    panel.send("add_field", value="light")
    assert panel.data["slices"][0]["slice"] == "light = night"
    panel.send("filter_slices", value="blue")
    assert all("blue" in row["slice"] for row in panel.data["slices"])
    panel.send("filter_slices", value="")
    panel.send("choose_sort", value="n")
    sizes = [int(row["n"]) for row in panel.data["slices"]]
    assert sizes == sorted(sizes, reverse=True)
    panel.send("drop_fields")
    assert not any("light" in row["slice"] for row in panel.data["slices"])


def test_an_error_is_a_sentence_in_the_panel(dataset):
    document = dataset._doc.evaluations["bad"]
    document.results.delete()
    document.results.put(b"{}", content_type="application/json")
    document.save()
    panel = Panel(SLICES, dataset).send("on_load")
    assert panel.state["problem"].startswith("The run could not be shown")
    assert "could not be shown" in panel.schema


def test_export_of_several_expressions_per_image(make, tmp_path):
    dataset = make(
        {
            "ground_truth": fo.Detections(
                detections=[square(0, 0, expression=["left"]), square(20, 0, expression=["right", "both"])]
            ),
            "genseg_responses": [response("left", labels.SEGMENTED)],
        }
    )
    dataset.first()["ground_truth"].detections[0].expression = ["left", "both"]
    assert export(dataset, tmp_path / "all", expression_field=None) == 3
    saved = datasets.load_from_disk(tmp_path / "all")
    assert saved["expression"] == ["left", "right", "both"] or set(saved["expression"]) == {"left", "right", "both"}
    pairs = [(dataset.first().id, "right")]
    assert export(dataset, tmp_path / "one", expression_field=None, pairs=pairs) == 1


def test_export_of_a_rotated_photograph(make, tmp_path):
    dataset = make(one("it", [square(0, 0)], []))
    photo = Image.new("RGB", (30, 40))  # 40 x 30 once it is turned
    photo.save(tmp_path / "turned.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
    sample = dataset.first()
    sample.filepath = str(tmp_path / "turned.jpg")
    sample.save()
    export(dataset, tmp_path / "set")
    (row,) = datasets.load_from_disk(tmp_path / "set")
    assert row["image"].size == (40, 30)
    assert row["masks"][0]["size"] == [30, 40]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "required property|Name a folder"),
        ({"folder": "{tmp}"}, "not an empty folder"),
        ({"folder": "{tmp}/new", "gt_field": "nope"}, "holds no Detections"),
    ],
)
def test_the_export_refuses_what_cannot_work(dataset, tmp_path, params, message):
    (tmp_path / "something").touch()
    params = {name: value.replace("{tmp}", str(tmp_path)) for name, value in params.items()}
    with pytest.raises(Exception, match=f"(?i)({message})|validation"):
        foo.execute_operator("@fiftyone-genseg/genseg/export_referring_examples", {"dataset": dataset}, params=params)
