"""Errors of a server with OpenAI's API, in words that say what to do.

A server's text is a stranger's: messages contain only its beginning, without control characters and without the key.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any

from genseg_hub.errors import ReasonerError
from genseg_hub.extras import install_command

_QUOTED_CHARACTERS = 300  # of a server's message, because some servers repeat the request with its image


def printable(words: Any) -> str:
    """Return a stranger's words in one line, without control characters."""
    return " ".join("".join(character if character.isprintable() else " " for character in str(words)).split())


def import_openai() -> Any:
    """Return the package openai.

    Raises:
        ReasonerError: it is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise ReasonerError(f"a server needs the package openai on this side: {install_command('serve')}") from error
    return openai


@dataclass(frozen=True)
class ServerErrors:
    """Explain the errors of one server.

    Attributes:
        address: address of the server's API.
        timeout: seconds that one attempt waits for its answer.
        max_retries: attempts after the first.
        key: key of the server, "" for none; no message contains it.
    """

    address: str
    timeout: float
    max_retries: int
    key: str = field(default="", repr=False)

    def error(self, predicate: str, kind: type[ReasonerError] = ReasonerError) -> ReasonerError:
        """Return an error about the server: "the server http://host/v1 gave no answer"."""
        return kind(f"the server {self.address} {self._without_key(predicate)}")

    def quoted(self, words: Any) -> str:
        """Return the beginning of a server's words, printable and without the key."""
        return printable(self._without_key(str(words)))[:_QUOTED_CHARACTERS]

    def explained(self, error: Exception) -> ReasonerError:
        """Return an error of the client, of any type, in words that say what to do."""
        import openai

        if isinstance(error, ReasonerError):
            return error
        attempts = f"asked {self.max_retries + 1} times" if self.max_retries else "asked once"
        if isinstance(error, openai.APITimeoutError | asyncio.TimeoutError):
            text = (
                f"gave no answer within {self.timeout:g} seconds, {attempts}; allow more time or fewer requests at once"
            )
        elif isinstance(error, openai.APIConnectionError):
            cause = self.quoted(error.__cause__ or error)
            text = f"cannot be reached ({cause}), {attempts}; start it, or wait until it has loaded the model"
            if "CERTIFICATE_VERIFY_FAILED" in cause:
                text = f"cannot be reached ({cause}); set SSL_CERT_FILE to a file with the certificate of who signed it"
        elif isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            text = "refuses the key; set OPENAI_API_KEY to the server's key"
        elif isinstance(error, openai.APIStatusError):
            body: Any = error.body
            if isinstance(body, dict):
                body = body.get("message") or body.get("detail") or body
            text = f"answered {error.status_code}: {self.quoted(body or error.message)}"
            if error.status_code == 404:
                text += "; the address usually ends in /v1, and the model must take images"
            elif error.status_code == 413 or re.search("length|too long|max_model_len|context size", text):
                text += "; start it with a longer context, or show a smaller image (max_pixels)"
            elif error.status_code == 429 or error.status_code >= 500:
                text += f" ({attempts})"
        elif isinstance(error, AttributeError):  # the client cannot build its answer from a page of HTML, or a list
            text = "does not answer as an OpenAI API does; the address usually ends in /v1"
        else:
            text = f"gave no answer ({type(error).__name__}: {self.quoted(error)})"
        return self.error(text)

    def _without_key(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text
