"""The reasoner: a VLM that answers a chat about an image with text.

It knows chats and images. It does not know what the text means: that is the dialect's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image


@dataclass(frozen=True)
class Answer:
    """Generated text, and whether generation stopped at the token limit."""

    text: str
    truncated: bool


class ReasonerError(RuntimeError):
    """An answer that could not be had; the message says why and what to do."""


class Reasoner(Protocol):
    """Anything that answers a batch of chats, one image each.

    A batch that cannot be answered raises and may be asked again in parts; where each chat fails by itself, its error
    stands in its place.
    """

    def answer(
        self, images: Sequence[Image.Image], chats: Sequence[list[dict]]
    ) -> Sequence[Answer | ReasonerError]: ...


class TransformersReasoner:
    """A Qwen3-VL (or any other `AutoModelForImageTextToText`) in this process, greedy decoding.

    Args:
        model: the model, on its device, in its dtype.
        processor: its processor.
        max_new_tokens: token limit of an answer.
    """

    def __init__(self, model, processor, max_new_tokens: int):
        self.model = model.eval()
        self.processor = processor
        self.max_new_tokens = max_new_tokens
        processor.tokenizer.padding_side = "left"

    @torch.no_grad()  # not inference_mode: with FSDP the weights that are gathered here are those that train
    def answer(self, images: Sequence[Image.Image], chats: Sequence[list[dict]]) -> list[Answer]:
        """Answer a batch.

        Args:
            images: RGB images, one per chat.
            chats: messages with one {"type": "image"} each.
        """
        texts = [self.processor.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
        inputs = self.processor(text=texts, images=list(images), padding=True, return_tensors="pt").to(
            self.model.device
        )
        # The generation settings of a checkpoint may sample; segmentation is reproducible.
        tokens = self.model.generate(
            **inputs, max_new_tokens=self.max_new_tokens, do_sample=False, temperature=None, top_p=None, top_k=None
        )[:, inputs["input_ids"].shape[1] :]
        ends = self.model.generation_config.eos_token_id
        ends = torch.tensor(ends if isinstance(ends, list) else [ends], device=tokens.device)
        finished = torch.isin(tokens, ends).any(1).tolist()
        decoded = self.processor.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [Answer(text, truncated=not done) for text, done in zip(decoded, finished, strict=True)]
