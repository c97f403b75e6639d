"""Parts that commands share: options, errors, a checkpoint, a table of figures."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from genseg_hub.publishing.commits import Push

_MODEL = (
    '"nano", a Hub id (owner/name or owner/name@revision), or a folder; name+segmenter for another segmenter, '
    "name+sam3-agent for the SAM 3 agent, facebook/sam3 for SAM 3 by words."
)
# Read it with `named`.
Model = Annotated[str | None, typer.Option("--model", "-m", help=_MODEL, show_default="nano")]
# Read it with `chosen`.
ModelOrDefault = Annotated[
    str | None, typer.Option("--model", "-m", help=_MODEL, show_default="as `genseg doctor` says")
]
Segmenter = Annotated[str | None, typer.Option(help='Segmenter to use instead: "nano", a Hub id or a folder.')]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 or mps.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub id.")]
Server = Annotated[
    str | None,
    typer.Option(help="Address of the server that has the model, see `genseg serve`: http://localhost:8000/v1"),
]
ServedModel = Annotated[
    str | None,
    typer.Option(help="Name of the model on the server: qwen3-vl:8b-instruct. Without --model it tells the dialect."),
]
Dialect = Annotated[
    str | None, typer.Option(help="How the checkpoint is prompted and read, if config.json does not tell.")
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
    from genseg_hub.whole import in_words

    typer.secho(f"error: {in_words(error)}", fg="red", err=True)
    return typer.Exit(1)


class SaysFullDisk(typer.core.TyperGroup):
    """Group of all commands, which reports a full disk in a sentence."""

    def invoke(self, ctx):
        """Run the command."""
        try:
            return super().invoke(ctx)
        except typer.Exit:  # its error is printed
            raise
        except Exception as error:
            from genseg_hub.whole import is_disk_full

            if not is_disk_full(error):
                raise
            raise fail(error) from error


def check_answered(figures: Mapping[str, Any]) -> None:
    """End the command if no expression has a usable answer.

    Figures of zero would measure nothing. The message has the commonest reason.

    Args:
        figures: figures of `Scores.compute`.
    """
    from fiftyone_genseg.messages import error_in_words

    if figures["n_failed"] < figures["n"]:
        return
    reasons = Counter(figures["errors"]) + Counter(figures["failure_reasons"])
    (reason, count), *_ = reasons.most_common(1) or [("there are no predictions", figures["n"])]
    raise fail(
        ValueError(f"none of the {figures['n']} expressions has a usable answer; {count} x {error_in_words(reason)}")
    )


def warn(text: str) -> None:
    """Print a warning."""
    typer.secho(f"warning: {text}", fg="yellow", err=True)


def named(model: str | None, server: str | None) -> str | None:
    """Return the named checkpoint, else nano; None if a server's list tells the model."""
    return model or (None if server else "nano")


def chosen(model: str | None, rendered: bool = False) -> str:
    """Return the named checkpoint, else print and return the default one.

    Args:
        model: as the user typed it; None for the default.
        rendered: whether the images are known to be rendered shapes, which nano knows.
    """
    if model is not None:
        return model
    from genseg_hub.checkpoints.catalog import NANO

    from fiftyone_genseg import default_checkpoint, messages

    name, why = default_checkpoint.find()
    if name != NANO:
        typer.echo(f"checkpoint {name}: {why}", err=True)
    elif not rendered:
        warn(messages.nano_in_a_terminal())
    return name


def import_models() -> None:
    """Import the libraries of the models without looking for garbage.

    Call this before anything else imports them. They make 700,000 objects that stay until the command ends. Python's
    collector would walk these objects during the imports, while the models load, and once more at the end.
    """
    if "genseg_hub.pipeline" in sys.modules or not gc.isenabled():
        return
    gc.disable()
    try:
        import genseg_hub.pipeline  # noqa: F401

        gc.freeze()
    finally:
        gc.enable()


def load_model(
    model: str | None,
    device: str,
    revision: str | None,
    server: str | None = None,
    segmenter: str | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
    served_model: str | None = None,
):
    """Load a checkpoint; end the command with a message if that fails.

    Args:
        model: see `GenSegR1.from_pretrained`, as for the next four.
        device: the device that computes.
        revision: branch, tag or commit.
        server: address of the server that has the reasoner.
        segmenter: segmenter in place of the checkpoint's own.
        options: further ones, as `_options.takes_model_options` gives them.
        served_model: name of the model on the server.
    """
    from genseg_hub import GenSegR1
    from genseg_hub.errors import CheckpointError, ReasonerError

    try:
        return GenSegR1.from_pretrained(
            model,
            device=device,
            revision=revision,
            server=server,
            segmenter=segmenter,
            served_model=served_model,
            **options,
        )
    except (CheckpointError, ReasonerError, TypeError, ValueError) as error:
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


def tell_push(published: Push) -> None:
    """Print the files of a push and its outcome."""
    from genseg_hub.checkpoints import readable_size

    for path, size in published.files:
        typer.echo(f"{readable_size(size):>9}  {path}")
    total = f"{len(published.files)} files, {readable_size(sum(size for _, size in published.files))}"
    if published.commit is None:
        typer.echo(f"would publish {total} at {published.url}")
    elif published.changed:
        typer.echo(f"published {total} at {published.url}, commit {published.commit}")
    else:
        typer.echo(f"{published.url} has this very content already, commit {published.commit}: no new commit")


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
