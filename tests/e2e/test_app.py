"""The App in a real browser: segment from the form, evaluate, read what the runs did; stop one."""

import re
import shutil
import socket

import fiftyone as fo
import pytest
from playwright.sync_api import expect, sync_playwright

from fiftyone_genseg import history

SLOW = 60_000


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
            page.screenshot(path=f"{folder}/{name}.png")

    return take


def dismiss_popup(page):
    button = page.get_by_role("button", name="Dismiss")
    if button.count():
        button.first.click()


def open_app(page, url):
    page.goto(url)
    page.wait_for_selector("[data-cy=looker]", timeout=90_000)
    page.wait_for_timeout(2000)
    dismiss_popup(page)


def open_form(page, label):
    page.keyboard.press("`")
    search = page.get_by_placeholder("Search operations by name...")
    search.wait_for()
    search.fill(label)
    page.get_by_text(label, exact=True).last.click()
    expect(page.get_by_role("button", name="Execute", exact=True)).to_be_enabled(timeout=SLOW)


def open_panel(page, label):
    page.locator("[data-cy=new-panel-btn]").last.click()
    page.get_by_text(label, exact=True).first.click()


def wait_for(page, condition):
    for _ in range(60):
        if condition():
            return
        page.wait_for_timeout(500)
    raise AssertionError("the App did not get there in 30 seconds")


def test_segment_and_evaluate_from_the_forms(serve, page, picture, dataset):
    url, _ = serve(dataset)
    open_app(page, url)
    open_panel(page, "Referring evaluation")
    expect(page.get_by_text("Nothing is segmented yet")).to_be_visible(timeout=SLOW)
    page.get_by_title("Close").last.click()
    open_form(page, "Referring segment")
    expect(page.get_by_text("Where an expression already has a result")).to_be_visible(timeout=SLOW)
    picture("form")
    page.get_by_role("button", name="Execute", exact=True).click()
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_visible(timeout=SLOW)
    picture("progress")
    # What the run did stays, with the next step.
    expect(page.get_by_role("button", name="Evaluate it")).to_be_visible(timeout=180_000)
    expect(page.get_by_text(re.compile(r"^\d+ segmented, \d+ no-target")).first).to_be_visible()
    picture("result")
    dataset.reload()
    assert dataset.count("genseg_responses") == 16
    assert dataset.count("genseg.detections") > 0
    page.get_by_role("button", name="Evaluate it").click()
    page.get_by_role("button", name="Execute", exact=True).click(timeout=SLOW)
    expect(page.get_by_text("on 16 expressions (policy grefcoco)").first).to_be_visible(timeout=SLOW)
    dataset.reload()
    assert dataset.list_evaluations() == ["eval_genseg"]
    page.get_by_role("button", name="Open Failure slices").click()
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_text("All 16 expressions of the run.")).to_be_visible(timeout=SLOW)
    open_panel(page, "Past runs")
    for operator in ("Referring segment", "Evaluate referring segmentation"):
        expect(page.get_by_role("cell", name=re.compile(f"^{operator} on"))).to_be_visible(timeout=SLOW)
    picture("past_runs")
    open_panel(page, "Model Evaluation")
    page.get_by_role("button", name=re.compile("^Evaluation type: Detection")).click()
    figures = dataset.load_evaluation_results("eval_genseg").figures()
    for name, label in (("ciou", "cIoU"), ("miou", "mIoU")):
        row = page.get_by_role("row", name=re.compile(f"^{label} "))
        expect(row).to_contain_text(f"{figures[name]:.3f}".rstrip("0"), timeout=SLOW)
    picture("model_evaluation")


def test_a_run_is_stopped_from_the_app(serve, page, picture, dataset):
    url, _ = serve(dataset)
    open_app(page, url)
    open_form(page, "Referring segment")
    page.get_by_role("spinbutton").first.fill("1")  # the batch size
    page.get_by_role("button", name="Execute", exact=True).click()
    page.get_by_role("button", name="Stop", exact=True).click(timeout=SLOW)
    expect(page.get_by_text(re.compile("^Stopped ")).first).to_be_visible(timeout=180_000)
    picture("stopped")
    dataset.reload()
    answered = dataset.count("genseg_responses") if dataset.has_field("genseg_responses") else 0
    assert answered < 16
    (record,) = [found for found in history.records() if found.dataset == dataset.name]
    assert record.state == history.STOPPED
