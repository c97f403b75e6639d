"""The App, a browser, and screenshots."""

import contextlib
import io
import shutil
import socket
import time

import fiftyone as fo
import pytest
import requests
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
        wait_until_connected(session)
        return f"http://127.0.0.1:{port}/datasets/{dataset.name}", session

    yield start
    for session in sessions:
        session.close()


def wait_until_connected(session):
    """Wait until a session of Python has reached its server.

    A session that finds no server within 10 seconds looks again 10 seconds later. When it then connects, it sends
    its state to each browser, and the App closes the sample that is open.
    """
    address = f"http://127.0.0.1:{session.server_port}/fiftyone"
    answered = False
    for _ in range(120):
        time.sleep(1)  # a session looks for its server twice a second
        if answered and session._client._connected:
            return
        with contextlib.suppress(requests.RequestException):
            answered = requests.get(address, timeout=10).ok
    raise AssertionError("the App's server did not start in two minutes")


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
