"""Packages that only some features need, and the command that installs them."""

from __future__ import annotations

import importlib.metadata

from packaging.requirements import Requirement

# Extra -> its requirements, as `[project.optional-dependencies]` of pyproject.toml states them.
EXTRAS = {
    "train": ("accelerate>=1.10", "matplotlib>=3.9", "peft>=0.18", "tensorboard>=2.18", "trl>=1.10"),
    "quant": ("accelerate>=1.10", "bitsandbytes>=0.46"),
    "serve": ("openai>=2", "transformers[serving]"),
    "ray": ("ray[data]>=2.60,<2.64",),
    "vllm": ("vllm>=0.32",),
}


def install_command(extra: str) -> str:
    """Return the command that installs the packages of an extra.

    It names the packages themselves. It also works if the plugin was downloaded and the package fiftyone-genseg is not
    installed.

    Args:
        extra: a key of EXTRAS.

    >>> install_command("quant")
    'pip install "accelerate>=1.10" "bitsandbytes>=0.46"'
    """
    return "pip install " + " ".join(f'"{requirement}"' for requirement in EXTRAS[extra])


def is_installed(extra: str) -> bool:
    """Return whether the packages of an extra are installed.

    Their versions must be versions that the extra allows.

    Args:
        extra: a key of EXTRAS.
    """
    return all(_is_met(Requirement(requirement)) for requirement in EXTRAS[extra])


def _is_met(requirement: Requirement) -> bool:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)
