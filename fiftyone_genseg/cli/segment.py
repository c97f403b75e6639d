"""`genseg segment`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fiftyone_genseg.cli._shared import Device, Model, Revision, Segmenter, Server, fail, load_model, possible


def segment(
    image: Annotated[Path, typer.Argument(callback=possible, help="Image file.", show_default=False)],
    expression: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    model: Model = "nano",
    segmenter: Segmenter = None,
    device: Device = "auto",
    revision: Revision = None,
    server: Server = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print boxes, points, scores and masks (COCO RLE).")] = False,
    out: Annotated[Path | None, typer.Option(callback=possible, help="Write the image with its masks here.")] = None,
) -> None:
    """Segment one image file."""
    from genseg_hub.images import load_image
    from PIL import Image

    try:
        pixels = load_image(image)
        if out and out.suffix.lower() not in Image.registered_extensions():
            raise ValueError(f"{out} has no image extension that can be written; for example: overlay.png")
        loaded = load_model(model, device, revision, server, segmenter)
        prediction = loaded.segment(pixels, expression)
    except typer.Exit:  # a RuntimeError, too; its error is printed
        raise
    except (ValueError, RuntimeError) as error:
        raise fail(error) from error
    if out:
        from genseg_hub.overlay import draw_prediction

        out.parent.mkdir(parents=True, exist_ok=True)
        draw_prediction(pixels, prediction).save(out)
    if as_json:
        asked = {"image": str(image), "expression": expression, "model": loaded.checkpoint.pinned}
        typer.echo(json.dumps(asked | prediction.to_dict()))
        return
    response = prediction.response
    if response.reasoning:
        typer.echo(f"think: {response.reasoning}")
    if response.error:
        typer.echo(f"the answer was not clean: {response.error.value}")
    if response.no_target:
        typer.echo("nothing in the image is meant")
    for instance, mask, score in zip(response.instances, prediction.masks, prediction.scores, strict=True):
        box = ", ".join(f"{value:.0f}" for value in instance.box)
        typer.echo(f"box ({box}), {int(mask.sum())} pixels, predicted IoU {score:.2f}")
    if out:
        typer.echo(f"wrote {out}")
