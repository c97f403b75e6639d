"""Both panels, event by event as the App sends them, without a browser."""

import asyncio
import json
import re

import datasets
import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionContext, execute_or_delegate_operator
from PIL import Image

import fiftyone_genseg
from fiftyone_genseg import proposals, statuses
from fiftyone_genseg.datasets.export import export
from tests.helpers.squares import one, response, square

EVALUATION = "@fiftyone-genseg/genseg/referring_evaluation"
SLICES = "@fiftyone-genseg/genseg/failure_slices"


class Panel:
    """One open panel: sends events and keeps what the App would show."""

    def __init__(self, uri, dataset):
        self.uri, self.dataset, self.view = uri, dataset, dataset.view()
        self.id = f"panel-{id(self)}"
        self.data, self.schema = {}, None

    def send(self, method, **params):
        request = {
            "dataset_name": self.dataset.name,
            "view": self.view._serialize(),
            "params": {"panel_id": self.id, "__method__": method, "panel_state": {}, **params},
        }
        result = asyncio.run(execute_or_delegate_operator(self.uri, request, exhaust=True))
        assert result.error is None, result.error
        self.asked = []
        for call in result.executor._requests:
            name, given = call.operator_uri.split("/")[-1], call.params
            assert not name.endswith("panel_state")  # each change makes the App reload and clear the sidebar's filters
            if name.endswith("panel_data"):
                self.data |= given["data"]
            elif name == "show_panel_output":
                self.schema = json.dumps(given["output"])
            else:
                self.asked.append((name, given))
        return self

    def inputs_that_write(self):
        """Return the parts that the App writes into the panel's state: defaults, and what is picked or typed."""
        return [
            name
            for name, part in _parts(json.loads(self.schema))
            if part.get("default") is not None
            or part["type"]["name"] in ("Enum", "Boolean", "Number")
            or (part["type"]["name"] == "String" and part["view"]["name"] not in _READ_ONLY)
        ]

    def menu(self, name):
        """Return what a menu of `_layout.dropdown` shows, the chosen value first."""
        ((_, part),) = [(n, p) for n, p in _parts(json.loads(self.schema)) if re.fullmatch(rf"{name}_\d+", n)]
        return part["view"]["text"]

    def traces(self, path):
        """Return the traces of a plot, which are part of the layout."""
        return dict(_parts(json.loads(self.schema)))[path]["view"]["data"]

    def shown(self):
        """Sample ids of the view that was asked for."""
        ((_, given),) = [(n, g) for n, g in self.asked if n == "set_view"]
        return set(fo.DatasetView._build(self.dataset, given["view"]).values("id"))


_READ_ONLY = ("LabelValueView", "PillBadgeView")


def _parts(schema):
    """Yield each property of a layout with its name."""
    for name, part in schema["type"].get("properties", {}).items():
        yield name, part
        yield from _parts(part)


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
    assert shown_runs(panel) == ["bad"]
    assert panel.data["scope"] == "bad: All 60 expressions of the run."
    assert panel.send("click_figures", row=0, column=1).shown() == blue(dataset)
    assert sum(panel.traces("histogram")[0]["y"]) == 60
    assert panel.send("click_histogram", idx=0, trace_idx=0).shown() == blue(dataset)
    assert panel.send("click_histogram", idx=19, trace_idx=0).shown() == set(dataset.values("id")) - blue(dataset)
    assert panel.send("click_precision", idx=0, trace_idx=0).shown() == set(dataset.values("id")) - blue(dataset)
    assert panel.send("click_confusion", x="answered", y="target").shown() == set(dataset.values("id"))
    panel.send("compare_with", value="good")
    assert shown_runs(panel) == ["bad", "good"]
    assert "good against bad on 60 expressions" in panel.data["difference"]
    assert "20 better, 0 worse" in panel.data["difference"]
    assert panel.send("click_flips", row=0).shown() == blue(dataset)
    assert panel.send("click_flips", row=1).asked[0][0] == "notify"
    panel.send("alone")
    assert shown_runs(panel) == ["bad"]


def shown_runs(panel):
    """Return the runs that a panel with figures shows."""
    return [text.split(":")[0] for text in re.findall(r"(\w+): (?:All|\d+ of)", panel.data["scope"])]


