"""`genseg serve`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer
from genseg_hub.errors import CheckpointError, ServingError

from fiftyone_genseg.cli._shared import Dialect, Revision, fail


def serve(
    name: Annotated[str, typer.Argument(help='"nano", a Hub id, or a folder.', show_default=False)],
    further: Annotated[
        list[str] | None, typer.Argument(help="After --: arguments for the engine.", show_default=False)
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="vllm, sglang or transformers.", show_default="the first installed")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    max_model_len: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of image, prompt and answer.", show_default="20480, or the model's"),
    ] = None,
    media_folder: Annotated[
        Path | None, typer.Option(help="Folder from which vLLM may read images.", file_okay=False, exists=True)
    ] = None,
    revision: Revision = None,
    dialect: Dialect = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the command.")] = False,
) -> None:
    """Serve the reasoner of a checkpoint with vLLM, SGLang or Transformers.

    Other commands ask it with --server. This process becomes the engine.

    Example: genseg serve nano --engine vllm -- --tensor-parallel-size 2
    """
    from genseg_hub import checkpoints
    from genseg_hub.pipeline import pick_device
    from genseg_hub.reasoners import serving
    from genseg_hub.reasoners.loading import dtype_of

    try:
        found, executable = serving.find(engine)
        checkpoint = checkpoints.pull(name, revision, dialect=dialect)
        checkpoint.check_reasons("served")
        dtype = str(dtype_of(pick_device("auto"), checkpoint.options)).removeprefix("torch.")
        command = serving.command(
            checkpoint, found, executable, host, port, dtype, max_model_len, media_folder, further
        )
    except (CheckpointError, ServingError) as error:
        raise fail(error) from error
    typer.echo(shlex.join(command), err=not dry_run)
    if dry_run:
        return
    address = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    typer.echo(f"for other commands, when it has loaded: --model {name} --server http://{address}:{port}/v1", err=True)
    try:
        os.execv(executable, command)
    except OSError as error:
        raise fail(error) from error
