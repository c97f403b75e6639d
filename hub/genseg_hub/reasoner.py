"""The reasoner: a VLM that answers chats about images with text.

It knows chats and images. It does not know what the text means: that is the dialect's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from PIL import Image


@dataclass(frozen=True, eq=False)
class Question:
    """A chat about an image.

    Attributes:
        image: RGB.
        chat: messages with one {"type": "image"}.
        image_key: equal, among neighbours, for one and the same image.
    """

    image: Image.Image
    chat: list[dict]
    image_key: object = field(default_factory=object)


@dataclass(frozen=True)
class Answer:
    """Generated text, and whether generation stopped at the token limit."""

    text: str
    truncated: bool


class ReasonerError(RuntimeError):
    """An answer that could not be had; the message says why and what to do."""


class Session(Protocol):
    """Questions that a reasoner works on at once, each alone: what is wrong with one is its answer."""

    def room(self) -> int:
        """How many questions to ask now; it may let some end first."""
        ...

    def ask(self, questions: Sequence[Question]) -> None:
        """Take questions, at most `room()`."""
        ...

    def advance(self) -> list[tuple[Question, Answer | Exception]]:
        """Work on what is open for a while. The answers that are complete, in any order; there may be none yet."""
        ...


class Reasoner(Protocol):
    """Anything that answers questions, several at once."""

    @property
    def takes_cores(self) -> bool:
        """Whether it computes on the CPU, in steps so short that the cores can be divided anew at each."""
        ...

    def session(self, batch_size: int) -> Session:
        """Begin, with at most that many questions open at once."""
        ...


def ask(reasoner: Reasoner, questions: Sequence[Question], batch_size: int = 8) -> list[Answer | Exception]:
    """The answer to each question, or what is wrong with it."""
    session, answers, asked = reasoner.session(batch_size), dict[Question, Answer | Exception](), 0
    while len(answers) < len(questions):
        new = questions[asked : asked + session.room()]
        if new:
            session.ask(new)
            asked += len(new)
        answers.update(session.advance())
    return [answers[question] for question in questions]


class TransformersReasoner:
    """Any `AutoModelForImageTextToText` in this process, by its own `generate`, greedy, batch after batch.

    `continuous.ContinuousReasoner` gives the same answers faster; this one also serves weights that are divided among
    processes, which must all take the same number of steps.

    Args:
        model: the model, on its device, in its dtype.
        processor: its processor.
        max_new_tokens: token limit of an answer.
    """

    takes_cores = False  # a step is a whole batch

    def __init__(self, model, processor, max_new_tokens: int):
        self.model = model.eval()
        self.processor = processor
        self.max_new_tokens = max_new_tokens
        processor.tokenizer.padding_side = "left"

    def session(self, batch_size: int) -> _Batches:
        """See `Reasoner`."""
        return _Batches(self, batch_size)

    @torch.no_grad()  # not inference_mode: with FSDP the weights that are gathered here are those that train
    def generate(self, batch: Sequence[Question]) -> list[Answer]:
        """Answer one batch at once."""
        texts = [
            self.processor.apply_chat_template(question.chat, tokenize=False, add_generation_prompt=True)
            for question in batch
        ]
        inputs = self.processor(
            text=texts, images=[question.image for question in batch], padding=True, return_tensors="pt"
        ).to(self.model.device)
        # The generation settings of a checkpoint may sample; segmentation is reproducible.
        tokens = self.model.generate(
            **inputs, max_new_tokens=self.max_new_tokens, do_sample=False, temperature=None, top_p=None, top_k=None
        )[:, inputs["input_ids"].shape[1] :]
        ends = torch.tensor(end_tokens(self.model), device=tokens.device)
        finished = torch.isin(tokens, ends).any(1).tolist()
        decoded = self.processor.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [Answer(text, truncated=not done) for text, done in zip(decoded, finished, strict=True)]


class _Batches:
    """A session of batches; one that fails is halved until the culprit is alone."""

    def __init__(self, reasoner: TransformersReasoner, batch_size: int):
        self._reasoner, self._batch_size = reasoner, batch_size
        self._open: list[Question] = []

    def room(self) -> int:
        return self._batch_size - len(self._open)

    def ask(self, questions: Sequence[Question]) -> None:
        self._open += questions

    def advance(self) -> list[tuple[Question, Answer | Exception]]:
        batch, self._open = self._open, []
        return self._answer(batch)

    def _answer(self, batch: Sequence[Question]) -> list[tuple[Question, Answer | Exception]]:
        try:
            return list(zip(batch, self._reasoner.generate(batch), strict=True))
        except Exception as error:  # noqa: BLE001  it is the answer
            error.__traceback__ = None  # it would keep the failed batch's tensors alive
            if len(batch) == 1:
                return [(batch[0], error)]
        middle = len(batch) // 2
        return self._answer(batch[:middle]) + self._answer(batch[middle:])


def end_tokens(model) -> list[int]:
    """The tokens with which the model ends an answer."""
    ends = model.generation_config.eos_token_id
    return ends if isinstance(ends, list) else [ends]
