"""Time the panel "Ask" in a browser, from the Enter key to the masks.

python benchmarks/ask.py              # needs `make setup-dev` for the browser
python benchmarks/ask.py --quick      # one image, to see that it runs

nano answers on the CPU. The App, its browser and the model share this machine's cores. The masks are on the screen when
the answer's card is there, because the App draws the card after the masks. "Kept" keeps the model and the image between
questions, as the panel does. "Reloaded" keeps nothing (GENSEG_KEEP_SECONDS=0). "Server" is the operator's own part: the
same questions in one process, without App and browser.
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

QUESTIONS = ("the red shape", "the blue shape", "the square")  # of each image
KINDS = ("first question", "next question about the same image", "first question about the next image")
WAYS = ("kept", "reloaded", "server")
# Looked at in each frame: Playwright's own waiting looks twice a second.
ANSWERED = """count => Array.from(document.querySelectorAll("#modal button"))
    .filter(button => button.textContent.trim() === "Delete").length >= count"""


def main() -> None:
    """Measure each way in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4, help="images that are asked about, one after the other")
    parser.add_argument("--quick", action="store_true", help="two images only")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    images = 2 if args.quick else args.images
    if args.way:
        (server if args.way == "server" else browser)(images)
        return
    print(f"{os.cpu_count()} cores; load of the last minute: {os.getloadavg()[0]:.1f}")
    for way in WAYS:
        environment = os.environ | {"GENSEG_KEEP_SECONDS": "0" if way == "reloaded" else "600"}
        command = [sys.executable, __file__, "--way", way, "--images", str(images)]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        rows = [line for line in done.stdout.splitlines() if line.startswith("row ")]
        print("\n".join(f"{way}: {row.removeprefix('row ')}" for row in rows), flush=True)
    print(f"load of the last minute at the end: {os.getloadavg()[0]:.1f}")


def report(seconds: dict[str, list[float]]) -> None:
    """Print the seconds of each kind of question."""
    for kind in KINDS:
        found = seconds[kind]
        print(f"row {kind}: {median(found):.2f} s ({min(found):.2f} to {max(found):.2f}, {len(found)} questions)")


def kind_of(image: int, question: int) -> str:
    """Return the kind of a question, one of KINDS; both numbers count from 0."""
    if question:
        return KINDS[1]
    return KINDS[2] if image else KINDS[0]


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

    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        made = dataset(images, folder)
        for image, sample in enumerate(made):
            for place, question in enumerate(QUESTIONS):
                started = time.perf_counter()
                list(answering.ask(made, sample.id, SegmentRequest((question,), device="cpu")))
                seconds[kind_of(image, place)].append(time.perf_counter() - started)
        made.delete()
    report(seconds)


def browser(images: int) -> None:
    """Ask in the App."""
    import fiftyone as fo
    from playwright.sync_api import sync_playwright

    from fiftyone_genseg import plugin

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.e2e.hand import SLOW, ask, button, open_app, open_ask

    plugin.install()
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        made = dataset(images, folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        session = fo.launch_app(made, remote=True, address="127.0.0.1", port=port)
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(viewport={"width": 1400, "height": 900})
        open_app(page, f"http://127.0.0.1:{port}/datasets/{made.name}")
        open_ask(page)
        for image in range(images):
            for place, question in enumerate(QUESTIONS):
                page.wait_for_timeout(2000)
                ask(page, question, enter=False)
                page.wait_for_timeout(1500)  # the App tells the panel each letter
                started = time.perf_counter()
                page.keyboard.press("Enter")
                page.wait_for_function(ANSWERED, arg=place + 1, polling="raf", timeout=SLOW)
                seconds[kind_of(image, place)].append(time.perf_counter() - started)
            if image + 1 < images:
                page.locator("[data-cy=nav-right-button]").click(timeout=SLOW)
                button(page, "Delete").wait_for(state="detached", timeout=SLOW)
        chromium.close()
        session.close()
        made.delete()
    report(seconds)


if __name__ == "__main__":
    main()
