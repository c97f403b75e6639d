"""The App in a headless browser, for the scripts that make pictures of it."""

from __future__ import annotations

import io
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))  # tests/e2e/hand.py

QUALITY = 90  # of WebP: text stays sharp, photographs keep their colours, and a file is a third of a PNG


@contextmanager
def opened(dataset: Any, width: int, height: int) -> Iterator[Any]:
    """Open the App on a dataset, and lend Playwright's page.

    Args:
        dataset: dataset of FiftyOne.
        width: width of the page in pixels.
        height: height of the page in pixels.
    """
    import fiftyone as fo
    from playwright.sync_api import sync_playwright

    from tests.e2e.hand import open_app

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    session = fo.launch_app(dataset, remote=True, address="127.0.0.1", port=port)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": width, "height": height})
        open_app(page, f"http://127.0.0.1:{port}/datasets/{dataset.name}")
        yield page
        browser.close()
    session.close()


def save(page: Any, name: str, wait_ms: int = 1500) -> None:
    """Save a screenshot of the page as `docs/<name>.webp`."""
    page.wait_for_timeout(wait_ms)
    write(Image.open(io.BytesIO(page.screenshot())), name)


def write(picture: Image.Image, name: str) -> None:
    """Write a picture as `docs/<name>.webp`; the file is part of the repository."""
    picture.convert("RGB").save(DOCS / f"{name}.webp", quality=QUALITY, method=6)
