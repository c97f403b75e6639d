"""The App, a browser, and screenshots."""

import io
import shutil
import socket

import fiftyone as fo
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from tests.e2e.hand import dismiss_popup


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
            shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            shot.save(f"{folder}/{name}.webp", quality=90, method=6)

    return take
