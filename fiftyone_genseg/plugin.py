"""Linking the installed package into FiftyOne's plugins directory, and removing the link again."""

from __future__ import annotations

from pathlib import Path

NAME = "fiftyone-genseg"


def _link() -> Path:
    import fiftyone as fo

    return Path(fo.config.plugins_dir) / NAME


def source() -> Path:
    """The folder that holds fiftyone.yml and the entry file: inside a wheel, or a checkout's root."""
    package = Path(__file__).resolve().parent
    inside = package / "_plugin"
    return inside if inside.is_dir() else package.parent


def install() -> Path:
    """Link the plugin and return the link; installing twice is harmless.

    Raises:
        FileExistsError: something that is not a link, such as a downloaded copy, has that name.
    """
    link = _link()
    if link.exists() and not link.is_symlink():
        raise FileExistsError(
            f"{link} exists and is not a link; remove it first: fiftyone plugins delete @fiftyone-genseg/genseg"
        )
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(source(), target_is_directory=True)
    return link


def uninstall() -> bool:
    """Remove the link; False when there was none."""
    link = _link()
    if not link.is_symlink():
        return False
    link.unlink()
    return True
