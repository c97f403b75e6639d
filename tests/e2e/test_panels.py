"""Both panels in a real browser: figures, slices, menus beside the sidebar's filters, and a narrow window."""

import re

import fiftyone as fo
import pytest
from fiftyone.operators.delegated import DelegatedOperationService
from playwright.sync_api import expect

import fiftyone_genseg
from fiftyone_genseg import labels, statuses
from fiftyone_genseg.demo import refscenes_dataset
from fiftyone_genseg.evaluation.slicing import attributes, slices
from tests.e2e.hand import SLOW, filter_in_sidebar, open_app, open_panel, wait_for

PLANTED = "green"


def in_grid(session):
    return set((session.view if session.view is not None else session.dataset).values("id"))


def pick(page, shown, value):
    """Pick a value in the menu of a panel that shows another."""
    page.get_by_role("combobox").filter(has_text=re.compile(f"^{shown}$")).last.click(timeout=SLOW)
    page.get_by_role("option", name=value, exact=True).click()


@pytest.fixture
def evaluated(tmp_path):
    """Two runs: perfect predictions, and the same with all green things missed."""
    dataset = refscenes_dataset("refscenes", tmp_path / "images", 25)
    dataset.clone_sample_field("ground_truth", "perfect")
    dataset.clone_sample_field("ground_truth", "planted")
    for sample in dataset.iter_samples(autosave=True):
        status = statuses.SEGMENTED if sample["perfect"].detections else statuses.NO_TARGET
        for name in ("perfect", "planted"):
            response = fo.DynamicEmbeddedDocument(expression=sample["expression"], status=status, reasoning="looked")
            sample[labels.responses_field(name)] = [response]
        if attributes.words([sample["expression"]], attributes.WORDS["colour"]) == [PLANTED]:
            sample["planted"] = fo.Detections()
    for name in ("perfect", "planted"):
        fiftyone_genseg.evaluate(dataset, name, eval_key=name, progress=False)
    yield dataset
    dataset.delete()


def test_from_the_figures_to_the_worst_slice_in_the_grid(serve, page, picture, evaluated):
    results = evaluated.load_evaluation_results("planted")
    url, session = serve(evaluated)
    open_app(page, url)

    open_panel(page, "Referring evaluation")
    figures = results.figures()
    expect(page.get_by_role("cell", name=re.compile(f"^{100 * figures['ciou']:.1f} \\["))).to_be_visible(timeout=SLOW)
    # Two runs side by side, with the difference and the flips.
    pick(page, "add a run", "perfect")
    expect(page.get_by_text("perfect against planted on 100 expressions")).to_be_visible(timeout=SLOW)
    picture("evaluation")
    table = results.table
    lost = table[(table["target_area"] > 0) & (table["prediction_area"] == 0)]
    page.get_by_role("cell", name="wrong in planted, right in perfect").click()
    wait_for(page, lambda: in_grid(session) == set(lost["sample_id"]))
    # A filter in the sidebar or a view makes the panel follow; its own choice did not.
    expect(page.get_by_text("planted: All 100 expressions").first).to_be_visible()
    session.view = evaluated.limit(40)
    expect(page.get_by_text("planted: 40 of the 100 expressions").first).to_be_visible(timeout=SLOW)
    session.clear_view()
    expect(page.get_by_text("planted: All 100 expressions").first).to_be_visible(timeout=SLOW)

    open_panel(page, "Failure slices")
    columns = attributes.attributes(table)
    worst = slices.find_slices(table, columns).iloc[0]
    assert worst["attributes"]["colour"] == PLANTED
    expect(page.get_by_role("cell", name=worst["slice"], exact=True)).to_be_visible(timeout=SLOW)
    page.get_by_role("cell", name=worst["slice"], exact=True).click()
    expect(page.get_by_text(f"{worst['slice']}: {worst['n']} expressions")).to_be_visible(timeout=SLOW)
    picture("slices")
    page.get_by_role("button", name="Show in grid").click()
    mine = set(table[slices.members(columns, worst["attributes"])]["sample_id"])
    wait_for(page, lambda: in_grid(session) == mine)
    expect(page.get_by_text(f"{len(mine)} samples").first).to_be_visible(timeout=SLOW)
    page.get_by_role("button", name="Tag these samples").click()
    page.get_by_role("button", name="Tag", exact=True).click(timeout=SLOW)
    wait_for(page, lambda: evaluated.match_tags("failure-slice").count() == len(mine))
    # A run without failures leaves nothing of the other one's table.
    slice_names = page.get_by_role("cell", name=re.compile(" = "))
    assert slice_names.count() > 0
    pick(page, "planted", "perfect")
    expect(page.get_by_text("0 of").first).to_be_visible(timeout=SLOW)
    expect(slice_names).to_have_count(0, timeout=SLOW)


