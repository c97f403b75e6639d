"""A Hub on the loopback: the API that huggingface_hub needs to push and pull repositories, and faults.

Like the Hub it is content-addressed: git blobs by SHA-1, large files by SHA-256, and a commit names a tree and its
parent. A commit happens completely or not at all, and never names a large file that the server does not have.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

WRITER, READER = "writer", "reader"  # the tokens of this Hub
REPO = "me/nano"
COMMIT, UPLOAD = "POST .*/commit/", "PUT /storage/"  # requests, for faults
Entry = tuple[str, str, int]  # "lfs" or "regular", hash, size


@dataclass
class Repository:
    private: bool
    commits: dict[str, dict[str, Entry]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, tree: dict[str, Entry], title: str) -> str:
        parent = self.refs.get(branch, "")
        sha = hashlib.sha1(json.dumps([parent, sorted(tree.items()), title]).encode()).hexdigest()
        self.commits[sha], self.titles[sha], self.refs[branch] = tree, title, sha
        return sha

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Fault:
    """Fault of the requests that match.

    Attributes:
        request: regular expression on "METHOD /path".
        answer: a status; a function to call before the normal answer; or one of
            "reset": the connection is reset in the middle of the request's body, or else of the answer's body.
            "end": the connection ends in the middle of the answer.
            "page": a proxy answers instead of the Hub.
            "portal": the login page of a network answers, with the status 200.
            "loop": the answer leads back to the same address.
            "drip": the whole answer comes byte by byte.
            "trickle": the answer's body comes byte by byte.
            "damage": one bit of the body changes on the way.
            "hold": there is no answer.
        headers: of a status.
        times: number of requests with the fault.
        held: set once a request is held.
    """

    request: str
    answer: int | str | Callable[[], object]
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1_000
    held: threading.Event = field(default_factory=threading.Event)


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.RLock()
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.sent: dict[str, int] = {}  # bytes sent of each path
        self.faults: list[Fault] = []
        self.waited: list[int] = []  # seconds that pushes waited

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """Ignore clients that vanish, because the tests make them vanish."""

    @contextmanager
    def fault(self, request: str, answer: int | str | Callable[[], object], **options) -> Iterator[Fault]:
        fault = Fault(request, answer, **options)
        self.faults.append(fault)
        try:
            yield fault
        finally:
            self.faults.remove(fault)

    def take(self, request: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and re.search(fault.request, request):
                    fault.times -= 1
                    return fault
        return None

    def heads(self) -> dict[str, dict[str, str]]:
        """Return repository -> branch -> head."""
        return {name: dict(repository.refs) for name, repository in self.repositories.items()}

    def content(self, name: str, path: str, revision: str = "main") -> bytes:
        repository = self.repositories[name]
        kind, oid, _ = repository.commits[repository.refs[revision]][path]
        return self.large[oid] if kind == "lfs" else self.blobs[oid]

    def paths(self, name: str, revision: str = "main") -> set[str]:
        repository = self.repositories[name]
        return set(repository.commits[repository.refs[revision]])

    def store(self, content: bytes) -> Entry:
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self.blobs[oid] = content
        return "regular", oid, len(content)


class _Refusal(Exception):
    def __init__(self, status: int, said: str, code: str = ""):
        super().__init__(said)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        request = f"{self.command} {path}"
        self.server.requests.append(request)
        self.fault = fault = self.server.take(request)
        length = int(self.headers.get("Content-Length") or 0)
        if fault and fault.answer == "reset" and length:
            self.rfile.read(length // 2)
            return self._reset()
        body = self.rfile.read(length)
        if fault and fault.answer == "hold":
            fault.held.set()
            self.close_connection = True
            self.rfile.read()  # until the client closes the connection
            return None
        if fault and isinstance(fault.answer, int):
            return self._send(fault.answer, {"error": f"fault {fault.answer}"}, fault.headers)
        if fault and callable(fault.answer):
            fault.answer()
        if fault and fault.answer == "page":
            self.close_connection = True
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>")
            return None
        if fault and fault.answer == "portal":
            return self._page()
        if fault and fault.answer == "loop":
            return self._send(302, {}, {"Location": self.path})
        if fault and fault.answer in ("drip", "trickle"):
            return self._drip(path, body, at_once=fault.answer == "trickle")
        if fault and fault.answer == "damage" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        try:
            return self._route(path, body, fault)
        except _Refusal as refusal:
            headers = {"X-Error-Code": refusal.code} if refusal.code else {}
            return self._send(refusal.status, {"error": str(refusal)}, headers)

    def _drip(self, path: str, body: bytes, at_once: bool) -> None:
        """Send the answer byte by byte.

        Args:
            path: of the request.
            body: of the request.
            at_once: send the head of the answer at once.
        """
        self.close_connection = True
        stream, self.wfile = self.wfile, io.BytesIO()
        self._route(path, body, None)
        answer = self.wfile.getvalue()
        self.wfile = stream
        head = answer.index(b"\r\n\r\n") + 4 if at_once else 1
        for begin, end in [(0, head), *((place, place + 1) for place in range(head, len(answer)))]:
            stream.write(answer[begin:end])
            stream.flush()
            time.sleep(0.02)

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _route(self, path: str, body: bytes, fault: Fault | None) -> None:
        for pattern, action in _ROUTES:
            if (self.command == "GET" or self.command == "HEAD") == (action in _READS) and (
                match := re.fullmatch(pattern, path)
            ):
                if action is _Handler._resolve:
                    return action(self, *match.groups(), fault=fault)
                with self.server.lock:
                    return action(self, body, *match.groups())
        raise _Refusal(404, f"no such page {path}")

    # Rights and repositories

    def _token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _may_write(self) -> None:
        if self._token() == READER:
            raise _Refusal(403, "this token may only read")
        if self._token() != WRITER:
            raise _Refusal(401, "invalid token")

    def _repository(self, name: str) -> Repository:
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and self._token() not in (WRITER, READER)):
            raise _Refusal(404, "repository not found", "RepoNotFound")
        return repository

    def _at(self, name: str, revision: str) -> tuple[str, dict[str, Entry]]:
        repository = self._repository(name)
        sha = repository.resolve(revision)
        if sha is None:
            raise _Refusal(404, "invalid revision", "RevisionNotFound")
        return sha, repository.commits[sha]

    # Reading

    def _info(self, body: bytes, name: str, revision: str | None = None) -> None:
        sha, tree = self._at(name, revision or "main")
        private = self._repository(name).private
        files = [{"rfilename": path} for path in tree]
        self._send(200, {"id": name, "modelId": name, "sha": sha, "private": private, "siblings": files})

    def _tree(self, body: bytes, name: str, revision: str, folder: str | None = None) -> None:
        _, tree = self._at(name, revision)
        above = f"{folder}/" if folder else ""
        inside = {path: entry for path, entry in tree.items() if path.startswith(above)}
        if not inside:
            raise _Refusal(404, "entry not found", "EntryNotFound")
        entries: list[dict] = []
        for path, (kind, oid, size) in inside.items():
            name, *deeper = path.removeprefix(above).split("/")
            if deeper and "recursive=false" in self.path.lower():
                directory = {"type": "directory", "path": above + name, "size": 0, "oid": "0" * 40}
                entries += [directory] if directory not in entries else []
                continue
            entry = {"type": "file", "path": path, "size": size, "oid": oid}
            if kind == "lfs":
                pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n".encode()
                entry["oid"] = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
                entry["lfs"] = {"oid": oid, "size": size, "pointerSize": len(pointer)}
            entries.append(entry)
        self._send(200, entries)

    def _resolve(self, name: str, revision: str, path: str, fault: Fault | None) -> None:
        sha, tree = self._at(name, revision)
        if path not in tree:
            raise _Refusal(404, "entry not found", "EntryNotFound")
        kind, oid, size = tree[path]
        content = self.server.large[oid] if kind == "lfs" else self.server.blobs[oid]
        if self.command == "HEAD" and fault and fault.answer == "reset":
            return self._reset()
        start = 0
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(asked[1])
        self.send_response(206 if asked else 200)
        headers = {"ETag": f'"{oid}"', "X-Repo-Commit": sha, "Content-Length": str(size - start)}
        if kind == "lfs":
            headers |= {"X-Linked-Size": str(size), "X-Linked-Etag": f'"{oid}"'}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        content = content[start:]
        if fault and fault.answer == "damage":
            content = content[:-1] + bytes([content[-1] ^ 1])
        cut = len(content) // 2 if fault and fault.answer in ("reset", "end") else len(content)
        self.wfile.write(content[:cut])
        self.server.sent[path] = self.server.sent.get(path, 0) + cut
        if fault and cut < len(content):
            self._reset(abort=fault.answer == "reset")

    # Writing

    def _create(self, body: bytes) -> None:
        self._may_write()
        asked = json.loads(body)
        name = f"{'datasets/' if asked.get('type') == 'dataset' else ''}{asked['organization']}/{asked['name']}"
        url = f"{self.server.endpoint}/{name}"
        if name in self.server.repositories:
            return self._send(409, {"error": "you already created this model repo", "url": url})
        repository = self.server.repositories[name] = Repository(asked.get("visibility") == "private")
        repository.commit("main", {".gitattributes": self.server.store(b"*.safetensors filter=lfs\n")}, "initial")
        return self._send(200, {"url": url})

    def _branch(self, body: bytes, name: str, branch: str) -> None:
        self._may_write()
        repository = self._repository(name)
        if branch in repository.refs:
            raise _Refusal(409, "reference already exists")
        repository.refs[branch] = repository.refs["main"]
        self._send(200, {})

    def _validate(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        try:
            yaml.safe_load(content.split("---\n")[1])
        except (yaml.YAMLError, IndexError) as error:
            return self._send(400, {"errors": [{"message": str(error)}], "warnings": []})
        return self._send(200, {"errors": [], "warnings": []})

    def _preupload(self, body: bytes, name: str, revision: str) -> None:
        self._may_write()
        _, tree = self._at(name, revision)
        answers = []
        for file in json.loads(body)["files"]:
            large = file["path"].endswith((".safetensors", ".png", ".parquet")) or file["size"] > 10_000_000
            answer = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if file["path"] in tree:
                answer["oid"] = tree[file["path"]][1]
            answers.append(answer)
        self._send(200, {"files": answers})

    def _batch(self, body: bytes, name: str) -> None:
        self._may_write()
        self._repository(name)
        objects = []
        for wanted in json.loads(body)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.server.large:
                answer["actions"] = {
                    "upload": {"href": f"{self.server.endpoint}/storage/{wanted['oid']}"},
                    "verify": {"href": f"{self.server.endpoint}/{name}.git/info/lfs/verify"},
                }
            objects.append(answer)
        self._send(200, {"transfer": "basic", "objects": objects})

    def _put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Refusal(400, "the SHA-256 of the content is not the one announced")
        self.server.large[oid] = body
        self._send(200, {})

    def _verify(self, body: bytes, name: str) -> None:
        self._may_write()
        asked = json.loads(body)
        if len(self.server.large.get(asked["oid"], b"")) != asked["size"]:
            raise _Refusal(404, "the object is not here")
        self._send(200, {})

    def _commit(self, body: bytes, name: str, branch: str) -> None:
        self._may_write()
        repository = self._repository(name)
        head, tree = self._at(name, branch)
        tree, title = dict(tree), ""
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                title = value["summary"]
                if value.get("parentCommit", head) != head:
                    raise _Refusal(412, "a commit has happened since")
            elif item["key"] == "file":
                tree[value["path"]] = self.server.store(base64.b64decode(value["content"]))
            elif item["key"] == "lfsFile":
                if len(self.server.large.get(value["oid"], b"")) != value["size"]:
                    raise _Refusal(400, f"the large file {value['path']} was not uploaded")
                tree[value["path"]] = ("lfs", value["oid"], value["size"])
            elif item["key"] == "deletedFile":
                del tree[value["path"]]
            else:
                raise _Refusal(400, f"unknown operation {item['key']}")
        sha = repository.commit(branch, tree, title)
        self._send(200, {"commitUrl": f"{self.server.endpoint}/{name}/commit/{sha}", "commitOid": sha})

    # Wires

    def _send(self, status: int, content, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for key, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if self.fault and self.fault.answer in ("reset", "end"):
            self.wfile.write(data[: len(data) // 2])
            self._reset(abort=self.fault.answer == "reset")
        elif self.command != "HEAD":
            self.wfile.write(data)

    def _page(self) -> None:
        page = b"<html><title>Welcome to the guest network</title></html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)

    def _reset(self, abort: bool = True) -> None:
        """Close the connection before the end of the answer: with RST, or with FIN, so that all sent bytes arrive."""
        self.close_connection = True
        if abort:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *args) -> None:
        pass


_NAME = r"((?:datasets/)?[^/]+/[^/]+?)"
_API = rf"/api/(?:models/)?{_NAME}"
_ROUTES = [
    (r"/api/repos/create", _Handler._create),
    (r"/api/validate-yaml", _Handler._validate),
    (rf"{_API}/branch/(.+)", _Handler._branch),
    (rf"{_API}/preupload/(.+)", _Handler._preupload),
    (rf"{_API}/commit/(.+)", _Handler._commit),
    (rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler._batch),
    (rf"/{_NAME}\.git/info/lfs/verify", _Handler._verify),
    (r"/storage/([0-9a-f]{64})", _Handler._put),
    (rf"{_API}/revision/(.+)", _Handler._info),
    (rf"{_API}/tree/([^/]+)(?:/(.+))?", _Handler._tree),
    (_API, _Handler._info),
    (rf"/{_NAME}/resolve/([^/]+)/(.+)", _Handler._resolve),
]
_READS = (_Handler._info, _Handler._tree, _Handler._resolve)
