"""Make the pictures of photos.md: a served model answers about photographs.

python docs/fit_photo_segmenter.py      # once: the segmenter of the pictures
python docs/make_photo_pictures.py      # needs `make setup-dev` for the browser

The served model is simulated: its answers were written by hand, and this script streams them.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

from in_the_app import DOCS, opened, save

ROOT = DOCS.parent
SEGMENTER = ROOT / "runs" / "photo_segmenter"
SHOWN_SEGMENTER = "facebook/sam2.1-hiera-large"  # in the form, as a user would have it
NAME = "photos-walk"
MODEL = "qwen3-vl:8b-thinking"
PHOTO = "000000000785.jpg"
EXPRESSION = "the skier in the red jacket"
THOUGHT = "There is one person, who stands on skis in the middle of the picture. The person wears a red jacket."
# In thousandths of the image. The box ends at the knees, so that there is something to correct.
ANSWER = [{"bbox_2d": [437, 103, 755, 600], "points": [[585, 400], [560, 300]]}]
CORRECTED = "box 280 44 483 395\n+ 374 170\n+ 440 290"  # in pixels
PAUSE = 0.4  # seconds between two words


def pieces() -> Iterator[dict[str, str]]:
    """Yield the answer as a server streams it."""
    for word in re.findall(r"\S+\s*", THOUGHT):
        time.sleep(PAUSE)
        yield {"reasoning": word}
    yield {"content": json.dumps(ANSWER)}


def open_settings(page: Any) -> None:
    """Open a sample with Ask beside it, and save a picture of the settings."""
    from playwright.sync_api import expect

    from tests.e2e.hand import SLOW, button, open_ask

    open_ask(page)
    page.locator("[data-cy=action-toggle-sidebar]").last.click()
    button(page, "Settings").click()
    expect(page.get_by_text("Settings of Ask").first).to_be_visible(timeout=SLOW)
    save(page, "photo_settings", 4000)
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.wait_for_timeout(2000)


def walk(page: Any, dataset: Any) -> None:
    """Ask, correct and keep in the App, and save a picture of each step."""
    from playwright.sync_api import expect

    from tests.e2e.hand import SLOW, ask, button, modal, wait_for

    def stored(field: str) -> Any:
        dataset.reload()
        return dataset.first()[field] if dataset.has_field(field) else None

    ask(page, EXPRESSION, enter=False)
    page.wait_for_timeout(2000)  # the App tells the panel each letter
    page.keyboard.press("Enter")
    expect(modal(page).get_by_text("stands on skis", exact=False)).to_be_visible(timeout=SLOW)
    save(page, "photo_thinking", 0)
    expect(button(page, "Correct")).to_be_visible(timeout=SLOW)
    page.wait_for_timeout(3000)
    save(page, "photo_answer")

    button(page, "Correct").click()
    numbers = modal(page).locator("textarea:visible").last
    expect(numbers).to_have_value(re.compile("^box "), timeout=SLOW)
    before = stored("genseg_boxes").detections[0].bounding_box
    numbers.fill(CORRECTED)
    page.wait_for_timeout(2000)  # the App tells the panel the typed text
    button(page, "Segment from these numbers").click()
    wait_for(page, lambda: stored("genseg_boxes").detections[0].bounding_box != before)
    save(page, "photo_correct", 4000)
    button(page, "Done").click()
    button(page, "Keep").click(timeout=SLOW)
    wait_for(page, lambda: bool(stored("kept")))
    expect(button(page, "Take back")).to_be_visible(timeout=SLOW)
    page.wait_for_timeout(5000)  # the sample is opened again with the new field
    page.mouse.click(5, 400)  # beside the sample, which closes it
    expect(page.locator("#modal [data-cy=modal]")).to_have_count(0, timeout=SLOW)
    for field in ("genseg", "genseg_boxes", "genseg_points"):
        page.locator(f"[data-cy=checkbox-{field}]").first.click()
    save(page, "photo_kept", 4000)


def main() -> None:
    """Drive the App."""
    import fiftyone as fo

    from fiftyone_genseg import outputs, plugin
    from fiftyone_genseg.asking import settings
    from tests.helpers.chat_server import in_pieces, serving

    if not SEGMENTER.is_dir():
        sys.exit(f"{SEGMENTER} is missing: run python docs/fit_photo_segmenter.py")
    plugin.install()
    images = sorted((ROOT / "examples" / "photos" / "images").glob("*.jpg"), key=lambda file: file.name != PHOTO)
    dataset = fo.Dataset(NAME, persistent=True, overwrite=True)  # the App is another process
    dataset.add_samples([fo.Sample(str(file)) for file in images], progress=False)
    outputs.declare_fields(dataset, "genseg")
    with serving(lambda request: in_pieces(pieces())) as server:
        server.models = (200, {}, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        chosen = {"checkpoint": "", "server": server.url, "served_model": MODEL}
        settings.save(dataset, {**chosen, "segmenter": SHOWN_SEGMENTER})
        with opened(dataset, 1200, 700) as page:
            open_settings(page)
            settings.save(dataset, {**chosen, "segmenter": str(SEGMENTER)})
            walk(page, dataset)
    dataset.delete()


if __name__ == "__main__":
    sys.exit(main())
