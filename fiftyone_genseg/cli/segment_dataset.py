"""`genseg segment-dataset`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from fiftyone_genseg import fields
from fiftyone_genseg.cli._shared import BatchSize, Device, Model, Revision, Server, fail


def segment_dataset(
    dataset: Annotated[str, typer.Argument(help="Name of a FiftyOne dataset.", show_default=False)],
    expression: Annotated[
        list[str] | None, typer.Option(help="Asked of every image; may be repeated.", show_default=False)
    ] = None,
    expression_field: Annotated[
        str | None, typer.Option(help="String field that holds each sample's expression.", show_default=False)
    ] = None,
    output_field: Annotated[str, typer.Option(help="Field of the masks, beside <field>_responses.")] = "genseg",
    model: Model = "nano",
    revision: Revision = None,
    existing: Annotated[
        Literal["skip", "overwrite"], typer.Option(help="What to do where an expression has a result already.")
    ] = "skip",
    batch_size: BatchSize = 8,
    device: Device = "auto",
    server: Server = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="This process, or workers on Ray (docs/scale.md).")
    ] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Of ray: processes with a model each.")] = 2,
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

    from fiftyone_genseg import labels, segmentation
    from fiftyone_genseg.operators.referring_segment import describe
    from fiftyone_genseg.segmentation import engines

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        if not fo.dataset_exists(dataset):
            names = fo.list_datasets()
            there = ", ".join(names[:20]) + (", ..." if names[20:] else "")
            raise ValueError(f"there is no dataset {dataset!r}; there are: {there or 'none'}")
        samples = fo.load_dataset(dataset)
        fields.check_view(samples)
        fields.check_expressions(samples, expression or (), expression_field)
        labels.check_fields(samples, output_field)
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(f"loading {model}", total=None)
            opened = engines.opened(engine, model, revision, device, workers, gpus_per_worker, address, server)
            with opened as (answers, pinned):
                for summary in segmentation.segment_view(
                    samples, answers, pinned, output_field, expression or (), expression_field, existing, batch_size
                ):
                    progress.update(task, description=pinned, completed=summary.done, total=summary.total)
    except (ValueError, RuntimeError) as error:
        raise fail(error) from error
    typer.echo(describe(summary.to_dict()))
