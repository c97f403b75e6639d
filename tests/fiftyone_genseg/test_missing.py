"""The plugin where its packages are not installed: listed, and each operator says what to install."""

import re
import shutil
import tomllib

import fiftyone.operators as foo
import fiftyone.plugins as fop
import pytest
from fiftyone.operators.executor import ExecutionError
from fiftyone.plugins import context
from genseg_hub.extras import EXTRAS
from packaging.requirements import Requirement

from fiftyone_genseg import missing
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def lacking(plugin, tmp_path, monkeypatch):
    """Return a copy of the plugin's folder whose requirements nobody can meet, in place of the real one."""
    for name in ("fiftyone.yml", missing.REQUIREMENTS_FILE):
        shutil.copy(ROOT / name, tmp_path / name)
    with (tmp_path / missing.REQUIREMENTS_FILE).open("a") as file:
        file.write("not-on-any-index>=1\nnumpy>=99\n")
    monkeypatch.setattr("fiftyone_genseg.plugin.source", lambda: tmp_path)
    missing.unmet.cache_clear()
    yield tmp_path
    missing.unmet.cache_clear()


def test_the_requirements_are_those_of_the_package(plugin):
    lines = (ROOT / missing.REQUIREMENTS_FILE).read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == PROJECT["dependencies"]
    assert fop.load_plugin_requirements("@fiftyone-genseg/genseg") == PROJECT["dependencies"]


def test_the_extras_are_those_of_the_package():
    optional = PROJECT["optional-dependencies"]
    assert {name: list(needed) for name, needed in EXTRAS.items()} == {
        name: needed for name, needed in optional.items() if name not in ("dev", "docs")
    }


def test_every_requirement_has_a_lowest_version():
    asked = [line for group in (PROJECT["dependencies"], *EXTRAS.values()) for line in group]
    assert not [line for line in asked if not any(s.operator == ">=" for s in Requirement(line).specifier)]


def test_where_everything_is_installed_the_real_operators_register():
    missing.unmet.cache_clear()
    assert missing.problem() is None


def test_a_python_that_is_too_old_is_named(plugin, monkeypatch):
    assert PROJECT["requires-python"] == ">=" + ".".join(map(str, missing.LOWEST_PYTHON))
    monkeypatch.setattr(missing, "LOWEST_PYTHON", (99, 0))
    (made,) = [made for made in context.build_plugin_contexts() if made.name == "@fiftyone-genseg/genseg"]
    assert not made.has_errors(), made.errors
    form = made.instances[0].resolve_input(None).to_json()
    sentence = form["type"]["properties"]["missing"]["view"]["description"]
    assert re.fullmatch(r"This plugin needs Python 99\.0 or newer; FiftyOne runs on 3\.\d+\.\d+ here", sentence)


def test_unmet_names_what_is_not_there_and_what_is_too_old(lacking):
    assert missing.unmet() == ("not-on-any-index>=1", "numpy>=99")


def test_each_operator_says_what_to_install(lacking):
    (made,) = [made for made in context.build_plugin_contexts() if made.name == "@fiftyone-genseg/genseg"]
    assert not made.has_errors(), made.errors
    assert {operator.name for operator in made.instances} >= {"referring_segment", "ask", "train_on_view"}
    for operator in made.instances:
        form = operator.resolve_input(None).to_json()
        sentence = form["type"]["properties"]["missing"]["view"]["description"]
        assert "not-on-any-index>=1, numpy>=99" in sentence
        assert missing.INSTALL in sentence
        with pytest.raises(ImportError, match="not-on-any-index"):
            operator.execute(None)
    with pytest.raises(ExecutionError, match=f"Reason: .*not-on-any-index.*{missing.INSTALL}"):
        foo.execute_operator("@fiftyone-genseg/genseg/release_model", {})
