"""The panel "Ask" in a real browser: ask, watch, judge, correct and keep, on a sample that is open."""

import threading

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from fiftyone_genseg import outputs
from fiftyone_genseg.asking import settings
from fiftyone_genseg.demo import refscenes_dataset
from fiftyone_genseg.segmentation.engines import resident
from tests.e2e.hand import SLOW, ask, button, drag, filter_in_sidebar, modal, open_app, open_ask, open_panel, wait_for
from tests.helpers.chat_server import in_pieces, serving


@pytest.fixture
def dataset(tmp_path):
    """RefScenes, samples with something to find first; nothing was asked yet."""
    made = refscenes_dataset("ask", tmp_path / "images", 6)
    with_target = [sample.id for sample in made if sample["ground_truth"].detections]
    made.delete_samples([sample_id for sample_id in made.values("id") if sample_id not in with_target])
    yield made
    resident.release()
    made.delete()


@pytest.fixture
def stored(dataset):
    """Return a function that reads a field of the first sample; None before there is one."""

    def read(name):
        dataset.reload()
        return dataset.first()[name] if dataset.has_field(name) else None

    return read


def test_ask_correct_and_keep(serve, page, picture, dataset, stored):
    page.set_viewport_size({"width": 1400, "height": 900})
    url, _ = serve(dataset)
    open_app(page, url)
    open_ask(page)
    picture("ask_empty")
    expression = dataset.first()["expression"]
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
    expect(form.get_by_text("If an expression already has a result")).to_be_visible(timeout=SLOW)
    expect(form.locator("textarea").first).to_have_value("the red thing")


def test_a_wrong_answer_is_corrected_and_kept(serve, page, dataset, stored):
    url, _ = serve(dataset)
    outputs.declare_fields(dataset, "genseg")
    open_app(page, url)
    open_ask(page)
    expression = dataset.first()["expression"]
    ask(page, expression)
    button(page, "Wrong").click(timeout=SLOW)
    wait_for(page, lambda: stored("genseg_responses")[0].has_field("verdict"))
    assert stored("genseg_responses")[0].verdict == "wrong"
    assert stored("genseg").detections[0].tags == ["wrong"]
    # The editor is open.
    box = stored("genseg_boxes").detections[0].bounding_box
    button(page, "Right").click(timeout=SLOW)
    wait_for(page, lambda: stored("genseg_boxes").detections[0].bounding_box != box)
    button(page, "Keep").click(timeout=SLOW)
    wait_for(page, lambda: stored("kept_expressions") == [expression])
    response = stored("genseg_responses")[0]
    assert (response.verdict, bool(response.corrected_by)) == ("kept", True)
    assert stored("genseg").detections[0].tags == []
    assert stored("kept").detections[0].bounding_box == stored("genseg").detections[0].bounding_box


def test_a_box_is_dragged(serve, page, picture, dataset, stored):
    url, _ = serve(dataset)
    outputs.declare_fields(dataset, "genseg")
    open_app(page, url)
    open_ask(page)
    expression = dataset.first()["expression"]
    ask(page, expression)
    button(page, "Correct").click(timeout=SLOW)
    # The sample is opened again with the schema of the boxes.
    wait_for(page, lambda: dataset.reload() or dataset.active_label_schemas == ["genseg_boxes"])
    page.wait_for_timeout(5000)
    expect(button(page, "Segment again")).to_be_visible(timeout=SLOW)

    modal(page).locator("[data-cy=annotate]").click()
    modal(page).locator("[data-cy=sidebar]").get_by_text(expression, exact=True).click(timeout=SLOW)
    before, mask = stored("genseg_boxes").detections[0].bounding_box, stored("genseg").detections[0]
    x, y, width, height = before
    drag(page, dataset.first().filepath, (x + width, y + height), (x + 2 * width, y + 2 * height))
    wait_for(page, lambda: stored("genseg_boxes").detections[0].bounding_box != before)
    after = stored("genseg_boxes").detections[0].bounding_box
    np.testing.assert_allclose(after, [x, y, 2 * width, 2 * height], atol=0.02)
    picture("ask_dragged")

    button(page, "Segment again").click()
    wait_for(page, lambda: stored("genseg_responses")[0].has_field("corrected_by"))
    assert stored("genseg").detections[0].id != mask.id
    # The points stay, and so does the thing that they are on.
    np.testing.assert_allclose(stored("genseg").detections[0].bounding_box, mask.bounding_box, atol=0.05)
    np.testing.assert_allclose(stored("genseg_boxes").detections[0].bounding_box, after, atol=1e-5)