PICKS = {
    "Referring evaluation": (("planted", "perfect"), ("add a run", "planted")),
    "Failure slices": (
        ("evidence", "support"),
        ("all attributes", "colour"),
        ("add one", "held_out"),
        ("nothing", "perfect"),
        ("planted", "perfect"),
    ),
}


@pytest.mark.parametrize("panel", PICKS)
def test_a_filter_of_the_sidebar_holds_beside_a_panel_and_its_menus(serve, page, picture, evaluated, panel):
    url, _ = serve(evaluated)
    open_app(page, url)
    open_panel(page, panel)
    expect(page.get_by_text("All 100 expressions").first).to_be_visible(timeout=SLOW)
    page.wait_for_timeout(5000)  # the App stores the new layout, and clears the filters with it
    filter_in_sidebar(page, "kind", "attribute", "no_target")
    kept = evaluated.match(fo.ViewField("kind").is_in(["attribute", "no_target"]))
    expect(page.get_by_text(f"{len(kept)} of the 100 expressions").first).to_be_visible(timeout=SLOW)
    counts = page.locator("[data-cy=entry-counts]")
    page.wait_for_timeout(10_000)
    expect(counts).to_have_text(f"{len(kept)} samples")
    if panel == "Failure slices":
        page.get_by_role("cell", name=f"colour = {PLANTED}", exact=True).click(timeout=SLOW)
        expect(page.get_by_text(re.compile(f"^colour = {PLANTED}: "))).to_be_visible(timeout=SLOW)
    for shown, value in PICKS[panel]:
        pick(page, shown, value)
        page.wait_for_timeout(10_000)
        expect(counts).to_have_text(f"{len(kept)} samples")
    expect(page.get_by_text(f"{len(kept)} of the 100 expressions").first).to_be_visible()
    picture(f"filtered_{panel.split()[0].lower()}")


@pytest.mark.parametrize("panel", PICKS)
def test_a_panel_fits_a_width_of_500_pixels(serve, page, picture, evaluated, panel):
    page.set_viewport_size({"width": 1300, "height": 700})
    url, _ = serve(evaluated)
    open_app(page, url)
    open_panel(page, panel)
    expect(page.get_by_text("All 100 expressions").first).to_be_visible(timeout=SLOW)
    page.wait_for_timeout(3000)
    picture(f"narrow_{panel.split()[0].lower()}")
    right = page.viewport_size["width"]
    for part in (*page.get_by_role("table").all(), *page.locator(".js-plotly-plot").all()):
        box = part.bounding_box()
        assert box["width"] < 520
        assert box["x"] + box["width"] <= right


def test_a_slice_is_scheduled_for_training(serve, page, evaluated, tmp_path, monkeypatch):
    monkeypatch.setattr(fo.config, "model_zoo_dir", str(tmp_path / "models"))
    url, _ = serve(evaluated)
    open_app(page, url)
    open_panel(page, "Failure slices")
    worst = slices.find_slices(
        table := evaluated.load_evaluation_results("planted").table, attributes.attributes(table)
    ).iloc[0]
    page.get_by_role("cell", name=worst["slice"], exact=True).click(timeout=SLOW)
    expect(page.get_by_text(f"{worst['slice']}: {worst['n']} expressions")).to_be_visible(timeout=SLOW)
    page.get_by_role("button", name="Train on it").click()
    expect(page.get_by_text(f"{worst['n']} expressions of the chosen slice")).to_be_visible(timeout=SLOW)
    page.get_by_text("Name of the new checkpoint").locator("xpath=following::input[1]").fill("from-the-app")
    schedule = page.get_by_role("button", name="Schedule")
    expect(schedule).to_be_enabled(timeout=SLOW)
    schedule.click()
    service = DelegatedOperationService()

    def queued():
        return [o for o in service.list_operations() if o.dataset_id == evaluated._doc.id]

    wait_for(page, lambda: bool(queued()))
    (operation,) = queued()
    assert operation.operator == "@fiftyone-genseg/genseg/train_on_view"
    params = operation.context.request_params["params"]
    assert params["name"] == "from-the-app"
    assert len(params["pairs"]) == worst["n"]
    service.delete_operation(operation.id)
