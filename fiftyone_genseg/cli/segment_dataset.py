"""`genseg segment-dataset`."""

from __future__ import annotations

from typing import Annotated

import typer

from fiftyone_genseg.cli._shared import BatchSize, Device, Model, Revision, Server, fail
from fiftyone_genseg.segmentation.request import EngineName, Existing, SegmentRequest


def segment_dataset(
    dataset: Annotated[str, typer.Argument(help="Name of a FiftyOne dataset.", show_default=False)],
    expression: Annotated[
        list[str] | None, typer.Option(help="Asked of every image; may be repeated.", show_default=False)
    ] = None,
    expression_field: Annotated[
        str | None, typer.Option(help="String field that holds each sample's expression.", show_default=False)
    ] = None,
    output_field: Annotated[
        str, typer.Option(help="Field of the masks, beside <field>_responses.")
    ] = SegmentRequest.output_field,
    model: Model = SegmentRequest.checkpoint,
    revision: Revision = None,
    existing: Annotated[
        Existing, typer.Option(help="What to do where an expression has a result already.")
    ] = SegmentRequest.existing,
    batch_size: BatchSize = SegmentRequest.batch_size,
    device: Device = SegmentRequest.device,
    server: Server = None,
    engine: Annotated[
        EngineName, typer.Option(help="This process, or workers on Ray (docs/scale.md).")
    ] = SegmentRequest.engine,
    workers: Annotated[int, typer.Option(min=1, help="Of ray: processes with a model each.")] = SegmentRequest.workers,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="Of ray; 0 for CPUs.", show_default="1 where the cluster has GPUs")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Of a Ray cluster: host:port or auto.", show_default="$RAY_ADDRESS, or one is started"),
    ] = None,
) -> None:
    """Segment a FiftyOne dataset, in this process or on a Ray cluster.

    Results are written as they come. The same command goes on where a run was stopped.
    """
    import fiftyone as fo
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fiftyone_genseg.segmentation import engines
    from fiftyone_genseg.segmentation.run import segment_view

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    request = SegmentRequest(
        expressions=tuple(expression or ()),
        expression_field=expression_field,
        checkpoint=model,
        revision=revision,
        output_field=output_field,
        existing=existing,
        batch_size=batch_size,
        engine=engine,
        device=device,
        server=server,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        address=address,
    )
    try:
        if not fo.dataset_exists(dataset):
            names = fo.list_datasets()
            there = ", ".join(names[:20]) + (", ..." if names[20:] else "")
            raise ValueError(f"there is no dataset {dataset!r}; there are: {there or 'none'}")
        samples = fo.load_dataset(dataset)
        request.check(samples)
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(f"loading {model}", total=None)
            with engines.opened(request) as opened:
                for summary in segment_view(samples, request, opened):
                    progress.update(task, description=opened.checkpoint, completed=summary.done, total=summary.total)
    except (ValueError, RuntimeError) as error:
        raise fail(error) from error
    typer.echo(str(summary))
