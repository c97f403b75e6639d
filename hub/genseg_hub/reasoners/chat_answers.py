"""Answers of chat completions: whole or in pieces, with the thought beside the text or in it."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any

from genseg_hub.reasoners.base import Generation
from genseg_hub.reasoners.server_errors import ServerErrors

_STOP = ("stop", "eos", "eos_token", "end_turn")
_LENGTH = ("length", "max_tokens")


def read_answer(completion: Any, errors: ServerErrors) -> Generation:
    """Return the text that the model generated.

    A server with a parser for reasoning removes the think part from the text, and this function puts it back.

    Args:
        completion: as the openai client returns it; its fields may be of any type.
        errors: of the server.

    Raises:
        ReasonerError: it is no answer, or the server broke the answer off.
    """
    try:
        choice = completion.choices[0]
        message, reason = choice.message, choice.finish_reason
        said = message.content
    except (AttributeError, LookupError, TypeError):
        raise errors.error(f"gave no chat completion, but {errors.quoted(completion)}") from None
    return _generation(said, _thought(message), reason, errors)


async def read_stream(chunks: AsyncIterable[Any], errors: ServerErrors) -> Generation:
    """Return the text that came in pieces; see `read_answer`."""
    said, thought, reason, count = list[str](), list[str](), None, 0
    async for chunk in chunks:
        count += 1
        try:
            choice = next(iter(chunk.choices), None)  # a chunk of usage has no choice
            if choice is None:
                continue
            piece, reason = choice.delta, choice.finish_reason or reason
            content, more = _joined(piece.content), _thought(piece)
        except (AttributeError, TypeError):
            raise errors.error(f"gave no piece of a chat completion, but {errors.quoted(chunk)}") from None
        if not isinstance(content, str | None) or not isinstance(more, str | None):
            raise errors.error(f"gave no text, but {errors.quoted(content or more)}")
        said.append(content or "")
        thought.append(more or "")
    if not count:
        raise errors.error("gave no piece of a chat completion")
    return _generation("".join(said), "".join(thought), reason, errors)


def cut_in_thought(generation: Generation, thinks: bool) -> bool:
    """Return whether generation stopped at the token limit inside the thought, so that there is no answer yet.

    Args:
        generation: as read from the server.
        thinks: whether the model's name says that it thinks; its template may open the thought in the prompt.
    """
    open_thought = "<think>" in generation.text or thinks
    return generation.truncated and open_thought and "</think>" not in generation.text


def _generation(said: Any, thought: Any, reason: Any, errors: ServerErrors) -> Generation:
    said = _joined(said)
    ended = reason.lower() if isinstance(reason, str) else reason
    if ended not in (*_STOP, *_LENGTH, None):
        raise errors.error(f"broke the answer off (finish_reason {errors.quoted(reason)})")
    if not isinstance(said, str | None) or not isinstance(thought, str | None):
        raise errors.error(f"gave no text, but {errors.quoted(said or thought)}")
    truncated, text = ended in _LENGTH, said or ""
    if thought:
        text = f"<think>{thought}" if truncated and not text else f"<think>{thought}</think>{text}"
    return Generation(text, truncated)


def _thought(message: Any) -> Any:
    return getattr(message, "reasoning", None) or getattr(message, "reasoning_content", None)


def _joined(content: Any) -> Any:
    """Return the text of a list of text parts; anything else unchanged."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    strings = [text for text in texts if isinstance(text, str)]
    return "".join(strings) if content and len(strings) == len(content) else content
