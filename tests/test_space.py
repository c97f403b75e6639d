"""The Gradio Space in `space/`: it starts, and answers with nano's masks.

`make space` runs these tests with Gradio, which refuses the Pillow of the other tests.
"""

import ast
import importlib.metadata
import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request

import numpy as np
import pytest
import yaml
from genseg_hub import GenSegR1
from genseg_hub.overlay import draw_prediction
from packaging.requirements import Requirement
from PIL import Image

from tests.conftest import ROOT

SPACE = ROOT / "space"
EXTRAS = {"openai", "pillow-heif"}  # of genseg_hub; messages name the command that installs them
needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="Gradio is not installed here: run `make space`"
)


def front_matter() -> dict:
    return yaml.safe_load((SPACE / "README.md").read_text().split("---\n")[1])


def imported(folder) -> set[str]:
    """Return the packages that a folder's modules import, without those of Python."""
    found = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(str(node.module).partition(".")[0])
    return found - sys.stdlib_module_names


def test_the_front_matter_is_a_gradio_space():
    stated = front_matter()
    assert stated["sdk"] == "gradio"
    assert (SPACE / stated["app_file"]).is_file()
    assert re.fullmatch(r"\d+\.\d+\.\d+", stated["sdk_version"])
    assert len(stated["short_description"]) <= 60, "the Hub's limit"
    assert stated["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"].lower()


def test_the_requirements_are_those_of_the_package():
    """The Space has a copy of genseg_hub, so that it needs no release of this package."""
    bounds = {
        Requirement(line).name: Requirement(line)
        for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    }
    lines = [line for line in (SPACE / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    asked = {Requirement(line).name: Requirement(line) for line in lines}
    assert all(bounds[name] == requirement for name, requirement in asked.items())
    owners = importlib.metadata.packages_distributions()
    names = {re.sub("_", "-", owner.lower()) for top in imported(ROOT / "hub") for owner in owners.get(top, [])}
    assert names & set(bounds) <= set(asked), "genseg_hub imports a dependency that the Space does not install"


def test_the_app_imports_nothing_that_the_space_lacks():
    assert imported(SPACE) <= {"gradio", "PIL", "genseg_hub"}


@pytest.fixture(scope="module", params=["nano", "hub/genseg_hub/nano_sft"])
def checkpoint(request):
    """Return a name for the Space's variable: a known one, and a folder as any training leaves it."""
    return str(ROOT / request.param) if "/" in request.param else request.param


@pytest.fixture(scope="module")
def page(checkpoint, tmp_path_factory):
    """Start the app in a process of its own, as the Space does, and return its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "MODEL_ID": checkpoint,
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT / "hub"),
    }
    log = tmp_path_factory.mktemp("space") / "log"
    with log.open("w") as stream:
        app = subprocess.Popen(
            [sys.executable, "app.py"], cwd=SPACE, env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert app.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{url}/config", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        app.terminate()
        app.wait()


@needs_gradio
def test_gradio_is_the_one_of_the_space():
    assert importlib.metadata.version("gradio") == front_matter()["sdk_version"]


@needs_gradio
def test_the_page_answers_with_the_masks_of_the_checkpoint(page, checkpoint):
    import gradio_client

    client = gradio_client.Client(page, verbose=False)
    words = "the small purple shape"
    drawn, outcome, answer = client.predict(
        gradio_client.handle_file(str(SPACE / "scene.png")), words, api_name="/segment"
    )
    scene = Image.open(SPACE / "scene.png").convert("RGB")
    expected = GenSegR1.from_pretrained(checkpoint).segment(scene, words)
    assert np.array_equal(np.array(Image.open(drawn)), np.array(draw_prediction(scene, expected)))
    assert (outcome, answer) == ("1 mask.", expected.response.text)


@needs_gradio
def test_the_page_names_its_checkpoint(page, checkpoint):
    import gradio_client

    (headline, *_) = [
        part["props"]["value"]
        for part in gradio_client.Client(page, verbose=False).config["components"]
        if part["type"] == "markdown"
    ]
    assert f"Checkpoint: `{checkpoint}`" in headline


@needs_gradio
def test_what_cannot_be_asked_is_explained(page):
    import gradio_client

    client = gradio_client.Client(page, verbose=False)
    with pytest.raises(gradio_client.exceptions.AppError, match="Choose an image first"):
        client.predict(None, "the star", api_name="/segment")
    with pytest.raises(gradio_client.exceptions.AppError, match="expression"):
        client.predict(gradio_client.handle_file(str(SPACE / "scene.png")), " ", api_name="/segment")
