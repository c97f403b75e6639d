"""Make the pictures of the documentation that are not screenshots.

python docs/make_pictures.py
pytest tests/e2e --screenshots docs      makes past_runs, model_evaluation, evaluation and slices
"""

import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from in_the_app import DOCS, write
from PIL import Image

ROOT = DOCS.parent


def photos() -> None:
    """Draw photos.webp: nano's answers on real photographs."""
    import fiftyone.operators as foo

    from fiftyone_genseg import demo, plugin, uris
    from fiftyone_genseg.datasets.photos import photos_dataset

    plugin.install()
    dataset = photos_dataset("docs-photos", ROOT / "examples" / "photos")
    foo.execute_operator(uris.SEGMENT, {"dataset": dataset}, params={"existing": "overwrite"})
    dataset.reload()
    print("photos:", dataset.count_values("genseg_responses.status"))
    with tempfile.TemporaryDirectory() as folder:
        demo.draw_overview(dataset, "genseg", Path(folder) / "photos.png", count=8)
        write(Image.open(Path(folder) / "photos.png"), "photos")
    dataset.delete()


def overview() -> None:
    """Draw overview.webp: the demo's picture."""
    from fiftyone_genseg import demo

    with tempfile.TemporaryDirectory() as folder:
        demo.run(Path(folder), 12, "nano", "cpu")
        write(Image.open(Path(folder) / "overview.png"), "overview")


def curves() -> None:
    """Draw nano_curves.webp: the stages of nano's training, from the logs of nano."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    reasoner = {"eval_target_box_miou": "box mIoU on targets", "eval_no_target": "no-target accuracy"}
    panels = {
        "vision": (
            "vision tower: accuracy per cell",
            {"eval_kind": "kind", "eval_color": "colour", "eval_size": "size"},
        ),
        "sft_phase1": ("reasoner, phase 1", reasoner),
        "sft": ("reasoner, phase 2", reasoner),
        "sft_more": ("reasoner, phase 3", reasoner),
        "segmenter": ("SAM 2: mask IoU", {"eval_iou": "true box", "eval_iou_noisy_box": "box off by up to 12 %"}),
    }
    figure, axes = plt.subplots(1, 5, figsize=(18, 3.4), layout="constrained")
    for axis, (stage, (title, names)) in zip(axes, panels.items(), strict=True):
        log = ROOT / "hub" / "genseg_hub" / "nano" / "logs" / f"{stage}.jsonl"
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        for name, label in names.items():
            points = [(row["step"], row[name]) for row in rows if name in row]
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axis.set(title=title, xlabel="step", ylim=(0, 1.02))
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right")
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110)
    write(Image.open(drawn), "nano_curves")


def grpo_curves() -> None:
    """Draw nano_r1_curves.webp: the curves of nano's R1 training with seed 1.

    The R1-G training began with its weights and gave the embedded nano.
    """
    from genseg_training import curves

    log = ROOT / "hub" / "genseg_hub" / "nano" / "logs" / "grpo_r1.jsonl"
    with tempfile.TemporaryDirectory() as folder:
        curves.draw([json.loads(line) for line in log.read_text().splitlines()], Path(folder) / "curves.png")
        write(Image.open(Path(folder) / "curves.png"), "nano_r1_curves")


def benchmark_report() -> None:
    """Draw benchmark_report.webp, in light and in dark.

    The picture shows the report of a benchmark run of nano on 200 expressions.
    """
    from playwright.sync_api import sync_playwright

    genseg = "from fiftyone_genseg.cli import app; app()"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as browsers:
        subprocess.run([sys.executable, ROOT / "examples" / "own_benchmark.py", "data/scenes"], cwd=folder, check=True)
        command = ["benchmark", "coco", "--split", "data", "--root", "data/scenes"]
        subprocess.run([sys.executable, "-c", genseg, *command], cwd=folder, check=True)
        page = Path(folder, "runs", "benchmarks", "coco-data", "nano", "report.html")
        browser = browsers.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        sides = []
        for scheme in ("light", "dark"):
            shown = browser.new_page(color_scheme=scheme, viewport={"width": 1000, "height": 1520})
            shown.goto(page.as_uri())
            shown.screenshot(path=Path(folder, f"{scheme}.png"))
            sides.append(Image.open(Path(folder, f"{scheme}.png")).convert("RGB"))
        browser.close()
        both = Image.new("RGB", (sum(side.width for side in sides), sides[0].height))
        both.paste(sides[0], (0, 0))
        both.paste(sides[1], (sides[0].width, 0))
        write(both, "benchmark_report")


if __name__ == "__main__":
    curves()
    grpo_curves()
    overview()
    photos()
    benchmark_report()
