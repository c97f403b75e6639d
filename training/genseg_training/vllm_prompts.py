"""Give a colocated vLLM prompts with one image token for each image.

TRL 1.16 hands it the processor's tokens, in which every image has all of its image tokens already. vLLM takes each of
them for an image of its own, expands the first again, and the policy answers about a broken prompt without any error
(https://github.com/huggingface/trl/issues/6294). A vLLM server is not concerned: since 1.11 TRL sends it features, not
images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from itertools import groupby
from typing import Any


def unexpanded(tokens: Sequence[int], image_token: int, images: int) -> list[int]:
    """Return a prompt in which each run of image tokens is one image token.

    A prompt that is unexpanded already stays as it is.

    Args:
        tokens: tokens of the prompt.
        image_token: id of the token that stands for an image.
        images: number of images of the prompt.

    Raises:
        ValueError: the prompt has another number of runs than of images, because vLLM would answer about other images.
    """
    runs = 0
    prompt: list[int] = []
    for token, run in groupby(tokens):
        runs += token == image_token
        prompt += [token] if token == image_token else run
    if runs != images:
        raise ValueError(
            f"a prompt has {runs} runs of the image token {image_token} for {images} images, so vLLM cannot expand "
            "them; add --use_vllm false"
        )
    return prompt


def correct(vllm: Any, processor: Any) -> None:
    """Make TRL's colocated vLLM get unexpanded prompts.

    Args:
        vllm: TRL's `VLLMGeneration`; its `generate` is replaced, and raises ValueError for a prompt that vLLM expands
            otherwise than the processor.
        processor: processor of the policy; it has `image_token_id`.
    """
    generate, image_token = vllm.generate, processor.image_token_id

    @wraps(generate)
    def corrected(prompts: list[list[int]], images: list[list | None] | None, *args: Any, **kwargs: Any) -> tuple:
        counts = [len(own or ()) for own in images] if images else [0] * len(prompts)
        short = [unexpanded(ids, image_token, count) for ids, count in zip(prompts, counts, strict=True)]
        result = generate(short, images, *args, **kwargs)
        for given, seen in zip(prompts, result[0], strict=True):
            if list(given) != list(seen):
                raise ValueError(
                    f"vLLM made a prompt of {len(seen)} tokens where the policy has {len(given)}, so it would answer "
                    "about another image; add --use_vllm false"
                )
        return result

    vllm.generate = corrected