def test_a_question_is_stopped(serve, page, picture, dataset, stored):
    asked, go_on = threading.Event(), threading.Event()

    def thought():
        yield {"content": "<think>There are several things. "}
        for _ in range(600):  # until the client gives up
            asked.set()
            yield {"content": "And another one. "}
            if go_on.wait(0.2):
                return

    with serving(lambda request: in_pieces(thought())) as server:
        outputs.declare_fields(dataset, "genseg")
        served = {"server": server.url, "served_model": "served", "dialect": "genseg", "segmenter": "nano"}
        settings.save(dataset, served | {"device": "cpu"})
        url, _ = serve(dataset)
        open_app(page, url)
        open_ask(page)
        ask(page, "the largest thing")
        expect(modal(page).get_by_text("And another one.", exact=False)).to_be_visible(timeout=SLOW)
        assert asked.is_set()
        picture("ask_thinking")
        button(page, "Stop").click()
        expect(modal(page).get_by_text("And another one.", exact=False)).to_have_count(0, timeout=SLOW)
        wait_for(page, lambda: server.open == 0)
        go_on.set()
    expect(modal(page).get_by_text("Nothing was asked of this sample yet.")).to_be_visible()
    assert not stored("genseg_responses")
    assert not stored("genseg")


def test_a_photo_of_24_megapixels_is_asked(serve, page, picture, dataset, stored, nano, tmp_path):
    expression, small = dataset.first()["expression"], dataset.first().filepath
    large = tmp_path / "large.jpg"
    Image.open(small).convert("RGB").resize((6000, 4000), Image.Resampling.BICUBIC).save(large, quality=90)
    dataset.clear()
    dataset.add_sample(fo.Sample(filepath=str(large), expression=expression))
    outputs.declare_fields(dataset, "genseg")
    url, _ = serve(dataset)
    open_app(page, url)
    open_ask(page)
    ask(page, expression)
    expect(button(page, "Keep")).to_be_visible(timeout=180_000)
    picture("ask_24_megapixels")
    found = stored("genseg").detections
    here = nano.segment(str(large), expression)
    assert len(found) == len(here.masks) > 0
    for label, mask in zip(found, here.masks, strict=True):
        x, y, _, _ = (round(side * scale) for side, scale in zip(label.bounding_box, (6000, 4000) * 2, strict=True))
        part = label.get_mask()
        again = np.zeros((4000, 6000), bool)
        again[y : y + part.shape[0], x : x + part.shape[1]] = part
        assert (again & mask).sum() / (again | mask).sum() > 0.999  # another number of threads rounds in another way


def test_a_refusal_stays_in_the_panel(serve, page, dataset):
    outputs.declare_fields(dataset, "genseg")
    settings.save(dataset, {"checkpoint": "owner/a-model-that-is-not-here"})
    url, _ = serve(dataset)
    open_app(page, url)
    open_ask(page)
    ask(page, "the red thing")
    said = modal(page).get_by_text("owner/a-model-that-is-not-here is not on this disk", exact=False)
    expect(said.first).to_be_visible(timeout=SLOW)
    page.wait_for_timeout(8000)
    expect(said.first).to_be_visible()


def test_a_filter_of_the_sidebar_holds_beside_ask(serve, page, picture, dataset):
    outputs.declare_fields(dataset, "genseg")
    url, _ = serve(dataset)
    open_app(page, url)
    open_panel(page, "Ask")
    expect(page.get_by_text("select one in the grid", exact=False)).to_be_visible(timeout=SLOW)
    page.wait_for_timeout(5000)  # the App stores the new layout, and clears the filters with it
    filter_in_sidebar(page, "kind", "attribute")
    kept = dataset.match({"kind": "attribute"})
    assert 0 < len(kept) < len(dataset)
    counts = page.locator("[data-cy=entry-counts]")
    page.wait_for_timeout(10_000)
    expect(counts).to_have_text(f"{len(kept)} samples", timeout=SLOW)
