"""Write checkpoint folders for `GenSegR1.from_pretrained` and `publish.push`.

model.safetensors, config.json, tokenizer and processor    the reasoner
segmenter/                                                  the segmenter, unless it is a Hub id
genseg.json                                                 dialect, segmenter, options, base model, versions, and what
                                                            a training adds
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from genseg_hub.checkpoints import SETTINGS_FILE, Checkpoint
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.options import ReasonerOptions, given
from genseg_hub.publishing.publish import is_published
from genseg_hub.whole import written_folder

SEGMENTER = "segmenter"  # folder in a checkpoint's folder
_VERSIONS_OF = ("fiftyone-genseg", "torch", "transformers", "rf-sam-2")


@contextmanager
def written_checkpoint(folder: Path) -> Iterator[Path]:
    """Give the `with` body an empty folder, which then replaces `folder`.

    `folder` may hold an earlier checkpoint. No file of the earlier checkpoint stays, because old figures would be
    published with new weights. Other files stay.

    Raises:
        DiskFullError: the disk is full; the earlier checkpoint stays.
    """
    with written_folder(folder, is_published) as new:
        yield new


def write(
    folder: Path,
    model: Any,
    processor: Any,
    segmenter: Path | str,
    dialect: str,
    options: ReasonerOptions,
    base_model: str | None,
    libraries: Iterable[str] = (),
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint into an empty folder.

    Args:
        folder: folder to write into.
        model: a model of Transformers.
        processor: processor of the model.
        segmenter: folder of a segmenter, which is copied; or a Hub id, which genseg.json names.
        dialect: name of the dialect.
        options: how the checkpoint is to be loaded, for genseg.json.
        base_model: model that these weights started from, for the model card; None if unknown.
        libraries: names of further distributions whose versions genseg.json states.
        more: further keys of genseg.json.
    """
    model.save_pretrained(folder, save_original_format=False)  # vLLM does not know the names that ZeRO-3 leaves
    processor.save_pretrained(folder)
    if isinstance(segmenter, Path):
        shutil.copytree(segmenter, folder / SEGMENTER, dirs_exist_ok=True)
    settings = {
        "dialect": dialect,
        "segmenter": SEGMENTER if isinstance(segmenter, Path) else segmenter,
        **given(replace(options, dialect=None)),
        "base_model": base_model,
        "versions": {name: _version(name) for name in (*_VERSIONS_OF, *libraries)},
        **(more or {}),
    }
    known = {key: value for key, value in settings.items() if value is not None}
    (folder / SETTINGS_FILE).write_text(json.dumps(known, indent=2) + "\n")


def origin(checkpoint: Checkpoint) -> str | None:
    """Return the base model to state for weights trained from a checkpoint, or None.

    The base model is a name that others can load. A folder has no such name, so its own base model counts.
    """
    if checkpoint.commit or checkpoint.name in EMBEDDED:
        return checkpoint.name
    settings = checkpoint.reasoner / SETTINGS_FILE
    return json.loads(settings.read_text()).get("base_model") if settings.is_file() else None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
