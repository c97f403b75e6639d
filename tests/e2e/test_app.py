"""The App in a real browser: segment from the form, evaluate, read both panels, follow a slice into the grid."""

import re
import shutil
import socket

import fiftyone as fo
import pytest
from fiftyone.operators.delegated import DelegatedOperationService
from playwright.sync_api import expect, sync_playwright

import fiftyone_genseg
from fiftyone_genseg import labels
from fiftyone_genseg.demo import refscenes_dataset
from fiftyone_genseg.evaluation.slicing import attributes, slices

SLOW = 60_000
PLANTED = "green"


@pytest.fixture
def serve(plugin):
    """Return a function that opens the App on a dataset and returns (address, session)."""
    sessions = []

    def start(dataset):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        session = fo.launch_app(dataset, remote=True, address="127.0.0.1", port=port)
        sessions.append(session)
        return f"http://127.0.0.1:{port}/datasets/{dataset.name}", session

    yield start
    for session in sessions:
        session.close()


@pytest.fixture
def page():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser.new_page(viewport={"width": 1700, "height": 1300})
        browser.close()


@pytest.fixture
def picture(page, request):
    """Return a function that saves a screenshot where --screenshots says."""

    def take(name):
        if folder := request.config.getoption("--screenshots"):
            page.wait_for_timeout(4000)
            dismiss_popup(page)
            page.screenshot(path=f"{folder}/{name}.png")

    return take


def dismiss_popup(page):
    button = page.get_by_role("button", name="Dismiss")
    if button.count():
        button.first.click()


def open_app(page, url):
    page.goto(url)
    page.wait_for_selector("[data-cy=looker]", timeout=90_000)
    page.wait_for_timeout(2000)
    dismiss_popup(page)


def open_form(page, label):
    page.keyboard.press("`")
    search = page.get_by_placeholder("Search operations by name...")
    search.wait_for()
    search.fill(label)
    page.get_by_text(label, exact=True).last.click()
    expect(page.get_by_role("button", name="Execute", exact=True)).to_be_enabled(timeout=SLOW)


def open_panel(page, label):
    page.locator("[data-cy=new-panel-btn]").last.click()
    page.get_by_text(label, exact=True).first.click()


def filter_in_sidebar(page, field, *values):
    """Keep the samples with some values of a field."""
    page.locator(f"[data-cy=sidebar-field-arrow-enabled-{field}]").dispatch_event("click")
    search = page.locator(f"[data-cy=selector-sidebar-search-{field}]")
    for value in values:
        search.fill(value)
        page.wait_for_timeout(1000)
        search.press("Enter")
        expect(page.locator(f"[data-cy=categorical-filter-{field}]").get_by_text(value, exact=True)).to_be_visible()


def in_grid(session):
    return set((session.view if session.view is not None else session.dataset).values("id"))


def wait_for(page, condition):
    for _ in range(60):
        if condition():
            return
        page.wait_for_timeout(500)
    raise AssertionError("the App did not get there in 30 seconds")


def test_segment_and_evaluate_from_the_forms(serve, page, picture, dataset):
    url, _ = serve(dataset)
    open_app(page, url)
    open_panel(page, "Referring evaluation")
    expect(page.get_by_text("Nothing is segmented yet")).to_be_visible(timeout=SLOW)
    page.get_by_title("Close").last.click()
    open_form(page, "Referring segment")
    expect(page.get_by_text("Where an expression already has a result")).to_be_visible(timeout=SLOW)
    picture("form")
    page.get_by_role("button", name="Execute", exact=True).click()
    expect(page.get_by_text("segmented").first).to_be_visible(timeout=180_000)
    dataset.reload()
    assert dataset.count("genseg_responses") == 16
    assert dataset.count("genseg.detections") > 0
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_text("genseg", exact=True).first).to_be_visible(timeout=SLOW)
    picture("app")
    open_form(page, "Evaluate referring segmentation")
    page.get_by_role("button", name="Execute", exact=True).click()
    expect(page.get_by_text("on 16 expressions (policy grefcoco)").first).to_be_visible(timeout=SLOW)
    dataset.reload()
    assert dataset.list_evaluations() == ["eval_genseg"]
    page.get_by_role("button", name="Done").click()
    open_panel(page, "Model Evaluation")
    page.get_by_role("button", name=re.compile("^Evaluation type: Detection")).click()
    figures = dataset.load_evaluation_results("eval_genseg").figures()
    for name, label in (("ciou", "cIoU"), ("miou", "mIoU")):
        row = page.get_by_role("row", name=re.compile(f"^{label} "))
        expect(row).to_contain_text(f"{figures[name]:.3f}".rstrip("0"), timeout=SLOW)
    picture("model_evaluation")


@pytest.fixture
def evaluated(tmp_path):
    """Two runs: perfect predictions, and the same with all green things missed."""
    dataset = refscenes_dataset("refscenes", tmp_path / "images", 25)
    dataset.clone_sample_field("ground_truth", "perfect")
    dataset.clone_sample_field("ground_truth", "planted")
    for sample in dataset.iter_samples(autosave=True):
        status = labels.SEGMENTED if sample["perfect"].detections else labels.NO_TARGET
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
    page.get_by_role("combobox").last.click()
    page.get_by_role("option", name="add perfect").click()
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
    wait_for(page, lambda: evaluated.match_tags("failure-slice").count() == len(mine))
    # A run without failures leaves nothing of the other one's table.
    slice_names = page.get_by_role("cell", name=re.compile(" = "))
    assert slice_names.count() > 0
    page.get_by_role("combobox").nth(1).click()
    page.get_by_role("option", name="perfect", exact=True).click()
    expect(page.get_by_text("0 of").first).to_be_visible(timeout=SLOW)
    expect(slice_names).to_have_count(0, timeout=SLOW)


@pytest.mark.parametrize("panel", ["Referring evaluation", "Failure slices"])
def test_a_filter_of_the_sidebar_holds_beside_a_panel(serve, page, picture, evaluated, panel):
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
        page.wait_for_timeout(10_000)
        expect(counts).to_have_text(f"{len(kept)} samples")
    expect(page.get_by_text(f"{len(kept)} of the 100 expressions").first).to_be_visible()
    picture(f"filtered_{panel.split()[0].lower()}")


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
    page.get_by_text("Of the new checkpoint").locator("xpath=following::input[1]").fill("from-the-app")
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
