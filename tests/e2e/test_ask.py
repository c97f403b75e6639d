"""The panel "Ask" in a real browser: ask, watch, judge, correct and keep, on a sample that is open."""

import pytest
from playwright.sync_api import expect

from fiftyone_genseg.demo import refscenes_dataset
from fiftyone_genseg.segmentation.engines import resident
from tests.e2e.hand import SLOW, open_app, wait_for


@pytest.fixture
def dataset(tmp_path):
    """RefScenes, samples with something to find first; nothing was asked yet."""
    made = refscenes_dataset("ask", tmp_path / "images", 6)
    with_target = [sample.id for sample in made if sample["ground_truth"].detections]
    made.delete_samples([sample_id for sample_id in made.values("id") if sample_id not in with_target])
    yield made
    resident.release()
    made.delete()


def modal(page):
    return page.locator("#modal")


def button(page, name):
    return modal(page).get_by_role("button", name=name, exact=True).first


def beside_the_sample(page):
    """Open the first sample with the panel beside it."""
    page.locator("[data-cy=looker]").first.click()
    modal(page).locator("[data-cy=panel-tab-side_by_side]").get_by_title("Close").click(timeout=SLOW)
    modal(page).locator("[data-cy=panel-tab-ask_panel]").click(timeout=SLOW)
    modal(page).get_by_title("Split horizontally").first.click()
    expect(modal(page).locator("textarea").first).to_be_visible(timeout=SLOW)


def ask(page, expression):
    modal(page).locator("textarea").first.click()
    page.keyboard.type(expression, delay=20)
    page.keyboard.press("Enter")


def test_ask_correct_and_keep(serve, page, picture, dataset):
    page.set_viewport_size({"width": 1400, "height": 900})
    url, _ = serve(dataset)
    open_app(page, url)
    beside_the_sample(page)
    picture("ask_empty")
    first = dataset.first()
    expression = first["expression"]

    def stored(name):
        dataset.reload()
        return dataset[first.id][name] if dataset.has_field(name) else None

    ask(page, expression)
    expect(button(page, "Keep")).to_be_visible(timeout=SLOW)
    expect(modal(page).get_by_text("segmented", exact=False).first).to_be_visible()
    assert stored("genseg").detections[0].label == expression
    page.wait_for_timeout(2000)
    picture("ask_answer")
    expect(modal(page).locator("[data-cy=sidebar-field-genseg]")).to_be_visible(timeout=SLOW)
    page.wait_for_timeout(3000)  # the sample is opened again with the new fields
    before = stored("genseg").detections[0].bounding_box
    button(page, "Correct").click()
    expect(button(page, "Right")).to_be_visible(timeout=SLOW)
    picture("ask_correct")
    for _ in range(2):
        button(page, "Right").click()
        page.wait_for_timeout(1500)
    wait_for(page, lambda: stored("genseg_responses")[0].has_field("corrected_by"))
    picture("ask_moved")
    assert stored("genseg_boxes").detections[0].bounding_box != before
    button(page, "Keep").click()
    wait_for(page, lambda: stored("kept_expressions") == [expression])
    expect(button(page, "Take back")).to_be_visible(timeout=SLOW)
    expect(modal(page).locator("[data-cy=sidebar-field-kept]")).to_be_visible(timeout=SLOW)
    page.wait_for_timeout(3000)  # the sample is opened again with the new field
    picture("ask_kept")

    ask(page, "the thing that is not there")
    wait_for(page, lambda: len(stored("genseg_responses")) == 2)
    button(page, "Nothing is meant").click()
    wait_for(page, lambda: len(stored("kept_expressions")) == 2)
    button(page, "Delete").click()
    wait_for(page, lambda: len(stored("genseg_responses")) == 1)
    assert len(stored("kept_expressions")) == 2

    page.locator("[data-cy=nav-right-button]").click()
    expect(modal(page).get_by_text("Nothing was asked of this sample yet.")).to_be_visible(timeout=SLOW)
    second = dataset.skip(1).first()
    ask(page, "the red thing")
    wait_for(page, lambda: dataset.reload() or dataset[second.id]["genseg_responses"])
    picture("ask_next")

    button(page, "Ask on all").click()
    form = page.get_by_role("dialog")
    expect(form.get_by_text("Where an expression already has a result")).to_be_visible(timeout=SLOW)
    expect(form.locator("textarea").first).to_have_value("the red thing")
