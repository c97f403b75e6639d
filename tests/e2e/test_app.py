"""The App in a real browser: segment from the form, evaluate, read what the runs did; stop one."""

import re

from playwright.sync_api import expect

from fiftyone_genseg import history
from tests.e2e.hand import SLOW, open_app, open_form, open_panel


def test_segment_and_evaluate_from_the_forms(serve, page, picture, dataset):
    url, _ = serve(dataset)
    open_app(page, url)
    open_panel(page, "Referring evaluation")
    expect(page.get_by_text("Nothing is segmented yet")).to_be_visible(timeout=SLOW)
    page.get_by_title("Close").last.click()
    open_form(page, "Referring segment")
    expect(page.get_by_text("If an expression already has a result")).to_be_visible(timeout=SLOW)
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
        run = re.compile(f"^{operator} on {re.escape(dataset.name)}")
        expect(page.get_by_role("cell", name=run)).to_be_visible(timeout=SLOW)
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
