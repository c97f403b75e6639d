"""Time the panel "Ask" in a browser: from the Enter key to the answer on the screen.

python benchmarks/ask.py      # needs `make setup-dev` for the browser

The App and the browser are headless and share this machine's cores. An answer is on the screen when its card is there,
which the App draws after the masks. "Kept" is the panel as it is. "Reloaded" keeps no model between questions. The part
of the server is measured without the App: the same questions in one process.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

QUESTIONS = ("the red shape", "the blue shape", "the square", "the circle", "the largest shape", "the star")
LOADED = "loaded"


def main() -> None:
    """Measure both ways in processes of their own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=3, help="images that are asked about, one after the other")
    parser.add_argument("--way", choices=("kept", "reloaded", "server"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        (server if args.way == "server" else browser)(args.images)
        return
    print(f"load of the last minute: {os.getloadavg()[0]:.1f}")
    for way in ("kept", "reloaded", "server"):
        environment = os.environ | {"GENSEG_KEEP_SECONDS": "0" if way == "reloaded" else "600"}
        command = [sys.executable, __file__, "--way", way, "--images", str(args.images)]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        rows = [line for line in done.stdout.splitlines() if line.startswith("row ")]
        print("\n".join(f"{way}: {row.removeprefix('row ')}" for row in rows), flush=True)


def report(first: list[float], later: list[float]) -> None:
    """Print the seconds of the first question about each image, and of the later ones."""
    for name, seconds in (("first question about an image", first), ("later questions about it", later)):
        print(
            f"row {name}: {median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}, {len(seconds)} questions)"
        )


def dataset(images: int, folder: str):
    """Return a dataset of RefScenes images, one sample each."""
    from fiftyone_genseg import outputs
    from fiftyone_genseg.demo import refscenes_dataset

    made = refscenes_dataset(f"ask-{os.getpid()}", Path(folder), images)
    chosen = {sample["image_id"]: sample.id for sample in made}
    made.delete_samples([sample_id for sample_id in made.values("id") if sample_id not in chosen.values()])
    outputs.declare_fields(made, "genseg")
    return made


def server(images: int) -> None:
    """Ask in this process."""
    from fiftyone_genseg.asking import answering
    from fiftyone_genseg.segmentation.request import SegmentRequest

    with tempfile.TemporaryDirectory() as folder:
        made = dataset(images + 1, folder)
        first, later = [], []
        for number, sample in enumerate(made):
            for place, question in enumerate(QUESTIONS):
                started = time.perf_counter()
                list(answering.ask(made, sample.id, SegmentRequest((question,), device="cpu")))
                if number:  # the first image loads the model
                    (later if place else first).append(time.perf_counter() - started)
        made.delete()
    report(first, later)


def browser(images: int) -> None:
    """Ask in the App."""
    import fiftyone as fo
    from playwright.sync_api import sync_playwright

    from fiftyone_genseg import plugin

    plugin.install()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        made = dataset(images + 1, folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        session = fo.launch_app(made, remote=True, address="127.0.0.1", port=port)
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"http://127.0.0.1:{port}/datasets/{made.name}")
        page.locator("[data-cy=looker]").first.wait_for(timeout=120_000)
        page.wait_for_timeout(3000)
        if (popup := page.get_by_role("button", name="Dismiss")).count():
            popup.first.click()
        page.locator("[data-cy=looker]").first.click()
        page.locator("[data-cy=panel-tab-ask_panel]").click(timeout=60_000)
        first, later = [], []
        for number in range(images + 1):
            page.wait_for_timeout(3000)
            for place, question in enumerate(QUESTIONS):
                page.locator("#modal textarea").first.click()
                page.keyboard.type(question, delay=20)
                page.wait_for_timeout(1500)  # the App tells the panel each letter
                started = time.perf_counter()
                page.keyboard.press("Enter")
                page.get_by_role("button", name="Delete", exact=True).nth(place).wait_for(timeout=60_000)
                if number:
                    (later if place else first).append(time.perf_counter() - started)
            page.locator("[data-cy=nav-right-button]").click(timeout=60_000)
        chromium.close()
        session.close()
        made.delete()
    report(first, later)


if __name__ == "__main__":
    main()
