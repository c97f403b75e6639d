"""The App in a real browser: open the form, press Execute, see the masks."""

import shutil
import socket

import fiftyone as fo
import pytest
from playwright.sync_api import expect, sync_playwright

from fiftyone_genseg.demo import refscenes_dataset


@pytest.fixture
def app(tmp_path, plugin):
    dataset = refscenes_dataset("e2e", tmp_path / "images", 4)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    session = fo.launch_app(dataset, remote=True, address="127.0.0.1", port=port)
    yield f"http://127.0.0.1:{port}/datasets/e2e", dataset
    session.close()
    dataset.delete()


@pytest.fixture
def page():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser.new_page(viewport={"width": 1500, "height": 950})
        browser.close()


def dismiss_popup(page):
    button = page.get_by_role("button", name="Dismiss")
    if button.count():
        button.first.click()


def test_segment_from_the_form(app, page, tmp_path, request):
    url, dataset = app
    page.goto(url)
    page.wait_for_selector("[data-cy=looker]", timeout=90_000)
    page.wait_for_timeout(2000)
    dismiss_popup(page)
    page.keyboard.press("`")
    search = page.get_by_placeholder("Search operations by name...")
    search.wait_for()
    search.fill("Referring segment")
    page.get_by_text("Referring segment", exact=True).last.click()
    expect(page.get_by_text("Where an expression already has a result")).to_be_visible(timeout=60_000)
    if folder := request.config.getoption("--screenshots"):
        page.screenshot(path=f"{folder}/form.png")
    page.get_by_role("button", name="Execute", exact=True).click()
    expect(page.get_by_text("segmented").first).to_be_visible(timeout=180_000)
    dataset.reload()
    assert dataset.count("genseg_responses") == 16
    assert dataset.count("genseg.detections") > 0
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_text("genseg", exact=True).first).to_be_visible(timeout=60_000)
    if folder:
        page.wait_for_timeout(5000)
        dismiss_popup(page)
        page.screenshot(path=f"{folder}/app.png")
