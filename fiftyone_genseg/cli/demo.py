"""`genseg demo`."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from fiftyone_genseg.cli._options import takes_model_options
from fiftyone_genseg.cli._shared import (
    Device,
    ModelOrDefault,
    ServedModel,
    Server,
    chosen,
    fail,
    figures_table,
    named,
    possible,
    warn,
)


@takes_model_options
def demo(
    out: Annotated[
        Path, typer.Option(callback=possible, help="Folder for images, report.json and overview.png.")
    ] = Path("demo_out"),
    headless: Annotated[bool, typer.Option("--headless", help="Exit instead of opening the App.")] = False,
    scenes: Annotated[int, typer.Option(min=1, max=500, help="Scenes of RefScenes, with 4 expressions each.")] = 30,
    photos: Annotated[
        bool, typer.Option("--photos", help="16 photographs with 48 expressions instead of RefScenes.")
    ] = False,
    model: ModelOrDefault = None,
    device: Device = "auto",
    server: Server = None,
    served_model: ServedModel = None,
    port: Annotated[int, typer.Option(help="Port of the App.")] = 5151,
    *,
    model_options: dict[str, Any],
) -> None:
    """Segment RefScenes or photographs in a dataset, score them, open the App.

    The default checkpoint for RefScenes is nano.
    """
    from genseg_hub.errors import CheckpointError, ReasonerError

    from fiftyone_genseg import demo as demonstration
    from fiftyone_genseg.segmentation.summary import Summary

    try:
        if token := model_options.pop("token", None):
            os.environ["HF_TOKEN"] = token  # the demo runs an operator, and a request holds no token
        options = {"device": device, "server": server, "served_model": served_model, "model_options": model_options}
        if photos:
            report = demonstration.run_on_photos(out, _for_photographs(model, server), **options)
        else:
            report = demonstration.run(out, scenes, named(model, server) or "", **options)
    except (CheckpointError, ReasonerError, ValueError) as error:
        raise fail(error) from error
    from rich.console import Console

    console = Console(width=120)
    console.print(figures_table(report))
    console.print(f"wrote {out / 'report.json'} and {out / 'overview.png'}")
    if advice := Summary(statuses=Counter(report["responses"])).advice:
        warn(advice)
    if not headless:
        demonstration.open_app(port, demonstration.PHOTOS if photos else demonstration.DATASET)


def _for_photographs(model: str | None, server: str | None) -> str:
    """Return the checkpoint that the user named, else the default one.

    Raises:
        ValueError: the default is nano.
    """
    from genseg_hub.checkpoints.catalog import NANO

    from fiftyone_genseg import default_checkpoint, machine, messages

    if server is not None:
        return model or ""  # the server's list tells the model, see `SegmentRequest`
    if model is None and default_checkpoint.find().name == NANO:
        best = machine.recommended()
        raise ValueError(messages.nano_in_a_terminal(best.name if best else None))
    return chosen(model)
