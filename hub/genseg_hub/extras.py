"""Packages that only some features need, and the command that installs them."""

from __future__ import annotations

import importlib.metadata

from packaging.requirements import Requirement

# Extra -> its requirements, as `[project.optional-dependencies]` of pyproject.toml states them.
EXTRAS = {
    "train": ("accelerate>=1.10", "matplotlib>=3.9.2", "peft>=0.18", "tensorboard>=2.18", "trl>=1.11"),
    "quant": ("accelerate>=1.10", "bitsandbytes>=0.46"),
    "serve": ("openai>=2", "transformers[serving]>=5.24"),
    "ray": ("ray[data]>=2.60,<2.64",),
    "vllm": ("vllm>=0.32",),
}


def install_command(extra: str) -> str:
    """Return the command that installs the packages of an extra.

    The command names the packages themselves, so that it also works for a downloaded plugin without the package
    fiftyone-genseg.

    Args:
        extra: a key of EXTRAS.

    >>> install_command("quant")
    'pip install "accelerate>=1.10" "bitsandbytes>=0.46"'
    """
    return "pip install " + " ".join(f'"{requirement}"' for requirement in EXTRAS[extra])


def is_installed(extra: str) -> bool:
    """Return whether an extra's packages are installed, in versions that it allows.

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
