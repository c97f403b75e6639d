"""Checkpoints that only a server has.

The served name tells the dialect, and the segmenter is chosen here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from genseg_hub import dialects
from genseg_hub.checkpoints.catalog import KNOWN
from genseg_hub.checkpoints.names import split_agent
from genseg_hub.checkpoints.pulling import Checkpoint, find_segmenter, pinned_segmenter
from genseg_hub.checkpoints.settings import read_settings
from genseg_hub.options import HubOptions

_NO_FOLDER = Path(os.devnull)  # in which no file can be


def of_served_model(
    name: str, further: Sequence[str], segmenter: str | None, dialect: str | None, options: HubOptions
) -> Checkpoint:
    """Return the checkpoint of a model that only its server knows.

    Missing files of the segmenter are downloaded.

    Args:
        name: name of the model on the server.
        further: other names of the model, such as its Hub id, in which its family may be found.
        segmenter: "nano", a Hub id, also with its revision, or a local folder; None for the default of its family.
        dialect: dialect that the user named; None for the dialect of the family.
        options: token, cache and network.

    Raises:
        CheckpointError: no name tells a dialect, or the segmenter cannot be used.
    """
    names = [told.partition("@")[0] for told in (name, *further)]
    exact = (told for told in names if any(known.name == told for known in KNOWN))
    files = [re.split(r"[/\\]", told)[-1] for told in names]  # llama-server's names are paths; folders tell little
    telling = next(exact, None) or next((told for told in (*files, *names) if dialects.of_name(told)), name)
    settings = read_settings(_NO_FOLDER, telling, dialect)
    weights, config, hub_id = find_segmenter(segmenter or settings.segmenter, None, options, None)
    return Checkpoint(
        name=name,
        reasoner=_NO_FOLDER,
        segmenter=weights,
        segmenter_config=config,
        dialect=settings.dialect,
        note=settings.note,
        segmenter_id=hub_id,
        chosen_segmenter=segmenter and pinned_segmenter(segmenter, weights),
        agent=split_agent(segmenter or settings.segmenter)[1],
        served=name,
    )
