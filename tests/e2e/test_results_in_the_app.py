"""Results in the App: outcomes in the grid and the sidebar, overlays that are switched, colours by expression."""

import io

import fiftyone as fo
import numpy as np
import pytest
from genseg_hub.schema import InstancePrompt, Prediction, Response
from PIL import Image
from playwright.sync_api import expect

from fiftyone_genseg import outputs
from fiftyone_genseg.segmentation.request import SegmentRequest
from fiftyone_genseg.segmentation.run import Target, write
from fiftyone_genseg.segmentation.summary import Summary
from tests.e2e.hand import SLOW, open_app, wait_for

SIZE = WIDTH, HEIGHT = 400, 300
GREY = 128
BOXES = {"the red car": (20, 60, 180, 260), "the dog": (220, 60, 380, 260)}  # of the reasoner
MARGIN = 20  # between a box and its mask
NOTHING = Prediction(Response("", "There is none."), (), (), SIZE)


def found(expression):
    x1, y1, x2, y2 = BOXES[expression]
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y1 + MARGIN : y2 - MARGIN, x1 + MARGIN : x2 - MARGIN] = True
    prompt = InstancePrompt((x1, y1, x2, y2), ((x1 + 50.0, y1 + 50.0), (x1 + 90.0, y1 + 90.0)))
    return Prediction(Response("", "It is there.", (prompt,)), (mask,), (0.9,), SIZE)


@pytest.fixture
def results(tmp_path):
    """Three grey images: with both things, with none, and with one of them."""
    dataset = fo.Dataset(f"test-{tmp_path.name}", persistent=True)  # the App is another process
    for number in range(3):
        Image.new("RGB", SIZE, (GREY, GREY, GREY)).save(tmp_path / f"{number}.png")
        dataset.add_sample(fo.Sample(filepath=str(tmp_path / f"{number}.png")))
    car, dog = BOXES
    answers = [
        [(car, found(car)), (dog, found(dog))],
        [(car, NOTHING), (dog, NOTHING)],
        [(car, found(car)), (dog, NOTHING)],
    ]
    outputs.declare_fields(dataset, "genseg")
    target = Target("genseg", "nano", labels=SegmentRequest(f"{car} -> car\n{dog}").labels)
    write(dataset, dict(zip(dataset.values("id"), answers, strict=True)), target, Summary())
    yield dataset
    dataset.delete()


def drawn(page):
    """Return the first sample of the grid as the App draws it: uint8[300, 400, 3]."""
    shot = Image.open(io.BytesIO(page.locator("[data-cy=looker]").first.screenshot())).convert("RGB")
    return np.asarray(shot.resize(SIZE)).astype(int)


def colour(image, expression):
    """Return the mean colour of the mask of an expression, away from its points and its text."""
    x1, y1, x2, y2 = BOXES[expression]
    return image[y1 + 130 : y2 - MARGIN - 10, x1 + MARGIN + 10 : x2 - MARGIN - 10].mean((0, 1))


def has_box(image, expression):
    """Return whether anything is drawn at the lower edge of a reasoner's box."""
    x1, _, x2, y2 = BOXES[expression]
    return np.abs(image[y2 - 4 : y2 + 4, x1 + 30 : x2 - 30] - GREY).max() > 30


def switch(page, field):
    page.locator(f"[data-cy=checkbox-{field}]").first.click()


def test_results_are_seen_switched_and_filtered(serve, page, picture, results):
    url, _ = serve(results)
    open_app(page, url)
    for outcome in ("segmented", "no-target", "mixed"):
        expect(page.locator("[data-cy=tag-genseg_outcome]").get_by_text(outcome, exact=True)).to_be_visible(
            timeout=SLOW
        )
    car, dog = BOXES
    wait_for(page, lambda: np.abs(colour(drawn(page), car) - colour(drawn(page), dog)).max() > 20)
    assert has_box(drawn(page), car)
    assert has_box(drawn(page), dog)
    picture("results")

    switch(page, "genseg_boxes")
    wait_for(page, lambda: not has_box(drawn(page), car))
    assert np.abs(colour(drawn(page), car) - GREY).max() > 20, "the masks stay"
    switch(page, "genseg")
    wait_for(page, lambda: np.abs(colour(drawn(page), car) - GREY).max() < 5)
    switch(page, "genseg_boxes")
    wait_for(page, lambda: has_box(drawn(page), car))

    page.locator("[data-cy=sidebar-field-arrow-enabled-genseg_outcome]").first.dispatch_event("click")
    search = page.locator("[data-cy='selector-sidebar-search-genseg_outcome.label']")
    search.fill("mixed", timeout=SLOW)
    page.wait_for_timeout(1000)
    search.press("Enter")
    expect(page.locator("[data-cy=entry-counts]")).to_have_text("1 sample", timeout=SLOW)
    picture("filtered_results")
