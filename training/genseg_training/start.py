"""The checkpoint that a run starts from."""

from __future__ import annotations

from pathlib import Path

from genseg_hub import checkpoints
from genseg_hub.checkpoints import trial
from genseg_hub.checkpoints.catalog import EMBEDDED
from trl import ModelConfig


def start_of(model_config: ModelConfig) -> checkpoints.Checkpoint:
    """Return the checkpoint to start from, downloaded.

    Only a checkpoint of the Hub has a revision, "main" by default.

    Args:
        model_config: TRL's settings of the model; `model_name_or_path` is nano, a folder or a Hub id.

    Raises:
        CheckpointError: the checkpoint cannot be used.
    """
    name = model_config.model_name_or_path or ""
    local = name in EMBEDDED or Path(name).is_dir()
    revision = model_config.model_revision
    start = checkpoints.pull(name, None if local or revision == "main" else revision)
    start.check_reasons("trained")
    trial.check(start.reasoner, name)
    return start
