"""Show operators that say what to do if Python or packages do not suffice."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import sys

import fiftyone.operators as foo
import fiftyone.operators.types as types
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from fiftyone_genseg import plugin

REQUIREMENTS_FILE = "requirements.txt"
INSTALL = "fiftyone plugins requirements @fiftyone-genseg/genseg --install"
LOWEST_PYTHON = (3, 11)  # FiftyOne also runs on 3.10


def problem() -> str | None:
    """Return in a sentence why the plugin cannot run, and what to do; None if it can."""
    if sys.version_info < LOWEST_PYTHON:
        lowest = ".".join(map(str, LOWEST_PYTHON))
        return f"This plugin needs Python {lowest} or newer; FiftyOne runs on {platform.python_version()} here"
    if lacking := unmet():
        return f"Packages are missing ({', '.join(lacking)}): run `{INSTALL}` and start FiftyOne again"
    return None


@functools.cache
def unmet() -> tuple[str, ...]:
    """Return unmet requirements of the plugin, as lines of requirements.txt.

    Every call in this process returns the first answer, because FiftyOne asks before each operator.
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


def register(context, sentence: str) -> None:
    """Register each operator of fiftyone.yml as one that only says why it cannot run.

    Args:
        context: FiftyOne's plugin context.
        sentence: the sentence of `problem`.
    """
    names = yaml.safe_load((plugin.source() / "fiftyone.yml").read_text())["operators"]
    for name in names:
        context.register(_explaining(name, sentence))


def _explaining(operator: str, sentence: str) -> type[foo.Operator]:
    class Explaining(foo.Operator):
        """An operator that only says why it cannot run."""

        @property
        def config(self) -> foo.OperatorConfig:
            label = operator.replace("_", " ").capitalize()
            return foo.OperatorConfig(name=operator, label=label, description=sentence, dynamic=True)

        def resolve_input(self, ctx) -> types.Property:
            form = types.Object()
            notice = types.Error(label="This plugin cannot run yet", description=sentence)
            shown = form.view("missing", notice)
            shown.invalid, shown.error_message = True, sentence  # the message is what a caller in Python gets
            return types.Property(form)

        def execute(self, ctx) -> None:
            raise ImportError(sentence)

    return Explaining
