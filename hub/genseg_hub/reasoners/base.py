"""The reasoner: a VLM that answers chats about images with text.

It knows chats and images. It does not know what the text means: that is the dialect's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image


@dataclass(frozen=True, eq=False)
class Prompt:
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
class Generation:
    """Generated text, and whether generation stopped at the token limit."""

    text: str
    truncated: bool


class Session(Protocol):
    """Questions that a reasoner works on at once, each alone: what is wrong with one is its answer."""

    def room(self) -> int:
        """How many prompts to ask now; it may let some end first."""
        ...

    def ask(self, prompts: Sequence[Prompt]) -> None:
        """Take prompts, at most `room()`."""
        ...

    def advance(self) -> list[tuple[Prompt, Generation | Exception]]:
        """Work on what is open for a while. The answers that are complete, in any order; there may be none yet."""
        ...


class Reasoner(Protocol):
    """Anything that answers prompts, several at once."""

    @property
    def takes_cores(self) -> bool:
        """Whether it computes on the CPU, in steps so short that the cores can be divided anew at each."""
        ...

    def session(self, batch_size: int) -> Session:
        """Begin, with at most that many prompts open at once."""
        ...


def ask(reasoner: Reasoner, prompts: Sequence[Prompt], batch_size: int = 8) -> list[Generation | Exception]:
    """The answer to each prompt, or what is wrong with it."""
    session, answers, asked = reasoner.session(batch_size), dict[Prompt, Generation | Exception](), 0
    while len(answers) < len(prompts):
        new = prompts[asked : asked + session.room()]
        if new:
            session.ask(new)
            asked += len(new)
        answers.update(session.advance())
    return [answers[prompt] for prompt in prompts]
