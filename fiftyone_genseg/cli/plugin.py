"""`genseg plugin install` and `genseg plugin uninstall`."""

from __future__ import annotations

import typer

from fiftyone_genseg.cli._shared import fail


def install() -> None:
    """Link the plugin and the known checkpoints into FiftyOne's plugins and model zoo."""
    from fiftyone_genseg import plugin

    try:
        typer.echo(f"linked {plugin.install()}")
    except OSError as error:
        raise fail(error) from error


def uninstall() -> None:
    """Remove the links again."""
    from fiftyone_genseg import plugin

    typer.echo("removed" if plugin.uninstall() else "the plugin was not linked")