def test_what_is_chosen_already_changes_nothing(dataset):
    panel = Panel(EVALUATION, dataset).send("on_load").send("compare_with", value="good")
    panel.send("compare_with", value="add a run")
    panel.send("choose_run", value="bad")
    assert shown_runs(panel.send("on_change_view")) == ["bad", "good"]


@pytest.mark.parametrize("uri", [EVALUATION, SLICES])
def test_a_panel_leaves_its_state_to_the_app(dataset, uri):
    """The App reloads on each change of the state, and a reload clears the sidebar's filters."""
    panel = Panel(uri, dataset).send("on_load")
    whole = panel.data["scope"]
    panel.view = dataset.match(fo.ViewField("light") == "day")
    assert panel.send("on_change_view").data["scope"] != whole
    panel.send("on_change_dataset").send("reload")
    for method in {EVALUATION: ["click_figures", "alone"], SLICES: ["choose_slice", "show_in_grid"]}[uri]:
        panel.send(method, row=0, column=1)
    panel.send("choose_run", value="good").send("reload")
    assert panel.inputs_that_write() == []


def test_panels_share_no_choice_and_a_new_server_knows_it(dataset):
    def chosen(panel):
        return [panel.menu(name)[0] for name in ("run", "against", "sort", "field")]

    first, second = Panel(SLICES, dataset).send("on_load"), Panel(SLICES, dataset).send("on_load")
    first.send("choose_run", value="good").send("add_field", value="light").send("choose_sort", value="support")
    assert chosen(second.send("reload")) == ["bad", "nothing", "evidence", "add one"]
    reloaded = Panel(SLICES, dataset)
    reloaded.id = first.id
    assert chosen(reloaded.send("on_load")) == ["good", "nothing", "support", "add one"]
    assert "Sample fields: light" in reloaded.schema


def test_a_run_that_is_made_later_does_not_take_the_place_of_the_shown_one(dataset):
    panel = Panel(EVALUATION, dataset).send("on_load")
    fiftyone_genseg.evaluate(dataset, "genseg", eval_key="newer", progress=False)
    assert panel.send("click_figures", row=0, column=1).shown() == blue(dataset)
    assert shown_runs(panel.send("on_change_view")) == ["bad"]


def test_proposed_runs_are_shown_once(dataset):
    panel = Panel(EVALUATION, dataset).send("on_load")
    proposals.propose(ExecutionContext(request_params={"dataset_name": dataset.name}), ["good", "bad"])
    assert shown_runs(panel.send("on_change_dataset")) == ["good", "bad"]
    panel.send("alone")
    assert shown_runs(panel.send("reload")) == ["good"]


def test_the_figures_follow_the_view_but_not_the_panels_own(dataset):
    panel = Panel(EVALUATION, dataset).send("on_load")
    panel.view = dataset.match(fo.ViewField("light") == "day")
    panel.send("on_change_view")
    assert panel.data["scope"].startswith("bad: 30 of the 60 expressions")
    shown = panel.send("click_figures", row=0, column=1).shown()
    assert shown == blue(dataset) & set(panel.view.values("id"))
    panel.view = fo.DatasetView._build(dataset, panel.asked[0][1]["view"])
    panel.send("on_change_view")
    assert panel.data["scope"].startswith("bad: 30 of the 60 expressions")


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
    assert panel.data["chosen"] == "colour = blue: 20 expressions"
    (bars,) = panel.traces("kinds")
    assert (bars["name"], bars["x"], bars["y"]) == ("reasoner", ["wrong instance"], [20])
    assert bars["hovertext"][0].startswith("a target was not touched")
    assert sum(name.startswith("picture_") for name in panel.data) == 6
    assert "picture_5" in panel.schema
    assert panel.data["picture_0"].startswith("data:image/jpeg;base64,")
    assert panel.data["expression_0"] == "the blue thing"
    assert panel.data["verdict_0"] == "wrong instance, IoU 0.00"
    assert panel.send("show_in_grid").shown() == blue(dataset)
    assert panel.send("click_kind", x="wrong instance").shown() == blue(dataset)
    tagging = panel.send("tag").asked[0][1]
    foo.execute_operator(tagging["operator_uri"], {"dataset": dataset}, params=tagging["params"])
    dataset.reload()
    assert set(dataset.match_tags("failure-slice").values("id")) == blue(dataset)
    panel.send("choose_against", value="good")
    assert "-100.0 points [-100.0, -100.0] against good on 20 expressions" in panel.data["difference"]
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
    assert panel.data["chosen"] == "colour = blue: 20 expressions"
    panel.send("choose_everything")
    assert panel.data["chosen"] == "all expressions: 60 expressions"


