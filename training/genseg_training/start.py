"""The checkpoint that a run starts from, and the machine that it starts on."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
import transformers
from genseg_hub import checkpoints
from genseg_hub.checkpoints import trial
from genseg_hub.checkpoints.catalog import EMBEDDED
from trl import ModelConfig

logger = logging.getLogger(__name__)


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


def imitates_bfloat16(config: transformers.TrainingArguments) -> bool:
    """Return whether a run is on a CPU that has no instructions for bfloat16."""
    return config.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"


def check_precision(config: transformers.TrainingArguments, model_config: ModelConfig) -> None:
    """Warn if the run computes in bfloat16 on a CPU that can only imitate it."""
    if (config.bf16 or model_config.dtype == "bfloat16") and imitates_bfloat16(config):
        logger.warning(
            "this CPU has no AVX-512, so a step in bfloat16 takes several times as long as in float32; "
            "give --bf16 false and --dtype float32"
        )
