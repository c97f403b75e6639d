"""A command that loads a model waits for imports and answers, and for nothing else."""

import json
import subprocess
import sys

import pytest
from PIL import Image

IMPORTS = """
import gc, json, sys
from fiftyone_genseg.cli import _shared
begun = []
gc.callbacks.append(lambda phase, info: begun.append(phase))
_shared.import_models()
during = len(begun)
frozen = gc.get_freeze_count()
others = [[] for _ in range(1000)]
_shared.import_models()
print(json.dumps([during, frozen, gc.get_freeze_count() - frozen, gc.isenabled(), "torch" in sys.modules]))
"""
COMMANDS = {
    "segment": ["segment", "white.png", "the red circle", "-m", "no/such/folder"],
    "evaluate": ["evaluate", "refscenes", "-m", "no/such/folder"],
    "benchmark": ["benchmark", "refcocog", "-m", "no/such/folder", "--out", "run"],
}
COMMAND = """
import gc, sys
from fiftyone_genseg.cli import app
try:
    app()
finally:
    print(gc.get_freeze_count())
"""
FAILS = """
import gc, sys
from fiftyone_genseg.cli import _shared
sys.modules["torch"] = None
try:
    _shared.import_models()
except ImportError:
    print(gc.isenabled())
"""


def run(code: str) -> str:
    """Return what a new process prints last."""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_libraries_are_imported_without_looking_for_garbage():
    during, frozen, later, enabled, imported = json.loads(run(IMPORTS))
    assert imported
    assert during == 0, "no collection began"
    assert frozen > 100_000
    assert later <= 0, "objects are frozen once"
    assert enabled


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_with_a_model_begin_with_these_imports(name, tmp_path):
    Image.new("RGB", (8, 8), "white").save(tmp_path / "white.png")
    command = [sys.executable, "-c", COMMAND, *COMMANDS[name]]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert int(done.stdout.splitlines()[-1]) > 100_000, done.stderr


def test_a_missing_image_is_refused_before_these_imports():
    command = [sys.executable, "-c", COMMAND, "segment", "no/such.png", "the red circle"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "no/such.png" in done.stderr
    assert int(done.stdout.splitlines()[-1]) < 100_000


def test_an_import_that_fails_leaves_the_collector_on():
    assert run(FAILS) == "True"


@pytest.mark.slow
def test_one_answer_imports_no_other_segmenter_and_compiles_nothing(tmp_path):
    code = f"""
import sys
from PIL import Image
from fiftyone_genseg.cli import app
Image.new("RGB", (64, 48), "white").save({str(tmp_path / "white.png")!r})
sys.argv = ["genseg", "segment", {str(tmp_path / "white.png")!r}, "the red circle", "-m", "nano"]
try:
    app()
finally:
    print("transformers.models.sam3.modeling_sam3" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "FutureWarning" not in done.stderr
