"""What the plugin shows where its Python packages are not installed: operators that say how to install them."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterable

import fiftyone.operators as foo
import fiftyone.operators.types as types
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from fiftyone_genseg import plugin

REQUIREMENTS_FILE = "requirements.txt"
INSTALL = "fiftyone plugins requirements @fiftyone-genseg/genseg --install"


@functools.cache
def unmet() -> tuple[str, ...]:
    """Return the requirements of the plugin that the installed packages do not meet, as requirements.txt has them.

    The answer is that of the first call in this process, because FiftyOne asks before each operator.
    """
    lines = (plugin.source() / REQUIREMENTS_FILE).read_text().splitlines()
    asked = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return tuple(str(requirement) for requirement in asked if not _is_met(requirement))


def _is_met(requirement: Requirement) -> bool:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(Version(version), prereleases=True)


def register(context, lacking: Iterable[str]) -> None:
    """Register each operator of fiftyone.yml as one that only says what to install.

    Args:
        context: FiftyOne's plugin context.
        lacking: requirements that are not met.
    """
    names = yaml.safe_load((plugin.source() / "fiftyone.yml").read_text())["operators"]
    sentence = f"Packages are missing ({', '.join(lacking)}): run `{INSTALL}` and start FiftyOne again"
    for name in names:
        context.register(_explaining(name, sentence))


def _explaining(operator: str, sentence: str) -> type[foo.Operator]:
    class Explaining(foo.Operator):
        """An operator that only says what to install."""

        @property
        def config(self) -> foo.OperatorConfig:
            label = operator.replace("_", " ").capitalize()
            return foo.OperatorConfig(name=operator, label=label, description=sentence, dynamic=True)

        def resolve_input(self, ctx) -> types.Property:
            form = types.Object()
            notice = types.Error(label="This plugin cannot run yet", description=sentence)
            form.view("missing", notice).invalid = True
            return types.Property(form)

        def execute(self, ctx) -> None:
            raise ImportError(sentence)

    return Explaining
