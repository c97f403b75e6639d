"""`genseg push-dataset refscenes`."""

from __future__ import annotations

from typing import Annotated

import typer
from genseg_hub.errors import PublishError

from fiftyone_genseg.cli._shared import fail, tell_push


def refscenes(
    repo_id: Annotated[str, typer.Argument(help="owner/name on the Hub.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Make it a private repository.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; created if it does not exist.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files to send; ask no network.")] = False,
) -> None:
    """Render RefScenes and publish it on the Hub, with a card, in one commit."""
    from genseg_training.nano import refscenes_on_hub

    try:
        published = refscenes_on_hub.push(repo_id, private=private, revision=revision, dry_run=dry_run)
    except PublishError as error:
        raise fail(error) from error
    tell_push(published)
