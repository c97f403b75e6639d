"""Forecast the memory that a checkpoint needs.

The forecast reads the checkpoint's own configuration and files. A forecast is made before the weights are loaded, and
again before answers in larger batches. It counts the weights, the keys and values of the answers, and the segmenter. It
does not count memory that other programs take afterwards.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genseg_hub import dialects
from genseg_hub.checkpoints import Checkpoint, readable_size
from genseg_hub.checkpoints.catalog import KNOWN, SAM3_IMAGE_GIGABYTES
from genseg_hub.checkpoints.settings import CONFIG_FILE, read_config
from genseg_hub.errors import CheckpointError
from genseg_hub.options import MAX_IMAGE_TOKENS, ReasonerOptions

# Tokens of the instructions, the expression and the chat template.
_PROMPT_TOKENS = 400
# Keys and values are copied once while rows move to other places.
_COPIES = 2
# Weights and one image of 1024 pixels take 3.0 GB with SAM 2 large, whose file has 0.9 GB.
_SEGMENTER_FACTOR = 3.3
# Bytes of a number in a linear layer: bitsandbytes adds its scales to 4 or 8 bits.
_QUANTIZED_BYTES = {"4bit": 0.56, "8bit": 1.05}
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_FOUR_BIT = 0.35  # of 16-bit weights; embeddings and the vision tower's norms stay as they are
_FLOATS = {"F64", "F32", "F16", "BF16"}
_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


@dataclass(frozen=True)
class Forecast:
    """Bytes that a checkpoint needs.

    Attributes:
        weights: weights of the reasoner.
        row: keys and values of one answer, with its image and at its longest.
        batch_size: answers at once.
        segmenter: its weights and one image.
    """

    weights: int
    row: int
    batch_size: int
    segmenter: int

    @property
    def answers(self) -> int:
        """Return the bytes of the keys and values of a batch."""
        return _COPIES * self.row * self.batch_size

    @property
    def total(self) -> int:
        """Return all bytes."""
        return self.weights + self.answers + self.segmenter

    def __str__(self) -> str:
        """Return the total and its parts; SAM 3 by words is all segmenter."""
        if not self.weights and not self.row:
            return readable_size(self.total)
        answers = "an answer" if self.batch_size == 1 else f"{self.batch_size} answers at once"
        return (
            f"{readable_size(self.total)} (weights {readable_size(self.weights)}, {answers} "
            f"{readable_size(self.answers)}, segmenter {readable_size(self.segmenter)})"
        )


def forecast(
    checkpoint: Checkpoint, options: ReasonerOptions, dtype_bytes: int, max_new_tokens: int, batch_size: int
) -> Forecast:
    """Return the memory that a checkpoint needs in this process.

    Args:
        checkpoint: checkpoint with the reasoner's files on this disk, or SAM 3 by words.
        options: as the reasoner is loaded.
        dtype_bytes: bytes of one number of the loaded weights, without quantization; 0 for the stored dtype.
        max_new_tokens: token limit of an answer.
        batch_size: answers at once.

    Raises:
        CheckpointError: the configuration cannot be read.
    """
    segmenter = _segmenter(checkpoint)
    if checkpoint.takes_words:
        return Forecast(weights=0, row=0, batch_size=1, segmenter=segmenter)
    config = read_config(checkpoint.reasoner / CONFIG_FILE, checkpoint.name)
    side = dialects.get_dialect(checkpoint.dialect).TOKEN_SIDE
    shown = math.ceil(options.max_pixels / side**2) if options.max_pixels else MAX_IMAGE_TOKENS
    row = (shown + _PROMPT_TOKENS + max_new_tokens) * token_bytes(config, dtype_bytes or 2)
    return Forecast(
        weights=sum(_weights(file, options, dtype_bytes) for file in checkpoint.reasoner.glob("*.safetensors")),
        row=row,
        batch_size=batch_size,
        segmenter=segmenter,
    )


def token_bytes(config: dict[str, Any], dtype_bytes: int) -> int:
    """Return the bytes of a token's keys and values; 0 for unknown.

    Args:
        config: contents of config.json.
        dtype_bytes: bytes of one number.
    """
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config

    def number(name: str) -> int:
        value = text.get(name)
        return value if isinstance(value, int) and 0 < value < 1_000_000 else 0

    kinds = text.get("layer_types")
    linear = kinds.count("linear_attention") if isinstance(kinds, list) else 0
    attending = max(0, number("num_hidden_layers") - linear)
    queries = number("num_attention_heads")
    heads = number("num_key_value_heads") or queries
    size = number("head_dim") or (number("hidden_size") // queries if queries else 0)
    return 2 * attending * heads * size * dtype_bytes


def check(checkpoint: Checkpoint, needed: Forecast, options: ReasonerOptions, free: int, device: str) -> None:
    """Raise CheckpointError unless a checkpoint fits into memory.

    The message names changes that would make it fit.

    Args:
        checkpoint: checkpoint that is to be loaded.
        needed: its forecast.
        options: as it is to be loaded.
        free: free bytes of the device.
        device: name of the device.
    """
    if needed.total <= free:
        return
    raise CheckpointError(
        f"{checkpoint.name} needs about {needed}, and {device} has {readable_size(free)} free. "
        f"What would fit: {'; '.join(_changes(checkpoint, needed, options, free))}"
    )


def _changes(checkpoint: Checkpoint, needed: Forecast, options: ReasonerOptions, free: int) -> list[str]:
    """Return changes with which a checkpoint would fit; see `check`."""
    released = 'in the App, the operator "Release the model", which frees the model of the last run'
    if checkpoint.takes_words:
        return ["another device (device)", released]
    changes = []
    if needed.batch_size > 1 and replace(needed, batch_size=1).total <= free:
        changes.append(f"a batch size of {fitting_batch(needed, free - needed.weights - needed.segmenter)}")
    fixed = dialects.get_dialect(checkpoint.dialect).IMAGE_SIZE
    if not options.max_pixels and not fixed and needed.total - needed.answers // 2 <= free:
        changes.append("fewer pixels (max_pixels)")
    if not options.quantization and needed.weights * _FOUR_BIT + needed.answers + needed.segmenter <= free:
        changes.append("4-bit weights (quantization 4bit)")
    fitting = [known for known in KNOWN if known.dialect == "qwen3_vl" and known.memory * 1e9 <= free]
    if fitting and needed.weights:
        changes.append(f"the checkpoint {max(fitting, key=lambda known: known.memory).name}")
    if needed.segmenter <= free:
        changes.append("weights that are spread over several devices (device_map auto), or a server")
    else:
        changes.append("a smaller segmenter (segmenter facebook/sam2.1-hiera-tiny)")
    return [*changes, released]


def free_bytes(target: Any) -> int:
    """Return the free bytes of a device.

    Args:
        target: torch.device.
    """
    import psutil
    import torch

    if target.type == "cuda":
        # PyTorch keeps freed memory for itself, and uses it before it asks the driver.
        kept = torch.cuda.memory_reserved(target) - torch.cuda.memory_allocated(target)
        return int(torch.cuda.mem_get_info(target)[0] + kept)
    memory = psutil.virtual_memory()
    return max(0, min(memory.available, container_limit(memory.total) - psutil.Process().memory_info().rss))


def container_limit(total: int) -> int:
    """Return the bytes that a container leaves to this process, or else `total`.

    Args:
        total: bytes of the machine.
    """
    for file in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # there is no limit, or no such file
            total = min(total, int(Path(file).read_text()))
    return total


def fitting_batch(needed: Forecast, free: int) -> int:
    """Return how many answers at once fit into free memory, 0 if not even one.

    Args:
        needed: forecast of the memory; its `row` counts.
        free: bytes beside the weights.
    """
    return free // (_COPIES * needed.row) if needed.row else needed.batch_size


def _segmenter(checkpoint: Checkpoint) -> int:
    """Return the bytes of the segmenter's weights and one image."""
    folder = checkpoint.segmenter
    weights = folder if folder.is_file() else folder / "model.safetensors"  # see `safety.check_segmenter`
    file = folder / CONFIG_FILE
    if file.is_file() and str(read_config(file, checkpoint.name).get("model_type")).startswith("sam3"):
        return _weights(weights, ReasonerOptions(), dtype_bytes=4) + round(SAM3_IMAGE_GIGABYTES * 1e9)
    return round(_SEGMENTER_FACTOR * weights.stat().st_size)


def _weights(file: Path, options: ReasonerOptions, dtype_bytes: int) -> int:
    """Return the bytes of the tensors of a file in memory."""
    from safetensors import SafetensorError, safe_open

    total = 0.0
    try:
        with safe_open(str(file), "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  it is no dict
                stored = tensors.get_slice(name)
                dtype, shape = stored.get_dtype(), stored.get_shape()
                size = float(dtype_bytes or _BYTES.get(dtype, 1)) if dtype in _FLOATS else _BYTES.get(dtype, 1)
                if options.quantization and len(shape) == 2 and not any(p in name for p in ("embed", "lm_head")):
                    size = _QUANTIZED_BYTES[options.quantization]
                total += size * math.prod(shape)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be loaded ({error}); pull it again") from error
    return round(total)
