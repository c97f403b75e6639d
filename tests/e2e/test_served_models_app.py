"""The models of a server, chosen in the App's form and asked from there; the servers are simulated."""

import re

import fiftyone as fo
import pytest
from genseg_training.nano.refscenes import EXPRESSIONS_PER_SCENE, refscenes
from PIL import Image
from playwright.sync_api import expect

from tests.e2e.hand import SLOW, open_app, open_form
from tests.helpers.simulated_servers import KEY, KINDS, LISTS, simulated

EXPRESSION = "all shapes"
SCENES = 2


@pytest.fixture
def scenes(tmp_path):
    """Return a dataset of scenes without expressions."""
    dataset = fo.Dataset(f"test-{tmp_path.name}", persistent=True)  # the App is another process
    for example in list(refscenes("val", SCENES * EXPRESSIONS_PER_SCENE))[::EXPRESSIONS_PER_SCENE]:
        path = tmp_path / f"{example.image_id}.png"
        Image.fromarray(example.image).save(path)
        dataset.add_sample(fo.Sample(filepath=str(path)))
    yield dataset
    dataset.delete()


def entry(page, label):
    """Return the input below a label of the form."""
    return (
        page.get_by_role("dialog")
        .get_by_text(label, exact=True)
        .locator("xpath=following::*[self::input or self::textarea][1]")
    )


def offered(page):
    """Open the list of the server's models and return their names."""
    entry(page, "Model of the server").click()
    expect(page.get_by_role("option").first).to_be_visible(timeout=SLOW)
    return [label.partition(" (")[0] for label in page.get_by_role("option").all_inner_texts()]


def test_each_server_is_chosen_in_the_form_and_writes_masks(serve, page, picture, scenes, nano, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)  # the App's process inherits it
    url, _ = serve(scenes)
    open_app(page, url)
    for kind in KINDS:
        name, field = LISTS[kind]["data"][0]["id"], re.sub(r"\W", "_", kind)
        with simulated(kind, nano.reasoner) as server:
            open_form(page, "Referring segment")
            entry(page, "What to look for").fill(EXPRESSION)
            entry(page, "Output field").fill(field)
            entry(page, "Server").fill(server.url)
            seeing = offered(page)
            assert seeing[0] == name, kind
            assert not any("embed" in other for other in seeing)
            assert server.requests == []
            page.get_by_role("option").first.click()
            entry(page, "Segmenter").fill("nano")
            expect(entry(page, "Checkpoint")).to_have_count(0)
            execute = page.get_by_role("button", name="Execute", exact=True)
            expect(execute).to_be_enabled(timeout=SLOW)
            picture(f"served_{field}")
            execute.click()
            expect(page.get_by_text(re.compile(rf"^{SCENES} segmented")).first).to_be_visible(timeout=180_000)
            page.get_by_role("button", name="Done").click()
        assert [request["model"] for request in server.requests[-SCENES:]] == [name] * SCENES
        scenes.reload()
        assert scenes.distinct(f"{field}_responses.checkpoint") == [f"{name}+nano"], kind
        assert scenes.distinct(f"{field}_responses.status") == ["segmented"]
        for sample in scenes:
            here = nano.segment(sample.filepath, EXPRESSION).response
            assert len(sample[field].detections) == len(here.instances) > 0
            if kind != "gateway":  # which gets a JPEG, and so answers a little differently
                assert sample[f"{field}_responses"][0].reasoning == here.reasoning
    assert KEY not in scenes.to_json()