def test_a_panel_does_not_follow_the_view_that_it_set(dataset):
    panel = Panel(SLICES, dataset).send("on_load").send("choose_slice", row=0).send("show_in_grid")
    panel.view = fo.DatasetView._build(dataset, panel.asked[0][1]["view"])
    panel.send("on_change_view").send("choose_everything")
    assert panel.data["chosen"] == "all expressions: 60 expressions"
    assert len(panel.data["slices"]) > 0


def test_what_is_gone_does_not_wedge_an_open_panel(dataset):
    for sample in dataset.match(fo.ViewField("light") == "night").iter_samples(autosave=True):
        sample["other"] = fo.Detections()
    fiftyone_genseg.evaluate(dataset, "other", eval_key="bad", progress=False)
    panel = Panel(SLICES, dataset).send("on_load").send("add_field", value="light").send("choose_slice", row=0)
    assert panel.data["chosen"] == "light = night: 30 expressions"
    dataset.delete_sample_field("light")
    panel.send("reload")
    assert "could not be shown" not in panel.schema
    assert panel.data["chosen"] == "all expressions: 60 expressions"
    figures = Panel(EVALUATION, dataset).send("on_load")
    dataset.delete_sample_field("other")
    assert panel.send("reload").data["verdict_0"].endswith("no masks are drawn, because the field other was deleted")
    dataset.delete_evaluation("bad")
    for opened in (figures, panel):
        assert opened.send("reload").asked == [
            ("notify", {"message": "The run bad was deleted.", "variant": "warning"})
        ]
        assert "All 60 expressions" in opened.data["scope"]
        assert opened.menu("run") == ["good"]
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
    assert "different (policy, min_pixels)" in panel.data["difference"]
    assert panel.data["flips"] == []
    panel = Panel(SLICES, dataset).send("on_load").send("choose_against", value="good")
    assert "different (policy, min_pixels)" in panel.data["difference"]


def test_slices_are_sorted_filtered_and_widened_by_fields(dataset):
    for sample in dataset.match(fo.ViewField("light") == "night").iter_samples(autosave=True):
        sample["other"] = fo.Detections()
    fiftyone_genseg.evaluate(dataset, "other", eval_key="bad", progress=False)
    panel = Panel(SLICES, dataset).send("on_load")
    assert not any("light" in row["slice"] for row in panel.data["slices"])
    panel.send("add_field", value="light")
    assert panel.data["slices"][0]["slice"] == "light = night"
    panel.send("choose_about", value="colour")
    assert all("colour" in row["slice"] for row in panel.data["slices"])
    panel.send("choose_about", value="all attributes")
    panel.send("choose_sort", value="support")
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
    assert "The run could not be shown" in panel.schema
    assert "The run could not be shown" in panel.send("choose_sort", value="support").schema
    assert panel.send("show_in_grid").asked[0][0] == "notify"
    assert "The runs could not be shown" in Panel(EVALUATION, dataset).send("on_load").schema


def test_export_of_several_expressions_per_image(make, tmp_path):
    dataset = make(
        {
            "ground_truth": fo.Detections(
                detections=[square(0, 0, expression=["left"]), square(20, 0, expression=["right", "both"])]
            ),
            "genseg_responses": [response("left", statuses.SEGMENTED)],
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
        ({}, "required property|Choose a folder"),
        ({"folder": "{tmp}"}, "not an empty folder"),
        ({"folder": "{tmp}/new", "gt_field": "nope"}, "holds no Detections"),
    ],
)
def test_the_export_refuses_what_cannot_work(dataset, tmp_path, params, message):
    (tmp_path / "something").touch()
    params = {name: value.replace("{tmp}", str(tmp_path)) for name, value in params.items()}
    with pytest.raises(Exception, match=f"(?i)({message})|validation"):
        foo.execute_operator("@fiftyone-genseg/genseg/export_referring_examples", {"dataset": dataset}, params=params)
