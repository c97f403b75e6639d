"""Linking the installed package into FiftyOne's plugins directory and model zoo, and removing the links again."""

from __future__ import annotations

import shutil
from pathlib import Path

NAME = "fiftyone-genseg"


def _link() -> Path:
    import fiftyone as fo

    return Path(fo.config.plugins_dir) / NAME


def _models() -> Path:
    import fiftyone as fo

    from fiftyone_genseg import zoo

    return Path(fo.config.model_zoo_dir) / zoo.SOURCE


def source() -> Path:
    """The folder that holds fiftyone.yml, the entry file and `zoo/`: inside a wheel, or a checkout's root."""
    package = Path(__file__).resolve().parent
    inside = package / "_plugin"
    return inside if inside.is_dir() else package.parent


def install() -> Path:
    """Link the plugin and return the link; installing twice is harmless.

    The files of `zoo/` are linked, too, unless FiftyOne has a copy of them, by `foz.register_zoo_model_source`. They
    are linked one by one: FiftyOne writes beside them.

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
    models = _models()
    if not (models / "manifest.json").is_file() or _is_linked(models):
        models.mkdir(parents=True, exist_ok=True)
        for file in ("__init__.py", "manifest.json"):
            (models / file).unlink(missing_ok=True)
            (models / file).symlink_to(source() / "zoo" / file)
    return link


def uninstall() -> bool:
    """Remove the links; False when the plugin was not linked."""
    link, models = _link(), _models()
    if _is_linked(models):
        shutil.rmtree(models)  # with FiftyOne's notes on what was downloaded; the weights are elsewhere
    if not link.is_symlink():
        return False
    link.unlink()
    return True


def _is_linked(models: Path) -> bool:
    return (models / "manifest.json").is_symlink()
