"""`genseg demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fiftyone_genseg.cli._shared import Device, Model, fail, figures_table, possible


def demo(
    out: Annotated[
        Path, typer.Option(callback=possible, help="Folder for images, report.json and overview.png.")
    ] = Path("demo_out"),
    headless: Annotated[bool, typer.Option("--headless", help="Exit instead of opening the App.")] = False,
    scenes: Annotated[int, typer.Option(min=1, max=500, help="Scenes, with 4 expressions each.")] = 30,
    model: Model = "nano",
    device: Device = "auto",
    port: Annotated[int, typer.Option(help="Port of the App.")] = 5151,
) -> None:
    """Segment RefScenes in a FiftyOne dataset, score it, and open the App."""
    from genseg_hub.errors import CheckpointError

    from fiftyone_genseg import demo as demonstration

    try:
        report = demonstration.run(out, scenes, model, device)
    except CheckpointError as error:
        raise fail(error) from error
    from rich.console import Console

    console = Console()
    console.print(figures_table(report))
    console.print(f"wrote {out / 'report.json'} and {out / 'overview.png'}")
    if not headless:
        demonstration.open_app(port)
