"""Read images of a cluster's workers from an object store or a web server.

fsspec reads them. Only the scheme that the user named is read: the file path of a sample can name no other.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from genseg_hub.schema import Failure

if TYPE_CHECKING:
    import fiftyone as fo

_FORM = re.compile(r"(?P<folder>.+?)=(?P<url>[a-z][a-z0-9+.-]*://.+)", re.DOTALL)
_THREADS = 16
# Images that are read before they are needed, as many as fit into these bytes.
_AHEAD, _BYTES = 64, 64_000_000


@dataclass(frozen=True)
class RemoteImages:
    """Address at which all machines find the images of a local folder.

    Attributes:
        folder: absolute path, under which the samples have their `filepath`.
        url: URL under which the images have the same names, such as "s3://bucket/photos". Credentials come from the
            environment of the worker.
    """

    folder: str
    url: str

    @classmethod
    def parse(cls, text: str) -> RemoteImages:
        """Read "FOLDER=URL".

        Raises:
            ValueError: the text has another form, holds credentials, or names a scheme that no installed package reads.
        """
        import fsspec

        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not FOLDER=URL; for example: /data/photos=s3://bucket/photos")
        folder, url = PurePosixPath(match["folder"]), match["url"]
        if not folder.is_absolute() or ".." in folder.parts:
            raise ValueError(f"the folder {match['folder']!r} must be absolute, as the filepath of a sample is")
        parts = urlsplit(url)
        if "@" in parts.netloc or parts.query or parts.fragment or "::" in url:
            raise ValueError(
                "the URL of the images must have no user, password, query or second URL; set credentials in the "
                "environment of the workers"
            )
        try:
            fsspec.get_filesystem_class(parts.scheme)
        except (ImportError, ValueError) as error:
            raise ValueError(f"images of {parts.scheme}:// cannot be read here: {error}") from error
        return cls(str(folder), url.rstrip("/"))

    def check(self, samples: fo.Dataset | fo.DatasetView) -> None:
        """Raise ValueError if a sample's file is not in the folder."""
        from fiftyone import ViewField as F

        outside = samples.match(~F("filepath").starts_with(f"{self.folder.rstrip('/')}/"))
        if count := len(outside):
            raise ValueError(
                f"{count} of {len(samples)} files are not in {self.folder}, for example {outside.first().filepath}; "
                "name the folder that holds all of them"
            )

    def contents(self, images: Sequence[str]) -> Iterator[bytes | Failure]:
        """Yield the content of each file, or why it cannot be read.

        Neighbours that are equal are read once.

        Args:
            images: paths under `folder`. Threads read some ahead, as many as 64 MB hold.
        """
        import fsspec

        system, root = fsspec.core.url_to_fs(self.url)
        runs = ((image, len(list(same))) for image, same in itertools.groupby(images))
        waiting: deque[tuple[int, Future[bytes | Failure]]] = deque()
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="images")
        size = _BYTES // 4  # of a file, until some are read
        try:
            while True:
                room = max(1, min(_AHEAD, _BYTES // size)) - len(waiting)
                for image, count in itertools.islice(runs, max(0, room)):
                    waiting.append((count, pool.submit(self._content, system, root, image)))
                if not waiting:
                    return
                count, reading = waiting.popleft()
                content = reading.result()
                # A large file counts at once, and less with each smaller file after it.
                size = max(1, size // 2, 0 if isinstance(content, Failure) else len(content))
                yield from itertools.repeat(content, count)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # a server that hangs would hold back who gives up

    def _content(self, system: Any, root: str, image: str) -> bytes | Failure:
        name = str(PurePosixPath(image).relative_to(self.folder))
        try:
            if ".." in name.split("/"):
                raise PermissionError("it leads out of the folder")
            is_web = urlsplit(self.url).scheme in ("http", "https")
            return system.cat_file(f"{root.rstrip('/')}/{quote(name) if is_web else name}")
        except Exception as error:  # noqa: BLE001  stores and networks cause errors of any type
            return Failure(f"{self.url}/{name} cannot be read: {type(error).__name__}: {error}", error)
