"""Load the reasoner of a checkpoint into this process, or find it on a server."""

from __future__ import annotations

import dataclasses
from typing import Any

from genseg_hub import dialects
from genseg_hub.checkpoints import Checkpoint
from genseg_hub.errors import CheckpointError
from genseg_hub.reasoners.base import Reasoner
from genseg_hub.reasoners.continuous_batching import ContinuousReasoner
from genseg_hub.reasoners.server import ServerReasoner
from genseg_hub.reasoners.transformers import TransformersReasoner


def load_reasoner(checkpoint: Checkpoint, dialect: dialects.Dialect, target) -> Reasoner:
    """Load the reasoner of a checkpoint, in bfloat16 on a GPU and in float32 on a CPU.

    Args:
        checkpoint: with the reasoner's files on this disk.
        dialect: of the checkpoint; it limits the length of answers.
        target: torch.device.
    """
    import torch
    import transformers

    dtype = torch.float32 if target.type == "cpu" else torch.bfloat16
    processor = transformers.AutoProcessor.from_pretrained(checkpoint.reasoner, trust_remote_code=False)
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        checkpoint.reasoner, dtype=dtype, use_safetensors=True, trust_remote_code=False
    ).to(target)
    kind = ContinuousReasoner if ContinuousReasoner.supports(model) else TransformersReasoner
    return kind(model, processor, _limit(dialect, model.generation_config))


def connect(checkpoint: Checkpoint, server: str, **options: Any) -> tuple[ServerReasoner, Checkpoint]:
    """Find the reasoner of a checkpoint on a server.

    Args:
        checkpoint: as `checkpoints.pull` returns it; the reasoner's weights may be missing.
        server: address of the server's API.
        **options: of `ServerReasoner`.

    Returns:
        The reasoner, and the checkpoint with its name on the server. The checkpoint keeps its commit only if this name,
        or the path from which the server loaded the model, has the commit.

    Raises:
        CheckpointError: a file of the checkpoint cannot be read.
        NotServedError, ReasonerError: as `ServerReasoner`.
        ValueError: an argument cannot be used.
    """
    import transformers

    dialect = dialects.get_dialect(checkpoint.dialect)
    limit, file = dialect.MAX_NEW_TOKENS, checkpoint.reasoner / "generation_config.json"
    if file.is_file():
        try:
            limit = _limit(dialect, transformers.GenerationConfig.from_pretrained(checkpoint.reasoner))
        except Exception as error:  # a stranger's file
            raise CheckpointError(f"{file} cannot be read: {error}; mend or remove it") from error
    pinned = dataclasses.replace(checkpoint, chosen_segmenter=None).pinned
    folder = str(checkpoint.reasoner.resolve())  # in huggingface_hub's cache, the path has the commit
    reasoner = ServerReasoner(server, max_new_tokens=limit, **{"model": (pinned, checkpoint.name, folder), **options})
    commit = checkpoint.commit if reasoner.known_as in (pinned, folder) else None
    return reasoner, dataclasses.replace(checkpoint, commit=commit, served=reasoner.label)


def _limit(dialect: dialects.Dialect, generation_config) -> int:
    """Return the token limit of an answer: the smaller limit of dialect and checkpoint."""
    return min(dialect.MAX_NEW_TOKENS, generation_config.max_new_tokens or dialect.MAX_NEW_TOKENS)
