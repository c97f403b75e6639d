"""The reasoner of a checkpoint: loaded into this process, or found on a server."""

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
    """The reasoner of a checkpoint on a server, and the checkpoint as the server's word has it: with its name there,
    and without a commit unless that name, or where the server loaded it from, says which.

    Args:
        checkpoint: as `checkpoints.pull` gives it; the reasoner need not be there.
        server, options: as `GenSegR1.from_pretrained` takes them.

    Raises:
        CheckpointError: a file of it cannot be read.
        NotServedError, ReasonerError: as `ServerReasoner`.
        ValueError: an argument that cannot be used.
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
    folder = str(checkpoint.reasoner.resolve())  # in the cache of the Hub, it names the commit
    reasoner = ServerReasoner(server, max_new_tokens=limit, **{"model": (pinned, checkpoint.name, folder), **options})
    commit = checkpoint.commit if reasoner.known_as in (pinned, folder) else None
    return reasoner, dataclasses.replace(checkpoint, commit=commit, served=reasoner.label)


def _limit(dialect: dialects.Dialect, generation_config) -> int:
    """Tokens of an answer: what the dialect says, or less where the checkpoint does."""
    return min(dialect.MAX_NEW_TOKENS, generation_config.max_new_tokens or dialect.MAX_NEW_TOKENS)
