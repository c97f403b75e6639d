"""The checkpoints in FiftyOne's model zoo: registered from GitHub with all but the network real, pulled from a Hub."""

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path

import eta.core.web as etaw
import fiftyone as fo
import fiftyone.zoo as foz
import fiftyone.zoo.models as fozm
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionContext
from genseg_hub.checkpoints.catalog import EMBEDDED, KNOWN
from genseg_hub.errors import CheckpointError
from genseg_hub.publishing import publish

from fiftyone_genseg import labels, plugin, zoo

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "https://github.com/owner/fiftyone-genseg"
NANO = "genseg-r1/nano"
QWEN = "Qwen/Qwen3-VL-2B-Instruct"


@pytest.fixture(autouse=True)
def models(monkeypatch, tmp_path):
    """Give FiftyOne an empty model zoo, and return the folder of these models."""
    monkeypatch.setattr(fo.config, "model_zoo_dir", str(tmp_path / "models"))
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path / "plugins"))
    return tmp_path / "models" / zoo.SOURCE


@pytest.fixture
def github(monkeypatch, tmp_path):
    """GitHub's archive of this repository, as far as FiftyOne looks at it; the list of URLs that were asked for."""
    archive, asked = tmp_path / "archive.zip", []
    with zipfile.ZipFile(archive, "w") as file:
        for path in [ROOT / "README.md", ROOT / "fiftyone.yml", *(ROOT / "zoo").glob("*.*")]:
            file.write(path, f"owner-fiftyone-genseg-0123abc/{path.relative_to(ROOT)}")

    def download(self, path, url):
        asked.append(url)
        shutil.copy(archive, path)

    monkeypatch.setattr(etaw.WebSession, "write", download)
    return asked


def test_the_manifest_is_that_of_the_known_checkpoints():
    made = json.loads((ROOT / "zoo" / "manifest.json").read_text())
    assert made == zoo.manifest(), "run: python -m fiftyone_genseg.zoo > zoo/manifest.json"
    assert [model["base_name"] for model in made["models"]] == [f"genseg-r1/{k.name}" for k in KNOWN]


def test_fiftyone_finds_one_manifest_in_this_repository():
    assert list(fozm._iter_model_manifests(str(ROOT))) == [str(ROOT / "zoo" / "manifest.json")]


def test_what_the_models_need_is_what_the_package_needs():
    needed = re.findall(r'^    "([^"]+)",$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert set(zoo.PACKAGES) <= set(needed)


@pytest.mark.parametrize(
    ("source", "archive"),
    [
        (REPOSITORY, "https://api.github.com/repos/owner/fiftyone-genseg/zipball"),
        ("owner/fiftyone-genseg", "https://api.github.com/repos/owner/fiftyone-genseg/zipball"),
        (f"{REPOSITORY}/tree/v1", "https://api.github.com/repos/owner/fiftyone-genseg/zipball/v1"),
    ],
)
def test_the_repository_is_a_source(github, models, source, archive):
    foz.register_zoo_model_source(source)
    assert github == [archive]
    assert len(foz.list_zoo_models(tags="referring")) == len(KNOWN)
    assert f"genseg-r1/{QWEN}" in foz.list_zoo_models(license="Apache 2.0")
    assert {path.name for path in models.iterdir()} == {"__init__.py", "manifest.json"}


def test_the_example_of_the_documentation_segments_a_dataset(dataset, nano):
    plugin.install()
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "model_zoo.md").read_text(), re.DOTALL)
    exec(example, {"dataset": dataset[:4]})
    for sample in dataset[:4]:
        expected = nano.segment(sample.filepath, sample["expression"])
        assert np.array_equal(labels.union_mask(sample["genseg"], expected.image_size), expected.mask)
    assert list(foz.list_downloaded_zoo_models()) == [NANO]
    foz.delete_zoo_model(NANO)
    assert not foz.is_zoo_model_downloaded(NANO)


def test_the_answers_of_the_form_are_arguments(dataset):
    plugin.install()
    model = foz.load_zoo_model(NANO, device="cpu", expression="", expression_field="expression")
    dataset[:1].apply_model(model, "genseg", num_workers=0)
    assert len(dataset.exists("genseg")) == 1


