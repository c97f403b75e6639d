"""Ask a reasoner on any server with OpenAI's chat completions.

Such servers are vLLM, Ollama, LM Studio, llama.cpp and OpenRouter. This module sends requests and repeats them in the
form that the server accepts. `chat_requests` knows the forms, `chat_answers` the answers, `served_models` the names,
and `serving` how to start an engine.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from genseg_hub.errors import NotServedError, ReasonerError
from genseg_hub.reasoners.base import Generation, Prompt
from genseg_hub.reasoners.chat_answers import NoPieceError, cut_in_thought, read_answer, read_stream
from genseg_hub.reasoners.chat_requests import REFUSALS, Picture, RequestForm, change
from genseg_hub.reasoners.following import follow
from genseg_hub.reasoners.served_models import ONE_BY_ONE, Choice, choose, read_models
from genseg_hub.reasoners.server_errors import ServerErrors, import_openai
from genseg_hub.reasoners.serving import checked_address, client_options

_CONNECT_SECONDS = 10.0
_CONCURRENCY = 32
_LAPTOP_CONCURRENCY = 2  # a server that answers one by one would let the other requests time out in its queue
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class ServerReasoner:
    """A VLM behind an OpenAI-compatible server.

    Requests that fail temporarily (no connection, timeout, 408, 409, 429, 5xx) are repeated with growing pauses, or
    after the pause that the server names. After the last attempt only the request's own prompt fails.

    A request whose form the server refuses is repeated at once in another form, which all later requests have; see
    `chat_requests.RequestForm`. Each change is logged once.

    Args:
        base_url: address of the API, for example "http://localhost:8000/v1".
        model: name of the model, in the server's words or in others, see `served_models.choose`; of several names the
            first that the server has; None for the only model that takes images.
        max_new_tokens: token limit of an answer.
        api_key: key of the server; None for OPENAI_API_KEY, if set. It is neither stored nor logged.
        concurrency: requests that are open at once; None for 32, or for 2 on a server that answers one by one.
        timeout: seconds that one attempt waits for its answer.
        max_retries: attempts after the first.
        media_folder: a folder that the server sees under the same path and may read (vLLM:
            `--allowed-local-media-path`). Images are passed there as PNG files, which are removed after the answer.
            Without a folder, each request contains its image as PNG.
        thinking_tokens: see `limit_answers`.

    Attributes:
        choice: the model, and why it was chosen.
        model: name of the model on the server; `label` is the same name for people.
        known_as: the given name under which the model was found; None if no name was given.

    Raises:
        NotServedError: the server has none of the models.
        ReasonerError: there is no server, or it refuses the key.
        ValueError: an argument cannot be used.
    """

    takes_cores = False

    def __init__(
        self,
        base_url: str,
        model: str | Sequence[str] | None,
        max_new_tokens: int,
        *,
        api_key: str | None = None,
        concurrency: int | None = None,
        timeout: float = 600.0,
        max_retries: int = 4,
        media_folder: str | Path | None = None,
        thinking_tokens: int | None = None,
    ):
        openai = import_openai()
        self.base_url = checked_address(base_url)
        if (concurrency is not None and concurrency < 1) or timeout <= 0 or max_retries < 0:
            raise ValueError(
                "concurrency must be at least 1, timeout above 0 and max_retries at least 0, "
                f"got {concurrency}, {timeout} and {max_retries}"
            )
        self.media_folder = Path(media_folder).resolve() if media_folder is not None else None
        if self.media_folder and not self.media_folder.is_dir():
            raise ValueError(f"there is no folder {self.media_folder}; make it, and let the server read it")
        key = api_key or os.environ.get("OPENAI_API_KEY") or ""
        self._errors = ServerErrors(self.base_url, timeout, max_retries, key)
        self._client = openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=key or "none",  # the client requires a key
            timeout=openai.Timeout(timeout, connect=_CONNECT_SECONDS),
            max_retries=max_retries,
            http_client=openai.DefaultAsyncHttpxClient(**client_options(self.base_url)),
        )
        # Its own loop, because notebooks run one already, and because requests must be cancelled at once.
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="server-reasoner", daemon=True).start()
        weakref.finalize(self, _close, self._client, self._loop)
        self.choice = self._wait(self._chosen([model] if isinstance(model, str) else model))
        self.model, self.known_as = self.choice.model.name, self.choice.known_as
        self.label = self._errors.quoted(self.model)
        one_by_one = self.choice.model.server in ONE_BY_ONE
        self.concurrency = concurrency or (_LAPTOP_CONCURRENCY if one_by_one else _CONCURRENCY)
        self.limit_answers(max_new_tokens, thinking_tokens)
        if self.choice.why:
            level = logging.INFO if self.choice.sure else logging.WARNING
            _log.log(level, "asking %s on %s: %s", self.label, self.base_url, self.choice.why)

    def limit_answers(self, max_new_tokens: int, thinking_tokens: int | None = None, thinks: bool = False) -> None:
        """Set the token limit of answers, before the first question.

        Args:
            max_new_tokens: the limit.
            thinking_tokens: limit with which a prompt is asked again whose answer ended inside its thought; if that
                works, later requests have this limit, too. None to keep `max_new_tokens`, which the user chose.
            thinks: whether the chat template opens a thought in the prompt; the server's name of the model may tell so,
                too.
        """
        self._thinks = thinks or self.choice.model.thinks
        self._form = RequestForm(max_new_tokens)  # from now on changed on the loop only
        self._thinking_tokens = thinking_tokens or 0
        self._streams = True  # until the server refuses to answer in pieces

    @property
    def temperature(self) -> float:
        """See `base.Sampling`; set it before the first question."""
        return self._form.temperature or 0.0

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._form = dataclasses.replace(self._form, temperature=value)

    def session(self, batch_size: int) -> _Requests:
        """Open a session, see `base.Reasoner`.

        Up to `concurrency` prompts are open, whatever the batch size.
        """
        return _Requests(self)

    def stream(self, prompt: Prompt) -> Generator[str | Generation, None, None]:
        """Answer one prompt in pieces, see `base.Reasoner`.

        A server that refuses pieces is asked for one piece.
        """
        texts: SimpleQueue[str | None] = SimpleQueue()
        session = _Requests(self, texts.put)
        session.ask([prompt])
        try:
            (request,) = session.open
            yield from follow(request, texts)
            ((_, answer),) = session.advance()
        finally:
            _give_up(session.open)
        if isinstance(answer, Exception):
            raise answer
        yield answer

    def release(self) -> None:
        """Do nothing, because nothing is kept."""

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

    async def _chosen(self, names: Sequence[str] | None) -> Choice:
        try:
            return choose(read_models(await self._client.models.list(), self._errors), names)
        except NotServedError as error:
            raise self._errors.error(str(error), NotServedError) from None
        except Exception as error:  # servers and networks cause errors of any type
            raise self._errors.explained(error) from error

    async def request(
        self, picture: Picture, chat: list[dict], watch: Callable[[str], None] | None = None
    ) -> Generation | ReasonerError:
        """Return the answer to one chat about a picture, or the error.

        Args:
            picture: the image.
            chat: as in `base.Prompt`.
            watch: takes the text so far, if the server answers in pieces; None to wait for the whole answer.
        """
        try:
            answer, limit = await self._asked(self._form, picture, chat, watch)
            if cut_in_thought(answer, self._thinks) and limit < self._thinking_tokens:
                answer = await self._asked_again(answer, self._thinking_tokens, picture, chat, watch)
            if cut_in_thought(answer, self._thinks) and "<think>" not in answer.text:
                answer = dataclasses.replace(answer, text=f"<think>{answer.text}")
            return answer
        except Exception as error:  # noqa: BLE001  recorded on the example
            return self._errors.explained(error)

    async def _asked(
        self, form: RequestForm, picture: Picture, chat: list[dict], watch: Callable[[str], None] | None
    ) -> tuple[Generation, int]:
        """Return the answer to one chat and the token limit that it had.

        The form changes if the server refuses it.
        """
        import openai

        in_pieces = watch is not None and self._streams
        while True:
            sent = dataclasses.replace(form, stream=form.stream or in_pieces)
            try:
                request = sent.request(self.model, chat, await picture.url(sent.encoding))
                completion = await self._client.chat.completions.create(**request)
                if sent.stream:
                    async with completion as chunks:  # the client's own timeout is of each piece
                        told, framed = self._marked(watch) if watch else None, _is_framed(completion.response)
                        reading = read_stream(chunks, self._errors, told, framed)
                        answer = await asyncio.wait_for(reading, self._errors.timeout)
                else:
                    answer = read_answer(completion, self._errors)
                    if watch and self._streams:
                        self._streams = False
                        _log.warning("the server %s refuses to answer in pieces; answers come whole", self.base_url)
                return answer, form.max_tokens
            except (openai.APIStatusError, NoPieceError) as error:
                learned = self._learned(sent, error) if isinstance(error, openai.APIStatusError) else None
                if learned is not None:
                    form = learned
                elif in_pieces and not form.stream and getattr(error, "status_code", 400) in REFUSALS:
                    in_pieces = False  # other faults refuse the whole answer, too, and are told then
                else:
                    raise

    def _marked(self, watch: Callable[[str], None]) -> Callable[[str], None]:
        """Wrap `watch`, so that texts get the `<think>` that the prompt may have opened."""

        def marked(text: str) -> None:
            in_thought = self._thinks and "<think>" not in text and "</think>" not in text
            watch(f"<think>{text}" if in_thought else text)

        return marked

    async def _asked_again(
        self, cut: Generation, limit: int, picture: Picture, chat: list[dict], watch: Callable[[str], None] | None
    ) -> Generation:
        """Return the answer with a higher token limit.

        Return the answer that was cut off if the server refuses the limit.
        """
        import openai

        try:
            answer, _ = await self._asked(dataclasses.replace(self._form, max_tokens=limit), picture, chat, watch)
        except Exception as error:  # noqa: BLE001  there is an answer already
            _log.warning("a thought stays unfinished, because with %d tokens %s", limit, self._errors.explained(error))
            if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
                self._thinking_tokens = 0  # the server refuses the limit, not this one request
            return cut
        if self._form.max_tokens < limit:
            self._form = dataclasses.replace(self._form, max_tokens=limit)
            _log.warning("%s thinks for long; its answers may now have %d tokens", self.label, limit)
        return answer

    def _learned(self, sent: RequestForm, refusal: Any) -> RequestForm | None:
        """Return the form in which to ask again, None if no other form helps.

        Several requests may meet the same refusal. Only the first changes the reasoner's form, and none turns it back.
        """
        new = change(sent, refusal.status_code, refusal.body)
        if new is None:
            return None
        if getattr(self._form, new.field) == getattr(sent, new.field):
            self._form = dataclasses.replace(self._form, **{new.field: new.value})
            _log.warning("the server %s refuses %s", self.base_url, new.words)
        return dataclasses.replace(self._form, max_tokens=sent.max_tokens)


class _Requests:
    """A session: each prompt is one request, and neighbours share one encoded image.

    Args:
        reasoner: reasoner whose requests they are.
        watch: see `ServerReasoner.request`.

    Attributes:
        open: the awaited answers, and their prompts.
    """

    def __init__(self, reasoner: ServerReasoner, watch: Callable[[str], None] | None = None):
        self._reasoner, self._watch = reasoner, watch
        self.open: dict[Future[Generation | ReasonerError], Prompt] = {}
        self._images: dict[object, tuple[Picture, set[Prompt]]] = {}  # key -> picture, open prompts about it
        self._folder = None
        if reasoner.media_folder:
            self._folder = tempfile.TemporaryDirectory(dir=reasoner.media_folder, ignore_cleanup_errors=True)
            os.chmod(self._folder.name, 0o755)  # the server may run as another user
            weakref.finalize(self, self._folder.cleanup)
        weakref.finalize(self, _give_up, self.open)

    def room(self) -> int:
        return self._reasoner.concurrency - len(self.open)

    def ask(self, prompts: Sequence[Prompt]) -> None:
        for prompt in prompts:
            if prompt.image_key not in self._images:
                folder = Path(self._folder.name) if self._folder else None
                try:
                    image = prompt.image
                except Exception as error:  # noqa: BLE001  a file that cannot be read again is this prompt's answer
                    failed: Future[Any] = Future()
                    failed.set_result(error)
                    self.open[failed] = prompt
                    continue
                self._images[prompt.image_key] = Picture(image, folder), set()
            picture, about = self._images[prompt.image_key]
            about.add(prompt)
            self.open[self._reasoner.submit(self._reasoner.request(picture, prompt.chat, self._watch))] = prompt

    def advance(self) -> list[tuple[Prompt, Generation | Exception]]:
        try:
            done, _ = wait(self.open, return_when=FIRST_COMPLETED)
        except BaseException:
            _give_up(self.open)
            raise
        answers: list[tuple[Prompt, Generation | Exception]] = []
        for future in done:
            prompt = self.open.pop(future)
            picture, about = self._images.get(prompt.image_key, (None, set[Prompt]()))
            about.discard(prompt)
            if picture and not about:
                del self._images[prompt.image_key]
                picture.remove_files()
            answers.append((prompt, future.result()))
        return answers


def _give_up(requests: dict[Future[Generation | ReasonerError], Prompt]) -> None:
    for request in requests:
        request.cancel()


def _is_framed(response: Any) -> bool:
    """Return whether HTTP says where the body of a response ends."""
    lengths = ("content-length", "transfer-encoding")
    return response.http_version.startswith("HTTP/2") or any(name in response.headers for name in lengths)


def _close(client: Any, loop: asyncio.AbstractEventLoop) -> None:
    closed = asyncio.run_coroutine_threadsafe(client.close(), loop)
    closed.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
