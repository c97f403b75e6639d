"""Read answers of chat completions, whole or in pieces.

A server gives the thought beside the text or in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from typing import Any

from genseg_hub.errors import ReasonerError
from genseg_hub.reasoners.base import Generation
from genseg_hub.reasoners.server_errors import ServerErrors

_STOP = ("stop", "eos", "eos_token", "end_turn")
_LENGTH = ("length", "max_tokens")


def read_answer(completion: Any, errors: ServerErrors) -> Generation:
    """Return the text that the model generated.

    A server with a parser for reasoning removes the think part from the text, and this function puts it back.

    Args:
        completion: as the openai client returns it; its fields may be of any type.
        errors: errors of the server.

    Raises:
        ReasonerError: it is no answer, or the server broke the answer off.
    """
    try:
        choice = completion.choices[0]
        message, reason = choice.message, choice.finish_reason
        said = message.content
    except (AttributeError, LookupError, TypeError):
        raise errors.error(f"gave no chat completion, but {errors.quoted(completion)}") from None
    return _generation(said, _thought(message), reason, errors, _tokens(completion))


class NoPieceError(ReasonerError):
    """The server was asked for pieces of an answer and sent none."""


async def read_stream(
    chunks: AsyncIterable[Any],
    errors: ServerErrors,
    watch: Callable[[str], None] | None = None,
    framed: bool = True,
) -> Generation:
    """Return the text that came in pieces; see `read_answer`.

    Args:
        chunks: as the openai client yields them.
        errors: errors of the server.
        watch: takes the text so far after each piece.
        framed: whether HTTP says where the body ends. Without that, a server that dies looks like one that has
            finished, so an answer without a finish_reason is then a cut one.

    Raises:
        NoPieceError: there was no piece.
        ReasonerError: as `read_answer`.
    """
    said, thought, reason, count, tokens = list[str](), list[str](), None, 0, None
    async for chunk in chunks:
        count += 1
        tokens = _tokens(chunk) or tokens
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
        if watch and (content or more):
            watch(_with_thought("".join(said), "".join(thought), finished=any(said)))
    if not count:
        raise errors.error("gave no piece of a chat completion", NoPieceError)
    ended = reason if reason or framed else _LENGTH[0]
    return _generation("".join(said), "".join(thought), ended, errors, tokens)


def cut_in_thought(generation: Generation, thinks: bool) -> bool:
    """Return whether the token limit cut an answer inside its thought.

    Args:
        generation: as read from the server.
        thinks: whether the model's name says that it thinks; its template may open the thought in the prompt.
    """
    open_thought = "<think>" in generation.text or thinks
    return generation.truncated and open_thought and "</think>" not in generation.text


def _generation(said: Any, thought: Any, reason: Any, errors: ServerErrors, tokens: int | None) -> Generation:
    said = _joined(said)
    ended = reason.lower() if isinstance(reason, str) else reason
    if ended not in (*_STOP, *_LENGTH, None):
        raise errors.error(f"broke the answer off (finish_reason {errors.quoted(reason)})")
    if not isinstance(said, str | None) or not isinstance(thought, str | None):
        raise errors.error(f"gave no text, but {errors.quoted(said or thought)}")
    truncated, text = ended in _LENGTH, said or ""
    whole = _with_thought(text, thought or "", finished=bool(text) or not truncated)
    return Generation(whole, truncated, tokens=tokens)


def _tokens(completion: Any) -> int | None:
    """Return the number of generated tokens, with the thought's; None if unknown."""
    count = getattr(getattr(completion, "usage", None), "completion_tokens", None)
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


def _with_thought(text: str, thought: str, finished: bool) -> str:
    """Return a text with the thought before it.

    A server without a parser for reasoning gives both in this form.
    """
    if not thought:
        return text
    return f"<think>{thought}</think>{text}" if finished else f"<think>{thought}"


def _thought(message: Any) -> Any:
    return getattr(message, "reasoning", None) or getattr(message, "reasoning_content", None)


def _joined(content: Any) -> Any:
    """Return the text of a list of text parts; anything else unchanged."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    strings = [text for text in texts if isinstance(text, str)]
    return "".join(strings) if content and len(strings) == len(content) else content
