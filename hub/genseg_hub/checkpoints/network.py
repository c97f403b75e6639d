"""Time limits for every request to the Hub.

huggingface_hub asks many questions without a time limit, so a Hub that accepts a connection and stays silent would hang
a program for ever. Two environment variables of huggingface_hub set the limits, 10 seconds each by default:

HF_HUB_ETAG_TIMEOUT        a question: to connect, and between two parts of the answer
HF_HUB_DOWNLOAD_TIMEOUT    a file: the same
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as StillWaiting
from typing import Any

import httpx2
import huggingface_hub as hub
from huggingface_hub import constants
from huggingface_hub.utils import _http

_WRITING = 6  # limits that the Hub may think about a request: a commit takes up to a minute
_STALL = 3  # limits after which an answer must have begun, and after which a body is measured
_SLOWEST = 1000  # bytes per second; a slower body has stalled
_LOCK = threading.Lock()


def limit_requests() -> None:
    """Give time limits to all requests of huggingface_hub in this process.

    The limits also hold for clients of a factory that somebody gave to `huggingface_hub.set_client_factory`.
    """
    with _LOCK:
        make = _http._GLOBAL_CLIENT_FACTORY
        if not hasattr(make, "limited"):
            factory: Any = functools.partial(_limited_client, make)
            factory.limited = True
            hub.set_client_factory(factory)


def _limited_client(make: Callable[[], httpx2.Client]) -> httpx2.Client:
    client = make()
    client.send = functools.partial(_send, client.send)  # type: ignore[method-assign]
    return client


def _send(
    send: Callable[..., httpx2.Response], request: httpx2.Request, *, stream: bool = False, **options: Any
) -> httpx2.Response:
    """Send a request within its limits; the rest as `httpx2.Client.send`.

    Raises:
        httpx2.HTTPError: as `httpx2.Client.send`. A stalled request raises httpx2.TimeoutException. A reset connection
            raises httpx2.RemoteProtocolError, after which huggingface_hub goes on in the middle of a file.
    """
    is_file = "/resolve/" in request.url.path
    limit = constants.HF_HUB_DOWNLOAD_TIMEOUT if is_file else constants.HF_HUB_ETAG_TIMEOUT
    thinking = limit * (_WRITING if request.method in ("POST", "PUT") else 1)
    given = request.extensions.get("timeout") or {}
    limits = {"connect": limit, "pool": limit, "write": thinking, "read": thinking}
    request.extensions["timeout"] = {part: min(given.get(part) or most, most) for part, most in limits.items()}
    sent = request.stream = _Body(request.stream, request)
    call = functools.partial(send, request, stream=True, **options)
    response = _in_time(call, _STALL * thinking, sent)
    response.stream = _Body(response.stream, request, _STALL * limit)
    if not stream:
        try:
            response.read()
        except BaseException:
            response.close()
            raise
    return response


def _in_time(call: Callable[[], httpx2.Response], seconds: float, sent: _Body) -> httpx2.Response:
    """Return the beginning of an answer, if it comes in time.

    The time runs from the last part of the request. A server can send the beginning byte by byte, and the look-up of
    its name can hang. httpx2 limits neither, so the call has a thread of its own, which is left behind.
    """
    answer: Future[httpx2.Response] = Future()

    def work() -> None:
        try:
            response = call()
        except BaseException as error:  # noqa: BLE001  it is raised in the thread that asked
            with contextlib.suppress(InvalidStateError):
                answer.set_exception(error)
            return
        try:
            answer.set_result(response)
        except InvalidStateError:  # nobody waits any more
            response.close()

    threading.Thread(target=contextvars.copy_context().run, args=(work,), name="hub", daemon=True).start()
    while True:
        left = sent.moved + seconds - time.monotonic()
        try:
            return answer.result(max(left, 0.0))
        except StillWaiting:
            if answer.done():
                raise  # the request's own error
            if sent.moved + seconds <= time.monotonic() and answer.cancel():
                raise httpx2.ReadTimeout(f"no answer within {seconds:g} s", request=sent.request) from None
        except httpx2.NetworkError as error:
            if isinstance(error, httpx2.ConnectError):
                raise
            raise httpx2.RemoteProtocolError(_words(error), request=sent.request) from error


class _Body(httpx2.SyncByteStream):
    """A body that raises httpx2.ReadTimeout when too few bytes move.

    Args:
        body: body of a request or of an answer.
        request: the request, which errors name.
        seconds: how long a body may wait for too few bytes; None for any time. The time that its reader takes, such as
            to write to a disk, does not count.
    """

    def __init__(self, body: Any, request: httpx2.Request, seconds: float | None = None):
        self.request, self.moved = request, time.monotonic()
        self._body, self._seconds = body, seconds

    def __iter__(self) -> Iterator[bytes]:
        waited, count, parts = 0.0, 0, iter(self._body)
        while True:
            begin = time.monotonic()
            try:
                part = next(parts, None)
            except httpx2.ReadError as error:
                raise httpx2.RemoteProtocolError(_words(error), request=self.request) from error
            self.moved = time.monotonic()
            if part is None:
                return
            waited, count = waited + self.moved - begin, count + len(part)
            if self._seconds is not None and waited > self._seconds:
                if count < _SLOWEST * self._seconds:
                    raise httpx2.ReadTimeout(f"{count} bytes came in {waited:.3g} s", request=self.request)
                waited, count = 0.0, 0
            yield part

    def close(self) -> None:
        """Close the body."""
        self._body.close()


def _words(error: Exception) -> str:
    return f"the connection was reset: {str(error) or type(error).__name__}"
