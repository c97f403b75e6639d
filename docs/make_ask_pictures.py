"""Make the pictures of the panel "Ask" in the App, with nano.

python docs/make_ask_pictures.py      # needs `make setup-dev` for the browser

The files are ask.gif, ask_answer.webp and ask_correct.webp.
"""

import io
import shutil
import socket
import sys
import tempfile
from pathlib import Path

from in_the_app import DOCS, save
from PIL import Image

SIZE = {"width": 1200, "height": 700}
QUESTIONS = ("the blue circle", "the orange square")
FRAME = 250  # milliseconds
COLOURS = 256


class Film:
    """Frames of a page."""

    def __init__(self, page):
        self.page, self.frames = page, []

    def take(self, count: int = 1) -> None:
        """Take frames one after the other."""
        for _ in range(count):
            shot = Image.open(io.BytesIO(self.page.screenshot()))
            self.frames.append(shot.convert("RGB").resize((960, 560), Image.Resampling.LANCZOS))
            self.page.wait_for_timeout(100)

    def write(self, file: Path) -> None:
        """Write the frames; equal neighbours become one that lasts longer."""
        kept, lasting = [], []
        for frame in self.frames:
            if kept and frame.tobytes() == kept[-1].tobytes():
                lasting[-1] = min(lasting[-1] + FRAME, 2000)
            else:
                kept.append(frame)
                lasting.append(FRAME)
        lasting[-1] = 3000
        ends = Image.new("RGB", (kept[0].width, 2 * kept[0].height))
        ends.paste(kept[0])
        ends.paste(kept[-1], (0, kept[0].height))
        palette = ends.quantize(COLOURS)
        small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in kept]
        small[0].save(file, save_all=True, append_images=small[1:], duration=lasting, loop=0, optimize=True)


def main() -> None:
    """Drive the App."""
    import fiftyone as fo
    from playwright.sync_api import sync_playwright

    from fiftyone_genseg import outputs, plugin
    from fiftyone_genseg.demo import refscenes_dataset

    plugin.install()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        dataset = refscenes_dataset("ask-pictures", Path(folder), 6)
        dataset.delete_sample_field("ground_truth")
        outputs.declare_fields(dataset, "genseg")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        session = fo.launch_app(dataset, remote=True, address="127.0.0.1", port=port)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport=SIZE)
        page.goto(f"http://127.0.0.1:{port}/datasets/{dataset.name}")
        page.locator("[data-cy=looker]").first.wait_for(timeout=120_000)
        page.wait_for_timeout(3000)
        dismiss = page.get_by_role("button", name="Dismiss")
        if dismiss.count():
            dismiss.first.click()
        page.locator("[data-cy=looker]").first.click()
        modal = page.locator("#modal")
        modal.locator("[data-cy=panel-tab-side_by_side]").get_by_title("Close").click(timeout=60_000)
        modal.locator("[data-cy=panel-tab-ask_panel]").click()
        modal.get_by_title("Split horizontally").first.click()
        modal.locator("textarea").first.wait_for()
        page.locator("[data-cy=action-toggle-sidebar]").last.click()
        page.wait_for_timeout(3000)
        film = Film(page)
        film.take(2)
        for number, question in enumerate(QUESTIONS):
            modal.locator("textarea").first.click()
            for letter in question:
                page.keyboard.type(letter)
                film.take()
            page.wait_for_timeout(1000)
            page.keyboard.press("Enter")
            while modal.get_by_role("button", name="Delete").count() <= number:
                film.take()
            page.wait_for_timeout(1500)
            film.take(4)
        save(page, "ask_answer", 0)
        film.write(DOCS / "ask.gif")
        modal.get_by_role("button", name="Correct", exact=True).first.click()
        modal.get_by_role("button", name="Right", exact=True).wait_for()
        save(page, "ask_correct")
        browser.close()
        session.close()
        dataset.delete()


if __name__ == "__main__":
    sys.exit(main())