def test_a_commit_of_the_hub_is_kept(hub, folder):
    plugin.install()
    name, first = f"genseg-r1/{QWEN}", publish.push(folder, QWEN).commit
    foz.download_zoo_model(name)
    (folder / "recipe.yaml").write_text("seed: 1\n")
    second = publish.push(folder, QWEN).commit
    with hub.fault(".*", 503):
        model = foz.load_zoo_model(name, device="cpu", cache=False)
    assert model.checkpoint == f"{QWEN}@{first}"
    foz.download_zoo_model(name, overwrite=True)
    assert json.loads(Path(foz.find_zoo_model(name)).read_text()) == {"checkpoint": f"{QWEN}@{second}"}


def test_a_download_that_fails_leaves_nothing_that_looks_downloaded(hub, folder, models):
    plugin.install()
    publish.push(folder, QWEN)
    with hub.fault("GET .*/resolve/.*/model.safetensors", 403), pytest.raises(CheckpointError):
        foz.load_zoo_model(f"genseg-r1/{QWEN}")
    assert not foz.is_zoo_model_downloaded(f"genseg-r1/{QWEN}")
    assert {path.name for path in models.iterdir()} >= {"__init__.py", "manifest.json"}


def test_a_folder_of_the_same_name_does_not_pass_for_the_hubs(tmp_path, monkeypatch):
    shutil.copytree(EMBEDDED["nano"], tmp_path / QWEN)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=f"there is a folder {QWEN} here"):
        zoo.download_model(f"genseg-r1/{QWEN}", str(tmp_path / "note.json"))
    (tmp_path / "note.json").write_text(json.dumps({"checkpoint": QWEN}))
    with pytest.raises(CheckpointError, match="delete_zoo_model"):
        zoo.load_model(f"genseg-r1/{QWEN}", str(tmp_path / "note.json"))


@pytest.mark.parametrize("note", [None, "", "[]", "{}", '{"checkpoint": null}', '{"checkpoint": "somebody/else@01"}'])
def test_a_note_that_says_nothing_of_the_model_is_explained(tmp_path, note):
    path = tmp_path / "nano.json"
    if note is not None:
        path.write_text(note)
    with pytest.raises(CheckpointError, match=r"run foz.delete_zoo_model\('genseg-r1/nano'\)"):
        zoo.load_model(NANO, str(path))


def test_without_the_package_the_error_says_how_to_get_it(github, monkeypatch):
    foz.register_zoo_model_source(REPOSITORY)
    monkeypatch.setitem(sys.modules, "fiftyone_genseg.zoo", None)
    with pytest.raises(ImportError, match=f"fiftyone-genseg beside FiftyOne .*clone {REPOSITORY}, then run `pip"):
        foz.load_zoo_model(NANO, cache=False)


def test_a_registered_copy_is_left_alone(github, models):
    foz.register_zoo_model_source(REPOSITORY)
    plugin.install()
    plugin.uninstall()
    assert not (models / "manifest.json").is_symlink()
    assert foz.list_zoo_model_sources() == [REPOSITORY]


@pytest.mark.parametrize(
    ("given", "required", "invalid"),
    [
        (None, True, False),
        ({}, True, False),
        ({"expression": "all shapes"}, True, False),
        ({"expression_field": "expression"}, False, False),
        ({"expression": "all shapes", "expression_field": "expression"}, False, True),
    ],
)
def test_the_app_asks_for_an_expression_or_a_field(dataset, given, required, invalid):
    plugin.install()
    request = {"dataset_name": dataset.name, "view": [], "params": {"remote_params": given}}
    context = ExecutionContext(operator_uri="@voxel51/zoo/apply_zoo_model", request_params=request)
    asked = foz.get_zoo_model(NANO).resolve_input(context).to_json()["type"]["properties"]
    assert (asked["expression"]["required"], asked["expression"]["invalid"]) == (required, invalid)
    assert "expression" in asked["expression_field"]["type"]["values"]
    assert not asked["expression_field"]["required"]
