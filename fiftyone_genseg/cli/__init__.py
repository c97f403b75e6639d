"""The command `genseg`.

Each command imports its libraries when it runs, so that help is fast.
"""

from __future__ import annotations

import typer

from fiftyone_genseg.cli import (
    benchmark,
    checkpoints,
    demo,
    doctor,
    evaluate,
    plugin,
    push_dataset,
    reproduce,
    segment,
    segment_dataset,
    serve,
)
from fiftyone_genseg.cli._shared import SaysFullDisk

app = typer.Typer(
    name="genseg",
    help="Describe a thing in words, get its mask.",
    cls=SaysFullDisk,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(segment.segment)
app.command()(segment_dataset.segment_dataset)
app.command(cls=benchmark.ListsArchives)(benchmark.benchmark)
app.command()(reproduce.reproduce)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.command()(checkpoints.models)
app.command()(checkpoints.pull)
app.command()(checkpoints.push)
app.command()(serve.serve)

evaluate_app = typer.Typer(help="Score a checkpoint on a benchmark.", no_args_is_help=True)
evaluate_app.command()(evaluate.refscenes)
evaluate_app.command()(evaluate.compare)
app.add_typer(evaluate_app, name="evaluate")

push_dataset_app = typer.Typer(help="Publish a dataset on the Hugging Face Hub.", no_args_is_help=True)
push_dataset_app.command()(push_dataset.refscenes)
app.add_typer(push_dataset_app, name="push-dataset")

plugin_app = typer.Typer(help="The FiftyOne plugin.", no_args_is_help=True)
plugin_app.command()(plugin.install)
plugin_app.command()(plugin.uninstall)
app.add_typer(plugin_app, name="plugin")
