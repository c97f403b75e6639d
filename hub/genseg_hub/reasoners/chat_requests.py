"""Requests for chat completions, in the form that a server accepts.

Servers differ in the parameters that they refuse. A reasoner begins with OpenAI's form, changes the part that a refusal
names, and keeps the changed form for all later requests.
"""

from __future__ import annotations

import asyncio
import base64
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import Image

from genseg_hub.images import to_jpeg, to_png

Encoding = Literal["png", "jpeg"]
REFUSALS = (400, 404, 413, 415, 422)
_READ_CHARACTERS = 2000  # of a refusal, because some servers repeat the request with its image
# Refusing words, within one statement of the parameter's name.
_NO = (
    r"(un(supported|recogni[sz]ed|known|expected)|not (\w+ )?(supported?|permitted|allowed|accepted|valid|enabled)"
    r"|invalid|deprecated|extra (inputs|fields)|does not (support|accept)|only (the default|supports?|accepts?)"
    r"|must be|has to be|instead)"
)


@dataclass(frozen=True)
class RequestForm:
    """Form of a request that a server accepts, as far as it is known.

    Attributes:
        max_tokens: limit of an answer.
        limit_name: name of the parameter that sets the limit.
        temperature: temperature of the answers, 0 for greedy ones; None for the server's default.
        system: the system message has a list of parts, or one string, or stands before the user's text.
        encoding: encoding of images.
        stream: whether answers come in pieces.
    """

    max_tokens: int
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: float | None = 0.0
    system: Literal["parts", "string", "user"] = "parts"
    encoding: Encoding = "png"
    stream: bool = False

    def request(self, model: str, chat: list[dict], image_url: str) -> dict[str, Any]:
        """Return the arguments of a request.

        Args:
            model: its name on the server.
            chat: messages with one {"type": "image"}, as in `base.Prompt`.
            image_url: URL of the image, in this form's encoding.
        """
        shown = {"type": "image_url", "image_url": {"url": image_url}}
        messages = [
            {**message, "content": [shown if part["type"] == "image" else part for part in message["content"]]}
            for message in chat
        ]
        request: dict[str, Any] = {"model": model, "messages": self._with_system(messages)}
        request[self.limit_name] = self.max_tokens
        if self.temperature is not None:
            request["temperature"] = self.temperature
        return request | ({"stream": True} if self.stream else {})

    def _with_system(self, messages: list[dict]) -> list[dict]:
        if self.system == "parts" or messages[0]["role"] != "system":
            return messages
        system, first, *rest = messages
        text = "\n".join(part["text"] for part in system["content"])
        if self.system == "string":
            return [{"role": "system", "content": text}, first, *rest]
        at = next(i for i, part in enumerate(first["content"]) if part["type"] == "text")
        content = list(first["content"])
        content[at] = {"type": "text", "text": f"{text}\n\n{content[at]['text']}"}
        return [{**first, "content": content}, *rest]


class Change(NamedTuple):
    """New value of a field of the form after a refusal, and the change in words."""

    field: str
    value: Any
    words: str


def change(sent: RequestForm, status: int, body: Any) -> Change | None:
    """Return the change after a refusal; None for no part that can be changed.

    Args:
        sent: form of the refused request.
        status: status of the HTTP response.
        body: body of the HTTP response as the client parsed it; of any type and any content.
    """
    if status not in REFUSALS:
        return None
    name, text = _complaint(body)
    about_room = re.search(r"context|tokens? per|too (large|long|high|many)|exceed|at most|greater|less than", text)
    if sent.limit_name == "max_tokens" and not about_room and _refused("max_tokens", name, text):
        return Change("limit_name", "max_completion_tokens", "max_tokens; max_completion_tokens is sent instead")
    if sent.temperature is not None and _refused("temperature", name, text):
        what = f"temperature {sent.temperature:g}"
        return Change("temperature", None, f"{what}; its own temperature counts, so answers may differ between runs")
    if sent.system == "parts" and re.search(
        r"(must be|should be|expected|only concatenate|requires?)( an?)?( valid)? [\"'`]?str(ing)?\b", text
    ):
        return Change("system", "string", "a list as content of the system message; a string is sent instead")
    if sent.system != "user" and re.search(
        rf"\bsystem\W+(role|message|prompt|instruction)s?\b.{{0,60}}{_NO}|{_NO}.{{0,60}}\brole\b.{{0,20}}\bsystem\b"
        r"|developer instructions? (is|are) not enabled|roles must alternate|only user and assistant roles",
        text,
    ):
        return Change("system", "user", "a system message; its text stands before the user's text instead")
    if sent.encoding == "png" and _refuses_png(status, text):
        return Change("encoding", "jpeg", "an image as PNG; images are sent as JPEG of quality 95 instead")
    if not sent.stream and re.search(
        r"non-?stream|stream\w*\W{0,3}( \w+)? (must|has to|is required|only)|(only|must|requires?) (\w+ ){0,3}\W?stream"
        r"|enable the stream|stream\W{1,4}false",
        text,
    ):
        return Change("stream", True, "to answer in one piece; answers are streamed instead")
    return None


