"""What `make package` has built: both archives are whole, light and free of what lies beside the code; the wheel runs.

The tests read `dist/` and are skipped where nothing was built.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath

import pytest
import yaml

import fiftyone_genseg
from tests.conftest import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WHEELS, SDISTS = (sorted((ROOT / "dist").glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
MEGABYTES = 1_000_000
PLUGIN = yaml.safe_load((ROOT / "fiftyone.yml").read_text())
REGISTERED = """
import json
from fiftyone.plugins.context import build_plugin_contexts

(made,) = [made for made in build_plugin_contexts() if made.name == "@fiftyone-genseg/genseg"]
print(json.dumps({"errors": made.errors, "names": [instance.name for instance in made.instances]}))
"""
pytestmark = pytest.mark.skipif(not (WHEELS and SDISTS), reason="nothing is built: run `make package`")


@pytest.fixture(scope="module")
def in_sdist() -> set[PurePosixPath]:
    with tarfile.open(SDISTS[-1]) as archive:
        return {PurePosixPath(*PurePosixPath(name).parts[1:]) for name in archive.getnames()}


@pytest.fixture(scope="module")
def in_wheel() -> set[str]:
    with zipfile.ZipFile(WHEELS[-1]) as archive:
        return set(archive.namelist())


def test_the_archives_are_as_light_as_their_weights_allow():
    weights = sum(file.stat().st_size for file in (ROOT / "hub").rglob("*.safetensors"))
    for archive in (WHEELS[-1], SDISTS[-1]):
        assert archive.stat().st_size < weights + 6 * MEGABYTES, archive.name


def test_the_sdist_has_what_git_has_and_nothing_beside_it(in_sdist):
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if tracked.returncode:
        pytest.skip("this is no git checkout")
    known = {PurePosixPath(line) for line in tracked.stdout.splitlines()}
    assert in_sdist - known == {PurePosixPath("PKG-INFO")}
    beside = ("runs", "dist", ".venv", ".hypothesis", ".ci", ".github")
    assert not [path for path in in_sdist if path.parts[0] in beside]
    for needed in ("pyproject.toml", "fiftyone.yml", "README.md", "LICENSE", "hub/genseg_hub/nano/model.safetensors"):
        assert PurePosixPath(needed) in in_sdist


def test_the_wheel_has_the_plugin_beside_the_packages(in_wheel):
    targets = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, target in targets["force-include"].items():
        files = [file for file in (ROOT / source).rglob("*") if file.is_file()] or [ROOT / source]
        for file in files:
            if "__pycache__" not in file.parts:
                inside = file.relative_to(ROOT / source).as_posix()
                assert (target if inside == "." else f"{target}/{inside}") in in_wheel
    assert {name.partition("/")[0] for name in in_wheel if ".dist-info/" not in name} == {
        Path(package).name for package in targets["packages"]
    }


def test_the_metadata_is_for_pypi():
    with zipfile.ZipFile(WHEELS[-1]) as archive:
        (file,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        stated = Parser().parsestr(archive.read(file).decode())
    assert (stated["Name"], stated["Version"]) == ("fiftyone-genseg", fiftyone_genseg.__version__)
    assert stated["License-Expression"] == "Apache-2.0"
    assert stated["Author"]
    assert stated.get_all("Classifier")
    assert stated["Description-Content-Type"] == "text/markdown"


def test_the_wheel_runs_where_it_is_installed(tmp_path):
    """The dependencies are those of this environment; the packages are the wheel's own."""
    venv.create(tmp_path / "venv", with_pip=False)
    scripts, python = tmp_path / "venv" / "bin", tmp_path / "venv" / "bin" / "python"
    pure = sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")})
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", WHEELS[-1]],
        check=True,
    )
    Path(pure, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = os.environ | {"FIFTYONE_PLUGINS_DIR": str(tmp_path / "plugins"), "HOME": str(tmp_path)}
    environment.pop("PYTHONPATH", None)

    def run(*command: str) -> str:
        called = [scripts / command[0], *command[1:]]
        done = subprocess.run(called, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("python", "-c", "import genseg_hub, genseg_training, fiftyone_genseg; print(fiftyone_genseg.__file__)")
    assert where.startswith(pure)
    assert "Describe a thing in words, get its mask." in run("genseg", "--help")
    assert "nano" in run("genseg", "models")
    assert "commands:" in run("genseg-train", "--help")
    link = tmp_path / "plugins" / "fiftyone-genseg"
    assert f"linked {link}" in run("genseg", "plugin", "install")
    assert link.resolve() == Path(pure).resolve() / "fiftyone_genseg" / "_plugin"
    made = json.loads(run("python", "-c", REGISTERED).splitlines()[-1])
    assert made == {"errors": [], "names": [*PLUGIN["operators"], *PLUGIN["panels"]]}
