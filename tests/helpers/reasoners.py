"""Ask a reasoner several prompts, as a stream does."""

from __future__ import annotations

from collections.abc import Sequence

from genseg_hub.reasoners.base import Generation, Prompt, Reasoner


def ask(reasoner: Reasoner, prompts: Sequence[Prompt], batch_size: int = 8) -> list[Generation | Exception]:
    """Return the answer to each prompt, or its error."""
    session, answers, asked = reasoner.session(batch_size), dict[Prompt, Generation | Exception](), 0
    while len(answers) < len(prompts):
        new = prompts[asked : asked + session.room()]
        if new:
            session.ask(new)
            asked += len(new)
        answers.update(session.advance())
    return [answers[prompt] for prompt in prompts]
