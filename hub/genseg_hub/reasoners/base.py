"""Interface of reasoners: VLMs that answer chats about images with text.

A reasoner knows chats and images. Only the dialect knows the meaning of the text.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from PIL import Image

THOUGHT = "<think>"  # begins the text of an answer whose prompt ended inside an open thought


@dataclass(frozen=True, eq=False)
class Prompt:
    """A chat about an image.

    Attributes:
        image: RGB.
        chat: messages with one {"type": "image"}.
        image_key: prompts with equal keys have the same image, also in later sessions.
    """

    image: Image.Image
    chat: list[dict]
    image_key: object = field(default_factory=object)


@dataclass(frozen=True)
class Generation:
    """Generated text.

    Attributes:
        text: the answer. It begins with `<think>` if the prompt ended inside an open thought.
        truncated: whether generation stopped at the token limit.
        shown_size: (width, height) in pixels of the image as the model saw it, after the processor's resize; None if
            the reasoner does not know.
        tokens: number of generated tokens, with the tokens of a thought; None if a server does not tell. Two answers
            that differ only in it are equal.
    """

    text: str
    truncated: bool
    shown_size: tuple[int, int] | None = None
    tokens: int | None = field(default=None, compare=False)


class Session(Protocol):
    """Prompts that a reasoner answers at once.

    An error of one prompt becomes its answer.
    """

    def room(self) -> int:
        """Return how many prompts to ask now; 0 while the session first finishes some."""
        ...

    def ask(self, prompts: Sequence[Prompt]) -> None:
        """Take at most `room()` prompts."""
        ...

    def advance(self) -> list[tuple[Prompt, Generation | Exception]]:
        """Work on the open prompts for a while; return the complete answers, if any.

        The answers come in any order.
        """
        ...


@runtime_checkable
class Sampling(Protocol):
    """A reasoner whose answers can be sampled.

    Attributes:
        temperature: 0 for greedy answers, the default. Above 0, tokens are sampled from the whole distribution at this
            temperature; a server may cut the distribution by its own top_p and top_k.
    """

    temperature: float


@runtime_checkable
class InProcess(Protocol):
    """A reasoner whose weights are in this process.

    Attributes:
        model: a model of Transformers.
        processor: processor of the model.
    """

    model: Any
    processor: Any


class Reasoner(Protocol):
    """A model that answers several prompts at once."""

    @property
    def takes_cores(self) -> bool:
        """Return whether the session computes on the CPU in short steps.

        Then the cores can be divided anew at each step.
        """
        ...

    def session(self, batch_size: int) -> Session:
        """Begin a session with at most `batch_size` open prompts."""
        ...

    def stream(self, prompt: Prompt) -> Generator[str | Generation, None, None]:
        """Answer one prompt: yield the text so far, and at last the whole answer.

        Closing the iterator stops the generation.

        Raises:
            Exception: the error that a session would give as the answer.
        """
        ...

    def release(self) -> None:
        """Free the memory that is kept for later questions about the same images."""
        ...
