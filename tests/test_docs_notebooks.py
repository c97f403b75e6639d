"""The notebooks run from the first cell to the last, with nano and small numbers."""

import nbclient
import nbformat
import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "notebooks"


def run(name: str, place) -> str:
    """Run a notebook in a folder beside a link to examples/, and return what its cells printed."""
    (place / "examples").symlink_to(ROOT / "examples")
    (place / "notebooks").mkdir()
    notebook = nbformat.read(FOLDER / name, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(place / "notebooks")}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


@pytest.mark.usefixtures("plugin")
def test_photos(tmp_path):
    printed = run("photos.ipynb", tmp_path)
    assert "48 expressions" in printed
    assert (tmp_path / "notebooks" / "photos_overview.png").stat().st_size > 10_000


@pytest.mark.usefixtures("plugin")
def test_closing_the_loop(tmp_path, monkeypatch):
    small = {"EXPRESSIONS": "24", "STEPS": "1", "COMPLETIONS": "16", "HELD_OUT": "refscenes:val:8"}
    for name, value in small.items():
        monkeypatch.setenv(name, value)
    printed = run("closing_the_loop.ipynb", tmp_path)
    assert "better, " in printed.splitlines()[-1]
    assert (tmp_path / "notebooks" / "loop" / "run" / "best" / "genseg.json").is_file()


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.ipynb")), ids=lambda file: file.stem)
def test_notebooks_are_kept_without_their_outputs(file):
    assert [
        cell.outputs for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code" and cell.outputs
    ] == []
