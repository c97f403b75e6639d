"""Helpers of the tests that push and pull checkpoints."""

from pathlib import Path

from genseg_hub.checkpoints.catalog import EMBEDDED
from typer.testing import CliRunner

from fiftyone_genseg import cli

NANO = EMBEDDED["nano"]


def weights(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "segmenter/model.safetensors")}


def run(*arguments: object):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
