"""The checkpoint of a run for which the user names none.

The form of "Referring segment", `genseg segment`, `genseg segment-dataset` and `genseg demo --photos` ask here.
`SegmentRequest()` and Python callers of the operator do not: for them the default is always nano, so that a script does
the same on every machine. This module asks no network and does not import FiftyOne, which would start its database.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

from genseg_hub import checkpoints
from genseg_hub.checkpoints.catalog import EMBEDDED, NANO
from genseg_hub.whole import DiskFullError, write_text

from fiftyone_genseg import machine, uris

VARIABLE = "GENSEG_CHECKPOINT"
SETTING = "checkpoint"  # of this plugin, in FiftyOne's app_config.json
_LAST = "last_checkpoint"
_log = logging.getLogger(__name__)


class Default(NamedTuple):
    """A checkpoint, and why it is the default."""

    name: str
    why: str


def find() -> Default:
    """Return the default checkpoint and the reason.

    The first of the following counts: the environment variable GENSEG_CHECKPOINT; the setting `checkpoint` of this
    plugin in FiftyOne's app_config.json; the recommended checkpoint (`machine.recommended`) among the checkpoints on
    this disk; the checkpoint that was used last, if it is still on this disk; nano.
    """
    if named := os.environ.get(VARIABLE, "").strip():
        return Default(named, f"{VARIABLE} names it")
    if setting := _setting():
        return Default(setting, f"the setting {SETTING!r} of the plugin in {_app_config()} names it")
    here = [known for known in machine.GENERAL if checkpoints.is_on_disk(known.name)]
    if best := machine.recommended(among=here):
        return Default(best.name, "it is on this disk and fits this machine")
    last = _read(_memory()).get(_LAST)
    if isinstance(last, str) and checkpoints.is_on_disk(last):
        return Default(last, "it was used last")
    return Default(NANO, "no other checkpoint was set, found on this disk or used before")


def remember(name: str, revision: str | None = None) -> None:
    """Remember a checkpoint as the last one that was used.

    Checkpoints of this package are not remembered.

    Args:
        name: as `checkpoints.pull` takes it. It was loaded in this process or by workers, not asked on a server.
        revision: as `checkpoints.pull` takes it.
    """
    reasoner, segmenter = checkpoints.split_segmenter(name)
    if reasoner in EMBEDDED:
        return
    if os.path.isdir(os.path.expanduser(reasoner)):
        reasoner = str(Path(reasoner).expanduser().resolve())
    elif revision:
        reasoner = f"{reasoner}@{revision}"
    if segmenter and os.path.isdir(os.path.expanduser(segmenter)):
        segmenter = str(Path(segmenter).expanduser().resolve())
    name = f"{reasoner}+{segmenter}" if segmenter else reasoner
    try:
        write_text(_memory(), json.dumps({_LAST: name}) + "\n")
    except DiskFullError as error:
        _log.warning("the checkpoint %s is not remembered for the next run: %s", name, error)
    except OSError:  # a home that cannot be written to only loses a convenience
        pass


def _memory() -> Path:
    return Path.home() / ".fiftyone" / "genseg.json"


def _app_config() -> Path:
    return Path(os.environ.get("FIFTYONE_APP_CONFIG_PATH") or Path.home() / ".fiftyone" / "app_config.json")


def _setting() -> str | None:
    settings: Any = _read(_app_config())
    for key in ("plugins", uris.PLUGIN, SETTING):
        settings = settings.get(key) if isinstance(settings, dict) else None
    return settings.strip() or None if isinstance(settings, str) else None


def _read(file: Path) -> dict[str, Any]:
    """Return a JSON object; {} for a file without one, or no file."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
