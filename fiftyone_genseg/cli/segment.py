"""`genseg segment`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fiftyone_genseg.cli._options import takes_model_options
from fiftyone_genseg.cli._shared import (
    Device,
    ModelOrDefault,
    Revision,
    Segmenter,
    ServedModel,
    Server,
    chosen,
    fail,
    import_models,
    load_model,
    possible,
)


@takes_model_options
def segment(
    image: Annotated[Path, typer.Argument(callback=possible, help="Image file.", show_default=False)],
    expression: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    model: ModelOrDefault = None,
    segmenter: Segmenter = None,
    device: Device = "auto",
    revision: Revision = None,
    server: Server = None,
    served_model: ServedModel = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print boxes, points, scores and masks (COCO RLE).")] = False,
    out: Annotated[Path | None, typer.Option(callback=possible, help="Write the image with its masks here.")] = None,
    *,
    model_options: dict[str, Any],
) -> None:
    """Segment one image file."""
    from genseg_hub.images import load_image
    from PIL import Image

    from fiftyone_genseg import default_checkpoint
    from fiftyone_genseg.messages import error_in_words

    try:
        pixels = load_image(image)
        if out and Image.registered_extensions().get(out.suffix.lower()) not in Image.SAVE:
            raise ValueError(f"{out} has no image extension that can be written; for example: overlay.png")
        if server is None:
            model = chosen(model)
        import_models()
        loaded = load_model(model, device, revision, server, segmenter, model_options, served_model)
        prediction = loaded.segment(pixels, expression)
        if server is None and model is not None:
            default_checkpoint.remember(model, revision)
    except typer.Exit:  # a RuntimeError, too; its error is printed
        raise
    except (ValueError, RuntimeError) as error:
        raise fail(error) from error
    if out:
        from genseg_hub.overlay import draw_prediction
        from genseg_hub.whole import written_file

        try:
            with written_file(out) as new:
                draw_prediction(pixels, prediction).save(new, Image.registered_extensions()[out.suffix.lower()])
        except OSError as error:  # the answer is printed all the same
            fail(error)
            out = None
    if as_json:
        asked = {"image": str(image), "expression": expression, "model": loaded.checkpoint.pinned}
        typer.echo(json.dumps(asked | prediction.to_dict()))
        return
    response = prediction.response
    if response.reasoning:
        typer.echo(f"think: {response.reasoning}")
    if response.error:
        typer.echo(f"the answer was not clean: {error_in_words(response.error.value)}")
    if response.no_target:
        typer.echo("nothing in the image is meant")
    for instance, mask, score in zip(response.instances, prediction.masks, prediction.scores, strict=True):
        where = [("box", instance.box)] if instance.box else [("point", point) for point in instance.points]
        place = ", ".join(f"{what} ({', '.join(f'{value:.0f}' for value in numbers)})" for what, numbers in where)
        typer.echo(f"{place}, {int(mask.sum())} pixels, predicted IoU {score:.2f}")
    if out:
        typer.echo(f"wrote {out}")
