"""The panel "Compare answers" in a real browser: two answers beside each other, and the next difference."""

import re

import fiftyone as fo
import pytest
from playwright.sync_api import expect

from fiftyone_genseg import labels, statuses
from fiftyone_genseg.demo import refscenes_dataset
from tests.e2e.hand import SLOW, open_app

THOUGHT = "The first look finds several things. <img src=x onerror=alert(1)> Only one of them has the right colour."


@pytest.fixture
def answered(tmp_path):
    """Two fields that agree, but for the third sample and the eighth."""
    dataset = refscenes_dataset("side_by_side", tmp_path / "images", 3)
    for name in ("plain", "tuned"):
        dataset.clone_sample_field("ground_truth", name)
    for number, sample in enumerate(dataset.iter_samples(autosave=True)):
        for name in ("plain", "tuned"):
            status = statuses.SEGMENTED if sample[name].detections else statuses.NO_TARGET
            if number in (2, 7) and name == "plain":
                status = statuses.UNPARSABLE
                sample[name] = fo.Detections()
            response = {"expression": sample["expression"], "status": status, "reasoning": THOUGHT}
            response |= {"checkpoint": f"{name}@0123abc", "instances": len(sample[name].detections)}
            sample[labels.responses_field(name)] = [fo.DynamicEmbeddedDocument(**response)]
    dataset.add_dynamic_sample_fields()
    yield dataset
    dataset.delete()


def test_from_difference_to_difference(serve, page, picture, answered):
    page.set_viewport_size({"width": 1400, "height": 900})
    url, _ = serve(answered)
    open_app(page, url)
    samples = list(answered)
    page.locator("[data-cy=looker]").first.click()
    modal = page.locator("#modal")
    page.locator("[data-cy=panel-tab-side_by_side]").click(timeout=SLOW)
    expect(modal.get_by_role("heading", name=samples[0]["expression"], exact=True)).to_be_visible(timeout=SLOW)
    modal.get_by_role("button", name="Next difference").click(timeout=SLOW)
    expect(modal.get_by_role("heading", name=samples[2]["expression"], exact=True)).to_be_visible(timeout=SLOW)
    assert samples[2].id in page.url
    expect(modal.get_by_text(re.compile("^unparsable · plain@0123abc"))).to_be_visible()
    expect(modal.get_by_text(re.compile("^segmented · 3 instances · tuned@0123abc"))).to_be_visible()
    expect(modal.get_by_text(THOUGHT).first).to_be_visible()
    expect(modal.locator("img[src=x]")).to_have_count(0)
    left, right = (modal.locator(f"img[alt={side}]").bounding_box() for side in ("first", "second"))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    picture("side_by_side")
    modal.get_by_role("button", name="Next difference").click()
    expect(modal.get_by_role("heading", name=samples[7]["expression"], exact=True)).to_be_visible(timeout=SLOW)
    assert samples[7].id in page.url
    modal.get_by_role("button", name="Next difference").click()
    expect(modal.get_by_text("No further difference among 4 samples after this one.")).to_be_visible(timeout=SLOW)
    page.set_viewport_size({"width": 1000, "height": 700})
    picture("side_by_side_narrow")
