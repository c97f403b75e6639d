"""Go from failures in the App to a better checkpoint.

docs/closing_the_loop.md explains each step.

    python examples/closing_the_loop.py                       # about half an hour on 2 CPU cores
    python examples/closing_the_loop.py --pictures docs       # also takes the pictures, in a headless Chromium

The script prints the page's figures. It calls the operators of the App; the training is a delegated operation.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import socket
from pathlib import Path

os.environ.setdefault("FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS", "true")  # or the App offers no training

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone import ViewField as F
from fiftyone.operators.delegated import DelegatedOperationService
from genseg_training.nano import refscenes
from PIL import Image

import fiftyone_genseg
from fiftyone_genseg import plugin, training_runs
from fiftyone_genseg.demo import rendered_dataset
from fiftyone_genseg.evaluation.slicing import comparison

DATASET, NAME = "genseg-loop", "loop"
START = "nano-sft"
OPERATORS = "@fiftyone-genseg/genseg"
FAILED = F("before_mask_iou") < 0.5


def _segment_and_evaluate(dataset: fo.Dataset, checkpoint: str, field: str) -> None:
    segment = foo.get_operator(f"{OPERATORS}/referring_segment")
    segment(dataset, expression_field="expression", checkpoint=checkpoint, output_field=field, batch_size=32)
    dataset.reload()
    results = fiftyone_genseg.evaluate(dataset, field, "ground_truth", eval_key=field, progress=False)
    figures = results.figures()
    print(f"{field} ({checkpoint}): " + ", ".join(f"{name} {figures[name]:.3f}" for name in ("ciou", "miou", "n_acc")))


def _train(view: fo.DatasetView, steps: int) -> Path:
    """Queue the operator "Train on this view", and run it.

    `fiftyone delegated launch` would do the same.
    """
    shutil.rmtree(training_runs.home() / NAME, ignore_errors=True)
    params = {"name": NAME, "checkpoint": START, "steps": steps, "recipe": "nano_r1", "mix": "refscenes:2000"}
    foo.execute_operator(f"{OPERATORS}/train_on_view", {"view": view}, params=params, request_delegation=True)
    service = DelegatedOperationService()
    service.execute_queued_operations(log=False)
    run = max(service.list_operations(), key=lambda operation: operation.queued_at)
    if run.run_state != "completed":
        raise SystemExit(run.result.error)
    print("\n".join(f"{name}: {value}" for name, value in run.result.result.items()))
    return training_runs.trained()[NAME]


def _print_difference(dataset: fo.Dataset, ids: list[str], label: str) -> None:
    before, after = (dataset.load_evaluation_results(key).table for key in ("before", "after"))
    found = comparison.compare(before[before["sample_id"].isin(ids)], after)
    cells = (f"{n} {100 * i.value:+.1f} [{100 * i.low:+.1f}, {100 * i.high:+.1f}]" for n, i in found.figures.items())
    print(f"{label}, {found.n} expressions: {', '.join(cells)}; {found.wins} better, {found.losses} worse")


def _take_pictures(dataset: fo.Dataset, folder: Path) -> None:
    """Write loop_failures.webp, loop_form.webp and loop_compared.webp."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    session = fo.launch_app(dataset, remote=True, address="127.0.0.1", port=port)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 1700, "height": 1300})
        page.goto(f"http://127.0.0.1:{port}/datasets/{dataset.name}")
        page.wait_for_selector("[data-cy=looker]", timeout=90_000)
        page.wait_for_timeout(3000)
        dismiss = page.get_by_role("button", name="Dismiss")
        if dismiss.count():
            dismiss.first.click()
        page.locator("[data-cy=new-panel-btn]").last.click()
        page.get_by_text("Failure slices", exact=True).first.click()
        run, against = 1, 2  # positions of the comboboxes; the App's own one, for saved views, is 0
        page.get_by_role("combobox").nth(run).click()
        page.get_by_role("option", name="before", exact=True).click()
        page.wait_for_timeout(6000)
        _shoot(page, folder / "loop_failures.webp")
        page.get_by_role("button", name="Train on it").click()
        page.get_by_text("Checkpoint to start from").wait_for(timeout=60_000)
        page.get_by_role("textbox").filter(visible=True).first.fill(NAME + "-2")
        page.wait_for_timeout(5000)
        _shoot(page, folder / "loop_form.webp")
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.get_by_role("combobox").nth(run).click()
        page.get_by_role("option", name="after", exact=True).click()
        page.wait_for_timeout(3000)
        page.get_by_role("combobox").nth(against).click()
        page.get_by_role("option", name="before", exact=True).click()
        page.wait_for_timeout(6000)
        _shoot(page, folder / "loop_compared.webp")
        browser.close()
    session.close()


def _shoot(page, file: Path) -> None:
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(file, quality=90, method=6)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expressions", type=int, default=600)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--images", type=Path, default=Path("loop_images"), help="folder for the rendered scenes")
    parser.add_argument("--pictures", type=Path, help="folder for screenshots")
    arguments = parser.parse_args()
    plugin.install()
    dataset = rendered_dataset(DATASET, arguments.images, refscenes.training_examples(arguments.expressions, seed=2026))
    _segment_and_evaluate(dataset, START, "before")
    failures = dataset.match(FAILED)
    print(f"{len(failures)} of {len(dataset)} expressions failed")
    failed, passed = failures.values("id"), dataset.match(~FAILED).values("id")
    _segment_and_evaluate(dataset, str(_train(failures, arguments.steps)), "after")
    _print_difference(dataset, failed, "failures, which were trained on")
    _print_difference(dataset, passed, "the others")
    _print_difference(dataset, dataset.values("id"), "all")
    if arguments.pictures:
        _take_pictures(dataset, arguments.pictures)


if __name__ == "__main__":
    _main()
