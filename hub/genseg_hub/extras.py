"""Packages that only some features need, and the command that installs them."""

from __future__ import annotations

# Extra -> its requirements, as `[project.optional-dependencies]` of pyproject.toml states them.
EXTRAS = {
    "train": ("accelerate>=1.10", "matplotlib>=3.9", "peft>=0.18", "tensorboard>=2.18", "trl>=1.10"),
    "quant": ("accelerate>=1.10", "bitsandbytes>=0.46"),
    "serve": ("openai>=2", "transformers[serving]"),
    "ray": ("ray[data]>=2.60,<2.64",),
}


def install_command(extra: str) -> str:
    """Return the command that installs the packages of an extra.

    It names the packages themselves, so that it also works where the plugin was downloaded and the package
    fiftyone-genseg is not installed.

    Args:
        extra: a key of EXTRAS.

    >>> install_command("quant")
    'pip install "accelerate>=1.10" "bitsandbytes>=0.46"'
    """
    return "pip install " + " ".join(f'"{requirement}"' for requirement in EXTRAS[extra])
