"""Load the reasoner of a checkpoint into this process, or find it on a server."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import os
from pathlib import Path
from typing import Any

from genseg_hub import checkpoints, dialects
from genseg_hub.checkpoints import Checkpoint
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.checkpoints.settings import CONFIG_FILE, read_config
from genseg_hub.errors import CheckpointError
from genseg_hub.extras import install_command
from genseg_hub.options import THINKING_TOKENS, VLLM, HubOptions, ReasonerOptions
from genseg_hub.reasoners import vllm
from genseg_hub.reasoners.base import Reasoner
from genseg_hub.reasoners.compared import obstacle
from genseg_hub.reasoners.continuous_batching import ContinuousReasoner
from genseg_hub.reasoners.served_models import means
from genseg_hub.reasoners.server import ServerReasoner
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_hub.thinking import opens_thought, template_opens_thought

_log = logging.getLogger(__name__)


def load_reasoner(
    checkpoint: Checkpoint, dialect: dialects.Dialect, target, options: ReasonerOptions, reserved: int = 0
) -> Reasoner:
    """Load the reasoner of a checkpoint.

    Args:
        checkpoint: checkpoint with the reasoner's files on this disk.
        dialect: dialect of the checkpoint; it limits the length of answers.
        target: torch.device.
        options: how to load it, see `ReasonerOptions`.
        reserved: bytes of the device that the segmenter needs, which vLLM leaves free.

    Raises:
        CheckpointError: a package is missing, or the options and the checkpoint contradict each other.
    """
    import transformers

    limits = {} if dialect.IMAGE_SIZE else _pixels(checkpoint, options)
    processor = transformers.AutoProcessor.from_pretrained(checkpoint.reasoner, trust_remote_code=False, **limits)
    if not processor.chat_template:
        raise CheckpointError(
            f"the processor of {checkpoint.name} has no chat template; add chat_template.jinja or chat_template.json "
            "of the checkpoint that it was made of"
        )
    thinks = opens_thought(processor)
    limit = answer_limit(checkpoint, dialect, options.max_new_tokens, thinks)
    if options.backend == VLLM:
        dtype = str(dtype_of(target, options)).removeprefix("torch.")
        return vllm.load(checkpoint, processor, target, dtype, limit, thinks, limits, reserved)
    try:
        model = load_weights(checkpoint.reasoner, checkpoint.name, **_weights(checkpoint, target, options))
    except ImportError as error:
        raise CheckpointError(
            f"{checkpoint.name} needs a package that is not installed: {error}. For 4-bit and 8-bit weights: "
            + install_command("quant")
        ) from error
    if options.device_map is None and not getattr(model, "is_quantized", False):
        model = model.to(target)
    _return_token_types(processor, model)
    reason = obstacle(model)
    if not reason:
        return ContinuousReasoner(model, processor, limit, thinks)
    _tell_generate(model.config.model_type, reason)
    return TransformersReasoner(model, processor, limit, thinks)


def load_weights(folder: Path, name: str, **options: Any) -> Any:
    """Load a reasoner's model from safetensors, without a stranger's code.

    Args:
        folder: folder of the reasoner's files.
        name: name of the checkpoint, for messages.
        **options: options of Transformers' `from_pretrained`.

    Raises:
        CheckpointError: the weights lack tensors, which Transformers would fill with random numbers.
    """
    import transformers

    loaded: Any = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
    )
    model, found = loaded
    if lacking := sorted(found["missing_keys"]):
        raise CheckpointError(
            f"the weights of {name} lack {len(lacking)} tensors: {', '.join(lacking[:3])} ...; pull or save them "
            "again. Weights that were saved inside a wrapper have other names: save the model itself, and merge an "
            "adapter first"
        )
    return model


def _return_token_types(processor, model) -> None:
    """Let a processor return the token types that its model needs.

    The processor of Cosmos3-Edge leaves them out, and the model's positions need them.
    """
    name = "mm_token_type_ids"
    if name in processor.model_input_names and name in inspect.signature(type(model).forward).parameters:
        processor.return_mm_token_type_ids = True


@functools.cache  # so that each message is logged once per process
def _tell_generate(model_type: str, reason: str) -> None:
    _log.warning("%s answers with Transformers' generate, because %s", model_type, reason)


def _weights(checkpoint: Checkpoint, target, options: ReasonerOptions) -> dict[str, Any]:
    """Return how Transformers loads the weights."""
    import transformers

    config = read_config(checkpoint.reasoner / CONFIG_FILE, checkpoint.name)
    declared = config.get("quantization_config") or (config.get("text_config") or {}).get("quantization_config")
    dtype = "auto" if declared and not options.dtype else dtype_of(target, options)
    chosen: dict[str, Any] = {"dtype": dtype}
    if options.attn_implementation:
        chosen["attn_implementation"] = options.attn_implementation
    if options.quantization:
        if declared:
            method = declared.get("quant_method", "an unknown method") if isinstance(declared, dict) else declared
            raise CheckpointError(
                f"the weights of {checkpoint.name} are quantized already ({method}); leave "
                f"quantization={options.quantization!r} out"
            )
        chosen["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=options.quantization == "4bit",
            load_in_8bit=options.quantization == "8bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype="bfloat16" if dtype == "auto" else dtype,
        )
    if options.device_map is not None:
        chosen["device_map"] = options.device_map
    elif options.quantization or declared:
        chosen["device_map"] = {"": target}  # quantized weights cannot be moved later
    return chosen


def dtype_of(target, options: ReasonerOptions) -> Any:
    """Return the torch.dtype of the weights, or "auto" for the stored one.

    The default is bfloat16 on a GPU and on a CPU that computes in it, else float32.
    """
    import torch

    if options.dtype:
        return options.dtype if options.dtype == "auto" else getattr(torch, options.dtype)
    can = torch.cpu.get_capabilities()
    computes = any(can.get(feature) for feature in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.float32 if target.type == "cpu" and not computes else torch.bfloat16


def dtype_bytes(target, options: ReasonerOptions) -> int:
    """Return the bytes of a number of the loaded weights; 0 for the stored dtype."""
    dtype = dtype_of(target, options)
    return 0 if dtype == "auto" else dtype.itemsize


def _pixels(checkpoint: Checkpoint, options: ReasonerOptions) -> dict[str, int]:
    """Return the limits of the image for a processor that has such limits."""
    import transformers

    if not (options.min_pixels or options.max_pixels):
        return {}
    settings, _ = transformers.ImageProcessingMixin.get_image_processor_dict(checkpoint.reasoner)
    size = settings.get("size")
    size = size if isinstance(size, dict) else {}
    least = settings.get("min_pixels") or size.get("shortest_edge")
    most = settings.get("max_pixels") or size.get("longest_edge")
    if not (isinstance(least, int) and isinstance(most, int)):
        return {}
    return {"min_pixels": options.min_pixels or least, "max_pixels": options.max_pixels or most}


def connect(
    checkpoint: Checkpoint,
    server: str,
    max_new_tokens: int | None = None,
    served_model: str | None = None,
    **options: Any,
) -> tuple[ServerReasoner, Checkpoint]:
    """Find the reasoner of a checkpoint on a server.

    Args:
        checkpoint: as `checkpoints.pull` returns it; the reasoner's weights may be missing.
        server: address of the server's API.
        max_new_tokens: token limit of an answer; None for the limit of dialect and checkpoint.
        served_model: name of the checkpoint on the server, see `served_models.choose`; None to look for the
            checkpoint's own names.
        **options: options of `ServerReasoner`.

    Returns:
        The reasoner, and the checkpoint with its name on the server. The checkpoint keeps its commit only if this name,
        or the path from which the server loaded the model, has the commit. With a `served_model` that is another model,
        the checkpoint has the name of that model.

    Raises:
        CheckpointError: a file of the checkpoint cannot be read.
        NotServedError, ReasonerError: as `ServerReasoner`.
        ValueError: an argument cannot be used.
    """
    pinned = dataclasses.replace(checkpoint, chosen_segmenter=None).pinned
    folder = str(checkpoint.reasoner.resolve())  # in huggingface_hub's cache, the path has the commit
    _own_limit(checkpoint)  # a broken file is told before the server is asked
    names = (served_model,) if served_model else (pinned, checkpoint.name, folder)
    reasoner = ServerReasoner(server, names, THINKING_TOKENS, **options)
    _limit_answers(reasoner, checkpoint, max_new_tokens)
    if served_model and not means(reasoner.choice.model, (pinned, checkpoint.name, folder)):
        # Another model answers: the checkpoint lends it dialect and segmenter, not its name.
        return reasoner, dataclasses.replace(checkpoint, name=reasoner.label, commit=None, served=reasoner.label)
    commit = checkpoint.commit if reasoner.known_as in (pinned, folder) else None
    return reasoner, dataclasses.replace(checkpoint, commit=commit, served=reasoner.label)


def connect_by_name(
    server: str,
    served_model: str | None,
    segmenter: str | None,
    given: ReasonerOptions,
    hub: HubOptions,
    **options: Any,
) -> tuple[ServerReasoner, Checkpoint]:
    """Find a model that only its server knows, and its segmenter.

    Args:
        server: address of the server's API.
        served_model: name of the model, see `served_models.choose`; None for the only model that takes images.
        segmenter: see `checkpoints.of_served_model`.
        given: the user's options; `dialect` and `max_new_tokens` count.
        hub: token, cache and network, for the segmenter.
        **options: options of `ServerReasoner`.

    Raises:
        CheckpointError: the model's names tell no dialect, or the segmenter cannot be used.
        NotServedError, ReasonerError: as `ServerReasoner`.
        ValueError: an argument cannot be used.
    """
    reasoner = ServerReasoner(server, served_model, THINKING_TOKENS, **options)
    further = [name for name in (reasoner.choice.model.hub_id, reasoner.choice.model.root) if name]
    here = next((name for name in (reasoner.model, *further) if _is_here(name)), None)
    if here:
        checkpoint = checkpoints.pull(
            here, with_reasoner=False, segmenter=segmenter, dialect=given.dialect, options=hub
        )
        _limit_answers(reasoner, checkpoint, given.max_new_tokens or checkpoint.options.max_new_tokens)
        return reasoner, dataclasses.replace(checkpoint, served=reasoner.label)
    checkpoint = checkpoints.of_served_model(reasoner.label, further, segmenter, given.dialect, hub)
    _limit_answers(reasoner, checkpoint, given.max_new_tokens)
    return reasoner, checkpoint


def _is_here(name: str) -> bool:
    """Return whether a server's model is also on this machine.

    It is here if its name is a checkpoint of this package, or the path of a checkpoint's folder on this disk.
    """
    return name in EMBEDDED or (os.path.isabs(name) and (Path(name) / CONFIG_FILE).is_file())


def answer_limit(checkpoint: Checkpoint, dialect: dialects.Dialect, max_new_tokens: int | None, thinks: bool) -> int:
    """Return the token limit of an answer.

    Args:
        checkpoint: checkpoint whose generation_config.json may have a smaller limit.
        dialect: dialect of the checkpoint.
        max_new_tokens: limit that the user or genseg.json chose; it counts alone.
        thinks: whether each answer begins with a thought.

    Raises:
        CheckpointError: generation_config.json cannot be read.
    """
    usual = max(THINKING_TOKENS, dialect.MAX_NEW_TOKENS) if thinks else dialect.MAX_NEW_TOKENS
    return max_new_tokens or min(usual, _own_limit(checkpoint) or usual)


def _own_limit(checkpoint: Checkpoint) -> int | None:
    """Return the token limit in a checkpoint's generation_config.json."""
    import transformers

    file = checkpoint.reasoner / "generation_config.json"
    if not file.is_file():
        return None
    try:
        return transformers.GenerationConfig.from_pretrained(checkpoint.reasoner).max_new_tokens
    except Exception as error:  # a stranger's file
        raise CheckpointError(f"{file} cannot be read: {error}; mend or remove it") from error


def _limit_answers(reasoner: ServerReasoner, checkpoint: Checkpoint, max_new_tokens: int | None) -> None:
    """Set the token limit of a server's answers.

    Only a limit that nobody chose grows with an unfinished thought.
    """
    dialect = dialects.get_dialect(checkpoint.dialect)
    thinks = reasoner.choice.model.thinks or template_opens_thought(checkpoint.reasoner)
    chosen = max_new_tokens or dialect.TUNED or _own_limit(checkpoint)
    limit = answer_limit(checkpoint, dialect, max_new_tokens, thinks)
    reasoner.limit_answers(limit, None if chosen else THINKING_TOKENS, thinks)
