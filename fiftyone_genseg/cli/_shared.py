"""Parts that commands share: options, errors, a checkpoint, a table of figures."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated, Any

import typer

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help='"nano", a Hub id (owner/name or owner/name@revision), or a folder; name+segmenter for another segmenter.',
    ),
]
Segmenter = Annotated[str | None, typer.Option(help='Segmenter to use instead: "nano", a Hub id or a folder.')]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 or mps.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub id.")]
Server = Annotated[
    str | None,
    typer.Option(help="Address of the server that has the model, see `genseg serve`: http://localhost:8000/v1"),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Expressions answered at once.")]


def possible(value: Any) -> Any:
    """Expand `~` in the path of an option, or in each of several paths.

    Raises:
        typer.BadParameter: a path that this system cannot have, with the reason.
    """
    if not isinstance(value, Path):
        return value if value is None else [possible(path) for path in value]
    try:
        path = value.expanduser()
        with contextlib.suppress(FileNotFoundError):
            os.stat(path)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a user without a home folder
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise typer.BadParameter(f"{str(value)[:80]!r} cannot be used: {reason}") from error
    return path


def fail(error: Exception) -> typer.Exit:
    """Print an error and return the exception that ends the command with status 1."""
    typer.secho(f"error: {error}", fg="red", err=True)
    return typer.Exit(1)


def load_model(model: str, device: str, revision: str | None, server: str | None = None, segmenter: str | None = None):
    """Load a checkpoint; end the command with a message where that fails."""
    from genseg_hub import GenSegR1
    from genseg_hub.errors import CheckpointError, ReasonerError

    try:
        return GenSegR1.from_pretrained(model, device=device, revision=revision, server=server, segmenter=segmenter)
    except (CheckpointError, ReasonerError, ValueError) as error:
        raise fail(error) from error


_COLUMNS = {
    "n": "n",
    "ciou": "cIoU",
    "miou": "mIoU",
    "target_miou": "target",
    "n_acc": "N-acc",
    "t_acc": "T-acc",
    "pr@0.5": "Pr@0.5",
    "pr@0.9": "Pr@0.9",
}


def figures_table(report: dict):
    """Return a table of the overall figures and the figures by attribute."""
    from rich import box
    from rich.table import Table

    title = f"{report['model']} on {report['benchmark']} (policy {report['policy']})"
    table = Table(title=title, box=box.SIMPLE, pad_edge=False, padding=0)
    table.add_column("expressions", no_wrap=True)
    for heading in _COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading) + 1)

    def row(label: str, figures: dict) -> None:
        cells = [figures[name] for name in _COLUMNS]
        table.add_row(label, *("-" if c is None else str(c) if isinstance(c, int) else f"{c:.3f}" for c in cells))

    row("all", report)
    for attribute, values in report["by"].items():
        table.add_section()
        for value, figures in values.items():
            row(f"{attribute}: {value}", figures)
    return table
