"""`genseg segment-dataset`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fiftyone_genseg.cli._options import takes_model_options
from fiftyone_genseg.cli._shared import (
    BatchSize,
    Device,
    ModelOrDefault,
    Revision,
    Segmenter,
    ServedModel,
    Server,
    chosen,
    fail,
    warn,
)
from fiftyone_genseg.segmentation.request import RAY, EngineName, Existing, SegmentRequest


@takes_model_options
def segment_dataset(
    dataset: Annotated[str, typer.Argument(help="Name of a FiftyOne dataset.", show_default=False)],
    expression: Annotated[
        list[str] | None,
        typer.Option(
            help="Expression for every image; may be repeated. 'the red car -> car' labels its masks car.",
            show_default=False,
        ),
    ] = None,
    expression_field: Annotated[
        str | None, typer.Option(help="Field of each sample's expression, or list of them.", show_default=False)
    ] = None,
    group_slice: Annotated[
        str | None, typer.Option(help="Slice with the images to segment, in a grouped dataset.", show_default=False)
    ] = None,
    output_field: Annotated[
        str, typer.Option(help="Field of the masks. <field>_boxes, _points, _outcome and _responses hold the rest.")
    ] = SegmentRequest.output_field,
    model: ModelOrDefault = None,
    segmenter: Segmenter = None,
    revision: Revision = None,
    existing: Annotated[
        Existing, typer.Option(help="Treatment of expressions that have a result already.")
    ] = SegmentRequest.existing,
    batch_size: BatchSize = SegmentRequest.batch_size,
    device: Device = SegmentRequest.device,
    server: Server = None,
    served_model: ServedModel = None,
    engine: Annotated[
        EngineName, typer.Option(help="This process, or workers on Ray (docs/scale.md).")
    ] = SegmentRequest.engine,
    workers: Annotated[int, typer.Option(min=1, help="Processes on Ray with a model each.")] = SegmentRequest.workers,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="GPUs of a worker; 0 for CPUs.", show_default="1 if the cluster has any")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster: host:port, or auto.", show_default="$RAY_ADDRESS, or a new one"),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            help="Source of the images for workers, such as /data/photos=s3://bucket/photos.",
            metavar="FOLDER=URL",
            show_default="the samples' paths",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="Segment this part alone, such as 3/8; other commands segment the others.", metavar="I/N"),
    ] = None,
    *,
    model_options: dict[str, Any],
) -> None:
    """Segment a FiftyOne dataset, in this process or on a Ray cluster.

    Results are written as they come. The same command goes on where a run was stopped.

    Several commands share a dataset: --shard 1/8 to 8/8 segment a part each, and write it themselves.
    """
    import fiftyone as fo
    from genseg_hub.evaluation.shards import Shard
    from pymongo.errors import PyMongoError
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fiftyone_genseg.fields import is_rendered
    from fiftyone_genseg.segmentation import engines, expressions
    from fiftyone_genseg.segmentation.run import segment_view

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        if not fo.dataset_exists(dataset):
            names = fo.list_datasets()
            there = ", ".join(names[:20]) + (", ..." if names[20:] else "")
            raise ValueError(f"there is no dataset {dataset!r}; there are: {there or 'none'}")
        whole = fo.load_dataset(dataset)
        samples = whole.select_group_slices(group_slice) if group_slice else whole
        if shard:
            part = Shard.parse(shard).part(len(samples))
            samples = samples[part.start : part.stop]
        asked, classes = expressions.read(expression or ())
        request = SegmentRequest(
            expressions=tuple(asked),
            expression_field=expression_field,
            classes=classes,
            checkpoint=(model or "") if server else chosen(model, is_rendered(samples)),
            revision=revision,
            output_field=output_field,
            existing=existing,
            batch_size=batch_size,
            engine=engine,
            device=device,
            server=server,
            served_model=served_model,
            segmenter=segmenter,
            model_options={name: value for name, value in model_options.items() if name != "token"},
            workers=workers,
            gpus_per_worker=gpus_per_worker,
            address=address,
            images=images,
        )
        request.check(samples)
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(f"loading {request.name or served_model}", total=None)
            with engines.opened(request, token=model_options.get("token")) as opened:
                for summary in segment_view(samples, request, opened):
                    progress.update(task, description=opened.checkpoint, completed=summary.done, total=summary.total)
    except (ValueError, RuntimeError, PyMongoError) as error:
        raise fail(error) from error
    if summary.all_failed:
        raise fail(ValueError(f"nothing was segmented: {summary}"))
    typer.echo(str(summary))
    for note in opened.notes if engine == RAY else ():  # the model that was found here was logged before
        typer.echo(note, err=True)
    if summary.advice:
        warn(summary.advice)
