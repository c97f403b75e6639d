"""A reasoner on any server with OpenAI's chat completions (vLLM, SGLang, `transformers serve`).

This module knows requests and images. The dialect knows the meaning of the text, and `serving` how to start an engine.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import tempfile
import threading
import uuid
import weakref
from collections.abc import Coroutine, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from PIL import Image

from genseg_hub.errors import NotServedError, ReasonerError
from genseg_hub.images import to_png
from genseg_hub.reasoners.base import Generation, Prompt
from genseg_hub.reasoners.serving import checked_address

_CONNECT_SECONDS = 10.0
_QUOTED_CHARACTERS = 300  # of a server's message, because some servers repeat the request with its image
_T = TypeVar("_T")


class ServerReasoner:
    """A VLM behind an OpenAI-compatible server, greedy decoding.

    Requests that fail temporarily (no connection, timeout, 408, 409, 429, 5xx) are repeated with growing pauses, or
    after the pause that the server names. After the last attempt only the request's own prompt fails.

    Args:
        base_url: address of the API, for example "http://localhost:8000/v1".
        model: name of the model on the server; of several names the first that the server has.
        max_new_tokens: token limit of an answer.
        api_key: key of the server; None for OPENAI_API_KEY, if set. It is neither stored nor logged.
        concurrency: requests that are open at once.
        timeout: seconds that one attempt waits for its answer.
        max_retries: attempts after the first.
        media_folder: a folder that the server sees under the same path and may read (vLLM:
            `--allowed-local-media-path`). Images are passed there as PNG files, which are removed after the answer.
            Without a folder, each request contains its image as PNG.

    Attributes:
        model: name of the model on the server; `label` is the same name for people.
        known_as: the given name under which the model was found.

    Raises:
        NotServedError: the server has none of these models.
        ReasonerError: there is no server, or it refuses the key.
        ValueError: an argument cannot be used.
    """

    takes_cores = False

    def __init__(
        self,
        base_url: str,
        model: str | Sequence[str],
        max_new_tokens: int,
        *,
        api_key: str | None = None,
        concurrency: int = 32,
        timeout: float = 600.0,
        max_retries: int = 4,
        media_folder: str | Path | None = None,
    ):
        try:
            import openai
        except ImportError as error:
            raise ReasonerError(
                'a server needs the package openai on this side: pip install "fiftyone-genseg[serve]"'
            ) from error
        self.base_url = checked_address(base_url)
        if concurrency < 1 or timeout <= 0 or max_retries < 0:
            raise ValueError(
                "concurrency must be at least 1, timeout above 0 and max_retries at least 0, "
                f"got {concurrency}, {timeout} and {max_retries}"
            )
        self.media_folder = Path(media_folder).resolve() if media_folder is not None else None
        if self.media_folder and not self.media_folder.is_dir():
            raise ValueError(f"there is no folder {self.media_folder}; make it, and let the server read it")
        self.max_new_tokens, self.timeout, self.max_retries = max_new_tokens, timeout, max_retries
        self._key = api_key or os.environ.get("OPENAI_API_KEY") or ""
        self._client = openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",  # the client requires a key
            timeout=openai.Timeout(timeout, connect=_CONNECT_SECONDS),
            max_retries=max_retries,
        )
        self.concurrency = concurrency
        # Its own loop, because notebooks run one already, and because requests must be cancelled at once.
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="server-reasoner", daemon=True).start()
        weakref.finalize(self, _close, self._client, self._loop)
        self.model, self.known_as = self._wait(self._named([model] if isinstance(model, str) else list(model)))
        self.label = self._quoted(self.model)

    def session(self, batch_size: int) -> _Requests:
        """See `base.Reasoner`; up to `concurrency` prompts are open, whatever the batch size."""
        return _Requests(self)

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run a coroutine on the loop of the requests."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _named(self, names: list[str]) -> tuple[str, str]:
        """Return the first model with one of the names, and that name.

        A model also has the name of the path or id from which the server loaded it.
        """
        try:
            page = await self._client.models.list()
        except Exception as error:  # servers and networks cause errors of any type
            raise self._explained(error) from error
        try:
            served = {str(model.id): str(getattr(model, "root", None) or model.id) for model in page.data}
        except (AttributeError, TypeError):
            text = "does not list its models as OpenAI's API does; the address usually ends in /v1"
            raise self._error(text) from None
        for name in names:
            if name in served:
                return name, name
        for model, root in served.items():
            if root in names:
                return model, root
        known = self._quoted(", ".join(sorted(served)) or "nothing")
        text = f"does not serve {names[0]}, but {known}; start it with `genseg serve {names[0]}`"
        raise self._error(text, NotServedError)

    async def request(self, url: Future[str], chat: list[dict]) -> Generation | ReasonerError:
        """Return the answer to one chat about the image behind a URL, or the error."""
        try:
            shown = {"type": "image_url", "image_url": {"url": await asyncio.wrap_future(url)}}
            messages: Any = [
                {**message, "content": [shown if part["type"] == "image" else part for part in message["content"]]}
                for message in chat
            ]
            completion = await self._client.chat.completions.create(
                model=self.model, messages=messages, temperature=0, max_tokens=self.max_new_tokens
            )
            return self._read(completion)
        except Exception as error:  # noqa: BLE001  recorded on the example
            return self._explained(error)

    def _read(self, completion: Any) -> Generation:
        """Return the text that the model generated.

        A server with a parser for reasoning removes the think part from the text, and this function puts it back.
        """
        try:
            choice = completion.choices[0]
            said, reason, message = choice.message.content, choice.finish_reason, choice.message
        except (AttributeError, LookupError, TypeError):
            raise self._error(f"gave no chat completion, but {self._quoted(completion)}") from None
        thought = getattr(message, "reasoning", None) or getattr(message, "reasoning_content", None)
        if reason not in ("stop", "length", None):
            raise self._error(f"broke the answer off (finish_reason {self._quoted(reason)})")
        if not isinstance(said, str | None) or not isinstance(thought, str | None):
            raise self._error(f"gave no text, but {self._quoted(said or thought)}")
        truncated, text = reason == "length", said or ""
        if thought:
            text = f"<think>{thought}" if truncated and not text else f"<think>{thought}</think>{text}"
        return Generation(text, truncated)

    def _explained(self, error: Exception) -> ReasonerError:
        import openai

        if isinstance(error, ReasonerError):
            return error
        attempts = f"asked {self.max_retries + 1} times" if self.max_retries else "asked once"
        if isinstance(error, openai.APITimeoutError):
            text = (
                f"gave no answer within {self.timeout:g} seconds, {attempts}; allow more time or fewer requests at once"
            )
        elif isinstance(error, openai.APIConnectionError):
            cause = self._quoted(error.__cause__ or error)
            text = f"cannot be reached ({cause}), {attempts}; is it running, and done with loading?"
        elif isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            text = "refuses the key; set OPENAI_API_KEY to the one that the server was started with"
        elif isinstance(error, openai.APIStatusError):
            body: Any = error.body
            if isinstance(body, dict):
                body = body.get("message") or body.get("detail") or body
            text = f"answered {error.status_code}: {self._quoted(body or error.message)}"
            if error.status_code == 404:
                text += "; the address usually ends in /v1"
            elif error.status_code == 413 or re.search("length|too long|max_model_len", text):
                text += "; start it with a longer context (genseg serve --max-model-len), or show a smaller image"
            elif error.status_code == 429 or error.status_code >= 500:
                text += f" ({attempts})"
        else:
            text = f"gave no answer ({type(error).__name__}: {self._quoted(error)})"
        return self._error(text)

    def _error(self, text: str, kind: type[ReasonerError] = ReasonerError) -> ReasonerError:
        return kind(f"the server {self.base_url} {text}")

    def _quoted(self, words: Any) -> str:
        """Return the beginning of a server's message, without control characters and without the key."""
        text = "".join(character if character.isprintable() else " " for character in str(words))
        text = text.replace(self._key, "***") if self._key else text
        return " ".join(text.split())[:_QUOTED_CHARACTERS]


