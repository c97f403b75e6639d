"""The files that FiftyOne reads beside the code: icons, skills, and what fiftyone.yml says of the plugin."""

import re
import tomllib
from xml.etree import ElementTree

import fiftyone.plugins as fop
import pytest
import yaml
from fiftyone.operators import Panel, types
from fiftyone.operators.registry import OperatorRegistry

from tests.conftest import ROOT

DEFINITION = yaml.safe_load((ROOT / "fiftyone.yml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SKILL = ROOT / "skills" / "referring-segmentation" / "SKILL.md"


@pytest.fixture
def registered(plugin):
    registry = OperatorRegistry()
    return [made for kind in ("operator", "panel") for made in registry.list_operators(builtin=False, type=kind)]


def test_every_operator_and_panel_has_an_icon_for_each_mode(registered, plugin):
    shown = set()
    for made in registered:
        for icon in (made.config.light_icon, made.config.dark_icon):
            drawing = ElementTree.parse(plugin / icon.removeprefix("/")).getroot()
            assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
            assert drawing.get("viewBox") == "0 0 24 24"
            shown.add(icon)
    assert shown == {f"/assets/{file.name}" for file in (ROOT / "assets").iterdir()}, "no file is left over"
    assert len(shown) == 2 * len(registered)


def test_the_two_icons_of_a_name_differ_by_their_colour_alone():
    for light in (ROOT / "assets").glob("*-light.svg"):
        dark = light.with_name(light.name.replace("-light", "-dark"))
        colors = re.findall("#[0-9a-f]{6}", light.read_text()), re.findall("#[0-9a-f]{6}", dark.read_text())
        assert set(colors[0]).isdisjoint(colors[1])
        assert re.sub("#[0-9a-f]{6}", "", light.read_text()) == re.sub("#[0-9a-f]{6}", "", dark.read_text())


def test_each_operator_says_how_much_harm_it_can_do(registered):
    operators = [made for made in registered if not isinstance(made, Panel)]  # panels cannot say
    risks = {made.name: made.config.risk_level for made in operators}
    assert types.RiskLevel.DANGEROUS not in risks.values(), "FiftyOne's default, for operators that say nothing"
    high = {name for name, risk in risks.items() if risk == types.RiskLevel.HIGH}
    assert high == {"push_checkpoint", "train_on_view"}
    assert risks["evaluate_referring_segmentation"] == types.RiskLevel.MEDIUM, "it writes fields and a run"


def test_fiftyone_lists_the_skill(plugin):
    (skill,) = fop.list_skills(plugin=DEFINITION["name"])
    assert [skill.name] == DEFINITION["skills"]
    assert skill.description
    assert skill.content == SKILL.read_text()


def test_the_skill_does_what_it_says(dataset):
    """Run the code blocks one after another, as an agent would."""
    blocks = re.findall(r"```python\n(.*?)```", SKILL.read_text(), re.DOTALL)
    assert len(blocks) == 3
    names: dict = {}
    for block in blocks:
        exec(block.replace("DATASET", dataset.name), names)
    statuses = dataset.count_values("genseg_responses.status")
    statuses.pop(None, None)  # samples that were not asked
    assert sum(statuses.values()) == 8, "four samples, each asked two expressions"
    assert statuses.keys() <= {"segmented", "no_target"}
    assert names["figures"]["n"] == 4
    assert names["figures"]["miou"] > 0.5, "the figures are about expressions that were asked"
    assert dataset.list_evaluations() == ["first_look"]


def test_the_skill_names_operators_and_panels_that_exist(registered):
    labels = {made.config.label for made in registered}
    named = set(re.findall(r"\*([A-Z][^*]+)\*", SKILL.read_text()))
    assert named
    assert named <= labels
    assert set(re.findall(r"@fiftyone-genseg/genseg/\w+", SKILL.read_text())) <= {made.uri for made in registered}


def test_plugin_and_package_say_the_same():
    project = PROJECT["project"]
    assert DEFINITION["license"] == project["license"]
    assert [author["name"] for author in project["authors"]] == [DEFINITION["author"]]
    assert DEFINITION.get("url") == project.get("urls", {}).get("Repository"), (
        "pyproject.toml is the place of the address"
    )
