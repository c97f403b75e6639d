"""`genseg reproduce`."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fiftyone_genseg.cli._shared import fail, possible, warn

if TYPE_CHECKING:
    from fiftyone_genseg.reproduction.request import Reproduction
    from fiftyone_genseg.reproduction.stages import Stage

_LOCK = ".lock"


def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="genseg_r1_8b, genseg_r1_4b, genseg_smoke_2b, nano, or a YAML file of runs and benchmarks.",
            show_default=False,
        ),
    ],
    root: Annotated[
        Path,
        typer.Option(
            envvar="GENSEG_BENCHMARKS", callback=possible, help="Folder under which the official archives lie."
        ),
    ] = Path("data"),
    out: Annotated[
        Path | None,
        typer.Option(
            callback=possible, help="Folder of the benchmarks and the table.", show_default="runs/reproduce/NAME"
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only print the stages, their hours and disk, and which are done.")
    ] = False,
    push: Annotated[
        str | None, typer.Option(metavar="OWNER", help="Publish the checkpoints on the Hub as OWNER/RECIPE.")
    ] = None,
) -> None:
    """Go from the official archives to the paper's table, in stages that resume.

    The stages are commands: genseg-train data, genseg-train grpo, genseg benchmark, and with --push genseg push. Each
    stage is done when its own output is whole, and the same command goes on after a kill. At the end, the checkpoints
    get model cards with the figures, and table.md and table.json show the figures beside the published ones.
    """
    from genseg_hub.errors import CheckpointError

    from fiftyone_genseg.reproduction import request, stages

    try:
        asked = request.read(name)
        folder = out or Path("runs/reproduce") / asked.name
        todo = stages.stages(asked, root, folder, push)
        wrong = list(stages.check(asked, root, push))
        if plan:
            _print_plan(asked, todo, root, folder, wrong)
            return
        if wrong:
            raise ValueError(f"nothing was started: {'; '.join(wrong)}")
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder) as held:
            _check_disk(asked, todo, root, folder)
            for stage in todo:
                if stage.kind == "push":
                    continue
                if stage.is_done():
                    typer.secho(f"{stage.name}: done, {stage.output}", fg="green", err=True)
                    continue
                typer.secho(f"{stage.name}: {request.shown(stage.command)}", fg="cyan", err=True)
                stages.execute(stage, (held,))
            _finish(asked, folder, push or "OWNER")
            for stage in todo:
                if stage.kind == "push" and stages.start_won(stage.run):
                    warn(f"{stage.run.name} is not published, because no checkpoint of it beat its start")
                elif stage.kind == "push":
                    typer.secho(f"{stage.name}: {request.shown(stage.command)}", fg="cyan", err=True)
                    stages.execute(stage, (held,))
    except (ValueError, OSError, CheckpointError, stages.StageError) as error:
        raise fail(error) from error


def _finish(asked: Reproduction, folder: Path, owner: str) -> None:
    """Write the cards and the table, and print the table."""
    from genseg_hub.publishing.card import card
    from genseg_hub.whole import write_text

    from fiftyone_genseg.reproduction import table

    for run in asked.runs:
        table.add_figures(run, folder)
        write_text(folder / f"card_{run.name}.md", str(card(run.result, f"{owner}/{run.name}")))
    typer.echo(table.write(asked, folder))
    typer.echo(f"wrote {folder / table.MARKDOWN}, {folder / table.JSON} and the model cards beside them", err=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Hold the lock of a reproduction, and give its file descriptor.

    A stage's command inherits the descriptor, so the lock is held as long as the command lives, even if this process
    is killed. The next call waits for it instead of starting the same stage a second time.
    """
    import fcntl

    with (folder / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            typer.echo(f"another call, or a stage that it started, is at work in {folder}; waiting for it", err=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _check_disk(asked: Reproduction, todo: list[Stage], root: Path, folder: Path) -> None:
    """Raise OSError if the disk has too little room for the remaining stages."""
    from fiftyone_genseg.reproduction import estimates

    needed = sum(estimates.cost(stage, asked, root).disk or 0 for stage in todo if not stage.is_done())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"the stages will fill about {needed / 1e9:.0f} GB, and {free / 1e9:.0f} GB are free at {folder}; free "
            "some space, or start in a folder of another disk"
        )


def _print_plan(asked: Reproduction, todo: list[Stage], root: Path, folder: Path, wrong: list[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from fiftyone_genseg.reproduction import estimates, request

    costs = [estimates.cost(stage, asked, root) for stage in todo]
    gpus = next((list(cost.hours) for cost in costs if cost.hours), [])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("stage", no_wrap=True)
    for heading in (*(f"{asked.processes} x {gpu}, h" for gpu in gpus), "disk, GB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("done", no_wrap=True)
    table.add_column("output", no_wrap=True)
    for stage, cost in zip(todo, costs, strict=True):
        hours = [_hours(cost.hours[gpu]) if gpu in cost.hours else "-" for gpu in gpus]
        disk = "-" if cost.disk is None else f"{cost.disk / 1e9:.1f}"
        table.add_row(stage.name, *hours, disk, "yes" if stage.is_done() else "no", stage.output)
    console = Console(width=200)
    if gpus:
        table.add_section()
        sums = [_hours(sum(cost.hours.get(gpu, 0.0) for cost in costs)) for gpu in gpus]
        table.add_row("together", *sums, f"{sum(cost.disk or 0 for cost in costs) / 1e9:.1f}", "", "")
    console.print(table)
    for stage in todo:
        typer.echo(request.shown(stage.command))
    typer.echo(f"then: model cards and the table, in {folder}")
    if gpus:
        typer.echo(
            "Hours and disk are estimates, never measured (benchmarks/estimate_training.py), without start-up and the "
            "reading of archives. A stage of - is not estimated; the data take minutes."
        )
    for sentence in wrong:
        typer.secho(f"missing: {sentence}", fg="yellow")


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 1 else f"{hours:.2f}"
