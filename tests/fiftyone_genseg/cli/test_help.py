"""Without the extras, each command's help works or says what to install."""

import json
import subprocess
import sys

import pytest
from genseg_hub.extras import install_command

from tests.fiftyone_genseg.test_public_names import COMMANDS, TRAINING_COMMANDS

# Modules of the extras that FiftyOne and the dependencies do not install.
MODULES = ("accelerate", "bitsandbytes", "openai", "peft", "ray", "tensorboard", "trl")
SCRIPT = """
import contextlib, importlib.metadata, io, json, sys

hidden, programs = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(hidden))  # the import of a module that is None fails as that of a missing one
found = importlib.metadata.version

def version(name):
    if name in hidden:
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)

importlib.metadata.version = version
from fiftyone_genseg.cli import app
from genseg_training.cli import main

said = {}
for program, commands in programs.items():
    for command in commands:
        printed = io.StringIO()
        sys.argv = [program, *command.split(), "--help"]
        with contextlib.redirect_stdout(printed):
            try:
                app() if program == "genseg" else main()
            except SystemExit as end:
                said[f"{program} {command}"] = [end.code, printed.getvalue()]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said():
    """Return what each command ends with and prints, in a process that cannot import the extras."""
    programs = {"genseg": ["", *COMMANDS], "genseg-train": ["", *TRAINING_COMMANDS]}
    asked = json.dumps([MODULES, programs])
    done = subprocess.run([sys.executable, "-c", SCRIPT, asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_genseg_prints_its_help(said, command):
    code, printed = said[f"genseg {command}"]
    assert code == 0
    assert "Usage: " in printed


@pytest.mark.parametrize("command", ["", *TRAINING_COMMANDS])
def test_genseg_train_prints_its_help_or_what_to_install(said, command):
    code, printed = said[f"genseg-train {command}"]
    if command in ("", "data", "export"):
        assert not code
        assert "usage: genseg-train" in printed
    else:
        assert code == f"error: training needs further packages: {install_command('train')}"
