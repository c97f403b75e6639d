"""Resize pictures for training, by inference's rule and the recipe's limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
from genseg_hub.dialects import genseg
from genseg_hub.errors import ImageError
from genseg_hub.images import load_image, shown_size
from genseg_hub.options import MAX_IMAGE_TOKENS, ReasonerOptions
from genseg_hub.referring_dataset import IGNORE
from PIL import Image

from genseg_training import mixing

_SIDE = genseg.TOKEN_SIDE
_LEAST_TOKENS = 4


def largest(options: ReasonerOptions) -> int:
    """Return the most pixels of an image as the policy sees it."""
    return options.max_pixels or max(options.min_pixels or 0, MAX_IMAGE_TOKENS * _SIDE**2)


def size_shown(size: tuple[int, int], options: ReasonerOptions) -> tuple[int, int]:
    """Return the (width, height) to which inference resizes an image.

    The processor gets the resized image.

    Args:
        size: (width, height) in pixels.
        options: `min_pixels` and `max_pixels`.
    """
    least, most = options.min_pixels or 0, largest(options)
    if least <= size[0] * size[1] <= most:
        return size
    return shown_size(size, _SIDE, least or min(_LEAST_TOKENS * _SIDE**2, most), most)


def shown(image: Image.Image, options: ReasonerOptions) -> Image.Image:
    """Return an image as inference shows it to the policy."""
    size = size_shown(image.size, options)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def trainable(rows: datasets.Dataset, options: ReasonerOptions) -> datasets.Dataset:
    """Return the rows that TRL and the rewards read.

    Prompts and pictures are made when a row is read. A row has `prompt`: chat messages, in which TRL puts the image
    before the request. `image` is as the policy sees it, and `original` as `load_image` returns it, for the segmenter.
    `image_size` is (width, height) of the original, and `boxes` are xyxy pixels of it. `masks` and `ignore` are COCO
    RLE. Only equal images share an `image_id`.

    Args:
        rows: rows that `rows.prepared` made.
        options: `min_pixels` and `max_pixels` of an image as the policy sees it.
    """

    def read(batch: dict[str, list]) -> dict[str, list]:
        originals = [opened(stored) for stored in batch["image"]]
        return {
            "prompt": [_prompt(tuple(s), e) for s, e in zip(batch["image_size"], batch["expression"], strict=True)],
            "image": [shown(image, options) for image in originals],
            "original": originals,
            "image_id": batch["image_key"],
            **{name: batch[name] for name in ("image_size", "boxes", "masks", IGNORE)},
        }

    return rows.with_transform(read)


def _prompt(size: tuple[int, int], expression: str) -> list[dict[str, str]]:
    return [
        {"role": message["role"], "content": "".join(part.get("text", "") for part in message["content"])}
        for message in genseg.messages(size, expression)
    ]


def opened(stored: dict[str, Any]) -> Image.Image:
    """Return a stored image, {"path": ..., "bytes": ...}.

    Raises:
        ImageError: the image cannot be used.
    """
    try:
        return load_image(stored["path"] if stored["bytes"] is None else stored["bytes"])
    except ImageError as error:
        raise ImageError(f"{error}; mend the image, then run the same again") from error


def check_room(rows: datasets.Dataset, processor: Any, options: ReasonerOptions, room: int, limit: str) -> None:
    """Raise ValueError if prompts with their images have too many tokens.

    Args:
        rows: rows that `rows.prepared` made.
        processor: processor of the checkpoint, a Qwen-VL processor.
        options: as `trainable` takes them.
        room: tokens of a prompt at most.
        limit: the setting that leaves so much room, for the message.
    """
    sizes = mixing.column(rows, "image_size").combine_chunks().flatten().to_numpy().reshape(-1, 2)
    kinds, kind_of = np.unique(sizes, axis=0, return_inverse=True)
    of_image = np.array([image_tokens(processor, tuple(size), options) for size in kinds.tolist()])[kind_of.ravel()]
    expressions = mixing.column(rows, "expression")
    frame = _text_tokens(processor, [""])[0]
    # A token has at least one byte, so that few expressions need the tokenizer.
    lengths = np.array([len(text.encode()) for text in expressions.to_pylist()])
    doubtful = np.flatnonzero(of_image + frame + lengths > room)
    if not len(doubtful):
        return
    needed = of_image[doubtful] + _text_tokens(processor, expressions.take(doubtful).to_pylist())
    too_long = needed[needed > room]
    if len(too_long):
        raise ValueError(
            f"{len(too_long):,} of {len(rows):,} expressions need up to {too_long.max():,} tokens with their image, "
            f"and there is room for {room:,} ({limit}): show images smaller with --max_pixels, "
            f"now {largest(options):,}, allow more tokens, or shorten the answers with --max_completion_length"
        )


def image_tokens(processor: Any, size: tuple[int, int], options: ReasonerOptions) -> int:
    """Return the number of tokens of an image.

    Args:
        processor: a Qwen-VL processor.
        size: (width, height) in pixels.
        options: as `trainable` takes them.

    Raises:
        ValueError: the processor divides images in another way.
    """
    settings = processor.image_processor
    if not hasattr(settings, "merge_size"):
        raise ValueError(
            f"a checkpoint with the image processor {type(settings).__name__} cannot be trained; take a Qwen-VL or "
            "GLM-V checkpoint"
        )
    side = settings.patch_size * settings.merge_size
    limits = settings.size
    width, height = shown_size(size_shown(size, options), side, limits["shortest_edge"], limits["longest_edge"])
    return width * height // side**2


def _text_tokens(processor: Any, expressions: Sequence[str]) -> np.ndarray:
    """Return the number of tokens of each prompt without its image: int[expressions]."""
    texts = [
        processor.apply_chat_template(
            genseg.messages((1, 1), expression or "-"), tokenize=False, add_generation_prompt=True
        )
        for expression in expressions
    ]
    # The placeholder of the image is one token, in place of which the image's tokens stand.
    return np.array([len(ids) - 1 for ids in processor.tokenizer(texts)["input_ids"]])