def _refused(parameter: str, name: str, text: str) -> bool:
    if name:
        return name == parameter
    return bool(re.search(rf"\b{parameter}\b.{{0,100}}{_NO}|{_NO}.{{0,60}}\b{parameter}\b", text))


def _refuses_png(status: int, text: str) -> bool:
    if status == 415:
        return True
    if re.search(r"context|token|dimension|pixel", text):  # a JPEG has as many pixels
        return False
    too_large = r"(too (large|big)|exceed|maximum|size limit|max\w* (allowed )?size)"
    about_size = rf"\b(image|picture|payload|request|body|entity|file)\b.{{0,80}}{too_large}"
    about_type = rf"\b(image|media|mime)\W?(format|type)\b.{{0,80}}{_NO}|{_NO}.{{0,40}}\bpng\b|\bpng\b.{{0,40}}{_NO}"
    about_type += rf"|{_NO}.{{0,40}}\b(image|media|mime)\W?(format|type)\b"
    return status == 413 or bool(re.search(f"{about_size}|{about_type}", text))


def _complaint(body: Any) -> tuple[str, str]:
    """Return the parameter that a refusal names, and the refusal's words.

    The parameter is "" for none, and the words are in small letters.
    """
    name, words = "", list[str]()
    for said in _statements(body):
        place = said.get("param") or said.get("loc")
        path = [part for part in place if isinstance(part, str)] if isinstance(place, list) else [place]
        if not name and isinstance(path[-1:] and path[-1], str):
            name = str(path[-1])
        words += [str(said[key]) for key in ("message", "msg", "error", "detail") if isinstance(said.get(key), str)]
        words += [" ".join(map(str, place))] if isinstance(place, list) else []
    return name[:100], " ".join(" ".join(words).lower().split())[:_READ_CHARACTERS]


def _statements(body: Any) -> Iterator[dict]:
    """Yield the objects of a refusal that have words.

    Such objects are the body, its error, and FastAPI's list of details.
    """
    if isinstance(body, str | bytes):
        yield {"message": body if isinstance(body, str) else body.decode(errors="replace")}
    elif isinstance(body, dict):
        yield body
        for key in ("error", "detail"):
            if isinstance(body.get(key), dict | list):
                yield from _statements(body[key])
    elif isinstance(body, list):
        yield from (said for said in body[:10] if isinstance(said, dict))


class Picture:
    """An image that requests share, encoded once in each form that they need.

    Args:
        image: RGB.
        folder: folder for files that the server reads; None for data in the request.
    """

    def __init__(self, image: Image.Image, folder: Path | None):
        self._image, self._folder = image, folder
        self._urls: dict[Encoding, asyncio.Task[str]] = {}
        self._files: list[Path] = []

    async def url(self, encoding: Encoding) -> str:
        """Return the URL of the encoded image; call it on one event loop only."""
        if encoding not in self._urls:
            self._urls[encoding] = asyncio.create_task(asyncio.to_thread(self._encoded, encoding))
        return await asyncio.shield(self._urls[encoding])  # a cancelled request takes no other request along

    def remove_files(self) -> None:
        """Remove the files that were written for the server."""
        for file in self._files:
            file.unlink(missing_ok=True)

    def _encoded(self, encoding: Encoding) -> str:
        content = to_png(self._image) if encoding == "png" else to_jpeg(self._image)
        if self._folder is None:
            return f"data:image/{encoding};base64,{base64.b64encode(content).decode()}"
        file = self._folder / f"{uuid.uuid4().hex}.{encoding}"
        self._files.append(file)
        file.write_bytes(content)
        return file.as_uri()
