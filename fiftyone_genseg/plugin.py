"""Links from FiftyOne's plugins directory and model zoo to the installed package."""

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
    """Return the folder that holds fiftyone.yml, the entry file and `zoo/`.

    A wheel has this folder inside the package. In a checkout it is the root.
    """
    package = Path(__file__).resolve().parent
    inside = package / "_plugin"
    return inside if inside.is_dir() else package.parent


def install() -> Path:
    """Link the plugin and return the link; installing twice is harmless.

    The files of `zoo/` are linked, too, unless `foz.register_zoo_model_source` has made a copy of them. They are linked
    one by one because FiftyOne writes files beside them.

    Raises:
        FileExistsError: the place of the link has something else, such as a downloaded copy of the plugin.
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
        shutil.rmtree(models)  # and FiftyOne's notes on downloads; the weights are elsewhere
    if not link.is_symlink():
        return False
    link.unlink()
    return True


def _is_linked(models: Path) -> bool:
    return (models / "manifest.json").is_symlink()
