"""`genseg models`, `genseg pull` and `genseg push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from genseg_hub.errors import CheckpointError, PublishError

from fiftyone_genseg.cli._shared import Dialect, Revision, fail, possible, tell_push


def models() -> None:
    """List the checkpoints known by name, other families, and published figures.

    Any Hub id or folder of a known family works, too, and each checkpoint with another segmenter: name+segmenter.
    """
    from genseg_hub import checkpoints, dialects
    from genseg_hub.checkpoints.catalog import KNOWN
    from genseg_hub.evaluation import literature
    from genseg_hub.options import THINKING_TOKENS
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in ("name", "dialect", "segmenter", "parameters", "context", "memory", "licence", "here"):
        table.add_column(heading, no_wrap=True)
    for known in KNOWN:
        here = "yes" if checkpoints.is_on_disk(known.name) else "no"
        memory, licence = f"{known.memory:.1f} GB", known.licence or "see its page"
        context = f"{known.context:,}"
        road = ("words", "itself") if known.takes_words else (known.dialect, known.segmenter)
        table.add_row(known.name, *road, known.parameters, context, memory, licence, here)
    families = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in ("dialect", "types in config.json", "coordinates", "answer, tokens"):
        families.add_column(heading)
    for name in dialects.names():
        dialect = dialects.get_dialect(name)
        types = ", ".join(dialect.MODEL_TYPES) or "tuned: by the checkpoint's name or genseg.json"
        families.add_row(name, types, dialect.FRAME, f"{dialect.MAX_NEW_TOKENS:,}")
    console = Console(width=150)
    console.print(table)
    console.print(
        "Memory is an estimate for one answer about an image of the default size (2,048 tokens). "
        f"A thinking checkpoint may answer with {THINKING_TOKENS:,} tokens."
    )
    console.print(families)
    console.print("Published, not measured here:")
    for known in KNOWN:
        for row in literature.about(known.name):
            console.print(f"  {known.name}: {row}", highlight=False)


def pull(
    name: Annotated[str, typer.Argument(help="Hub id (owner/name), or owner/name@revision.", show_default=False)],
    revision: Revision = None,
    dialect: Dialect = None,
) -> None:
    """Download the newest commit of a checkpoint, and compare checksums with the Hub."""
    from genseg_hub import checkpoints

    try:
        planned = checkpoints.plan(name, revision, dialect=dialect, newest=True)
        typer.echo(str(planned))
        checkpoint = checkpoints.pull(planned.name, planned.resolved, dialect=dialect, newest=True)
        compared = checkpoints.verify(checkpoint)
    except CheckpointError as error:
        raise fail(error) from error
    typer.echo(f"folder {checkpoint.reasoner}")
    if checkpoint.commit:
        typer.echo(f"commit {checkpoint.commit}, checksums of {compared} files agree with the Hub's")


def push(
    folder: Annotated[
        Path, typer.Argument(callback=possible, help="Folder as `genseg-train export` writes it.", show_default=False)
    ],
    repo_id: Annotated[str, typer.Argument(help="owner/name on the Hub.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Make it a private repository.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; created if it does not exist.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files to send; ask no network.")] = False,
) -> None:
    """Publish a checkpoint on the Hugging Face Hub, with a model card, in one commit."""
    from genseg_hub.publishing import publish

    try:
        published = publish.push(folder, repo_id, private=private, revision=revision, dry_run=dry_run)
    except PublishError as error:
        raise fail(error) from error
    tell_push(published)