class _Requests:
    """A session: each prompt is one request, and neighbours share one encoded image."""

    def __init__(self, reasoner: ServerReasoner):
        self._reasoner = reasoner
        self._open: dict[Future[Generation | ReasonerError], Prompt] = {}
        self._images: dict[object, tuple[Future[str], set[Prompt]]] = {}  # key -> URL, open prompts about the image
        self._folder = None
        if reasoner.media_folder:
            self._folder = tempfile.TemporaryDirectory(dir=reasoner.media_folder, ignore_cleanup_errors=True)
            os.chmod(self._folder.name, 0o755)  # the server may run as another user
            weakref.finalize(self, self._folder.cleanup)
        weakref.finalize(self, _give_up, self._open)

    def room(self) -> int:
        return self._reasoner.concurrency - len(self._open)

    def ask(self, prompts: Sequence[Prompt]) -> None:
        for prompt in prompts:
            if prompt.image_key not in self._images:
                folder = Path(self._folder.name) if self._folder else None
                encoding = self._reasoner.submit(asyncio.to_thread(_url, prompt.image, folder))
                self._images[prompt.image_key] = encoding, set()
            url, about = self._images[prompt.image_key]
            about.add(prompt)
            self._open[self._reasoner.submit(self._reasoner.request(url, prompt.chat))] = prompt

    def advance(self) -> list[tuple[Prompt, Generation | Exception]]:
        try:
            done, _ = wait(self._open, return_when=FIRST_COMPLETED)
        except BaseException:
            _give_up(self._open)
            raise
        answers: list[tuple[Prompt, Generation | Exception]] = []
        for future in done:
            prompt = self._open.pop(future)
            url, about = self._images[prompt.image_key]
            about.remove(prompt)
            if not about:
                del self._images[prompt.image_key]
                if self._folder and not url.exception():
                    Path(url2pathname(urlsplit(url.result()).path)).unlink(missing_ok=True)
            answers.append((prompt, future.result()))
        return answers


def _give_up(requests: dict[Future[Generation | ReasonerError], Prompt]) -> None:
    for request in requests:
        request.cancel()


def _url(image: Image.Image, folder: Path | None) -> str:
    """Return the URL of an image: its data, or a new file in a folder."""
    content = to_png(image)
    if folder is None:
        return f"data:image/png;base64,{base64.b64encode(content).decode()}"
    file = folder / f"{uuid.uuid4().hex}.png"
    file.write_bytes(content)
    return file.as_uri()


def _close(client: Any, loop: asyncio.AbstractEventLoop) -> None:
    closed = asyncio.run_coroutine_threadsafe(client.close(), loop)
    closed.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
