"""Download from the Hub: the cache first, then the Hub within time limits.

huggingface_hub downloads. It caches and resumes, and it obeys HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and the
proxies. This module knows repositories and files, not their contents.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable
from pathlib import Path

import huggingface_hub as hub
from filelock import FileLock, Timeout
from huggingface_hub import constants, errors
from huggingface_hub.utils import tqdm

from genseg_hub.checkpoints.faults import explained
from genseg_hub.checkpoints.network import limit_requests
from genseg_hub.errors import HubError
from genseg_hub.options import HubOptions, given
from genseg_hub.whole import write_text

_log = logging.getLogger(__name__)
_DEFAULTS = HubOptions()
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SNAPSHOT = re.compile(r"models--([^/\\]+)--([^/\\]+)[/\\]snapshots[/\\]([0-9a-f]{40})")  # in huggingface_hub's cache
_ATTEMPTS = 3  # when the connection is reset before an answer begins; complete files stay in the cache


def download(
    name: str,
    revision: str | None,
    files: list[str],
    options: HubOptions = _DEFAULTS,
    on_bytes: Callable[[int], None] | None = None,
    newest: bool = False,
    look_ahead: Callable[[hub.ResolvedRevision], object] | None = None,
) -> Path:
    """Return the folder of a repository's files in the cache of huggingface_hub.

    Missing files are downloaded. Files that are all in the cache need no request. A branch, a tag, `newest` and
    `force_download` ask for the newest files. If the Hub then fails, the cached files are used, with a warning in the
    log. A branch moves to a new commit only when all files of the commit are here.

    Args:
        name: Hub id of the repository.
        revision: branch, tag or commit; None for the main branch.
        files: names or patterns; files that the repository does not have are left out.
        options: token, cache, network.
        on_bytes: called by the download's threads with each number of arrived bytes. The number is negative when a
            file's download starts again.
        newest: ask the Hub for the newest commit.
        look_ahead: called with the commit before anything is downloaded; an error that it raises ends the download.

    Raises:
        HubError: the Hub failed, and the files are not in the cache.
        CheckpointError: the files cannot be downloaded.
    """
    here = None if options.force_download else cached(name, revision, files, options)
    if options.local_files_only or (here and not newest and not _moves(revision)):
        with explained(name, revision):
            here = here or _snapshot(name, revision, files, options)
        _point(revision, here)
        return here
    try:
        resolved = resolve(name, revision, options)
        if look_ahead:
            look_ahead(resolved)
        folder = _fetch(name, resolved, files, options, on_bytes)
    except HubError as error:
        here = here or _unlisted(name, revision, files, options)
        if here is None:
            raise
        commit = (snapshot_of(here) or ("", "?"))[1]
        _log.warning("%s; %s is used as the cache has it, at commit %s", error.fault, name, commit)
        return here
    _point(resolved, folder)
    return folder


def cached(name: str, revision: str | None, files: list[str], options: HubOptions = _DEFAULTS) -> Path | None:
    """Return the folder of a snapshot that holds all of the files, without a request.

    Return None if the folder is not known to hold all of them. huggingface_hub stores the list of a commit's files when
    it first downloads some of them.
    """
    try:
        hub.get_cached_repo_tree(name, revision=revision, cache_dir=options.cache_dir)
        return _snapshot(name, revision, files, options)
    except (errors.CachedRepoTreeNotFoundError, errors.LocalEntryNotFoundError, errors.HFValidationError, OSError):
        return None


def resolve(name: str, revision: str | None, options: HubOptions = _DEFAULTS) -> hub.ResolvedRevision:
    """Return a revision with its commit; ask the Hub unless the commit is known.

    Raises:
        CheckpointError: as `download`.
    """
    if isinstance(revision, hub.ResolvedRevision):
        return revision
    commit: str | None = revision
    if revision is None or _moves(revision):
        with explained(name, revision):
            limit_requests()
            commit = _again(lambda: hub.HfApi(token=options.token).model_info(name, revision=revision).sha)
            if not commit or not _COMMIT.fullmatch(commit):
                raise ValueError(f"the commit is {commit!r}")
    return hub.ResolvedRevision(resolved=str(commit), initial=revision)


def dry_run(
    name: str, revision: str | None, files: list[str], options: HubOptions = _DEFAULTS, newest: bool = False
) -> list[hub.DryRunFileInfo]:
    """Return the files that `download` would use, with their sizes.

    Args:
        name: Hub id of the repository.
        revision: branch, tag or commit; None for the main branch.
        files: names or patterns.
        options: token, cache, network.
        newest: ask the Hub for the newest commit.

    Raises:
        CheckpointError: as `download`.
    """
    here = None if options.force_download else cached(name, revision, files, options)
    if options.local_files_only or (here and not newest and not _moves(revision)):
        with explained(name, revision):
            return _listed(name, here or _snapshot(name, revision, files, options), files)
    try:
        resolved = resolve(name, revision, options)
        with explained(name, revision):
            limit_requests()
            return _again(
                lambda: hub.snapshot_download(
                    name, revision=resolved, allow_patterns=files, dry_run=True, **given(options)
                )
            )
    except HubError as error:
        here = here or _unlisted(name, revision, files, options)
        if here is None:
            raise
        _log.warning("%s; the files of %s are counted as the cache has them", error.fault, name)
        return _listed(name, here, files)


def snapshot_of(path: Path) -> tuple[str, str] | None:
    """Return Hub id and commit of a path in huggingface_hub's cache, else None."""
    found = _SNAPSHOT.search(str(path))
    return (f"{found[1]}/{found[2]}", found[3]) if found else None


def _moves(revision: str | None) -> bool:
    """Return whether a revision is a branch or a tag, which another commit can get."""
    return revision is not None and not isinstance(revision, hub.ResolvedRevision) and not _COMMIT.fullmatch(revision)


def _point(revision: str | None, folder: Path) -> None:
    """Let a branch or tag of the cache stand for the commit that it was resolved to."""
    if not isinstance(revision, hub.ResolvedRevision) or revision == revision.resolved:
        return
    ref = folder.parents[1] / "refs" / revision
    with contextlib.suppress(OSError):  # a cache that cannot be written to
        if not (ref.is_file() and ref.read_text() == revision.resolved):
            write_text(ref, revision.resolved)


def _snapshot(name: str, revision: str | None, files: list[str], options: HubOptions) -> Path:
    """Return the folder of a snapshot in the cache.

    Raises:
        huggingface_hub.errors.LocalEntryNotFoundError: there is none, or a file of its list is missing.
    """
    return Path(
        hub.snapshot_download(
            name, revision=revision, allow_patterns=files, cache_dir=options.cache_dir, local_files_only=True
        )
    )


def _unlisted(name: str, revision: str | None, files: list[str], options: HubOptions) -> Path | None:
    """Return the folder of a snapshot whose list of files nobody stored.

    The snapshot may be incomplete.
    """
    if options.force_download:
        return None
    with explained(name, revision):
        try:
            return _snapshot(name, revision, files, options)
        except errors.LocalEntryNotFoundError:
            return None


def _listed(name: str, folder: Path, files: list[str]) -> list[hub.DryRunFileInfo]:
    commit = (snapshot_of(folder) or (name, ""))[1]
    found = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    paths = {file.relative_to(folder).as_posix(): file for file in found}
    return [
        hub.DryRunFileInfo(commit, paths[path].stat().st_size, path, str(paths[path]), True, False)
        for path in hub.utils.filter_repo_objects(paths, allow_patterns=files)
    ]


def _fetch(
    name: str,
    resolved: hub.ResolvedRevision,
    files: list[str],
    options: HubOptions,
    on_bytes: Callable[[int], None] | None,
) -> Path:
    bar = None if on_bytes is None else _reporting(on_bytes)
    _drop_leftovers(name, options)
    with explained(name, resolved):
        limit_requests()
        return Path(
            _again(
                lambda: hub.snapshot_download(
                    name, revision=resolved, allow_patterns=files, tqdm_class=bar, **given(options)
                )
            )
        )


def _drop_leftovers(name: str, options: HubOptions) -> None:
    """Remove the leftovers of killed downloads of a repository.

    A file whose lock another process holds stays, because that process is downloading it.
    """
    cache = Path(options.cache_dir or constants.HF_HUB_CACHE).expanduser()
    repository = f"models--{name.replace('/', '--')}"
    for leftover in (cache / repository / "blobs").glob("*.incomplete"):
        lock = cache / ".locks" / repository / f"{leftover.name.partition('.')[0]}.lock"
        with contextlib.suppress(Timeout, OSError), FileLock(lock, timeout=0):
            leftover.unlink(missing_ok=True)


def _again(call: Callable):
    """Repeat a call when its connection is reset, for a few attempts.

    huggingface_hub itself resumes only after the answer has begun.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return call()
        except errors.HTTPError as error:
            if isinstance(error, errors.HfHubHTTPError) or attempt == _ATTEMPTS - 1 or not _is_reset(error):
                raise
    raise AssertionError("the last attempt returns or raises")


def _is_reset(error: errors.HTTPError) -> bool:
    return type(error).__name__ in ("RemoteProtocolError", "ReadError", "WriteError")


def _reporting(on_bytes: Callable[[int], None]) -> type[tqdm]:
    """Return a progress bar that also passes on the bytes that reach the disk."""

    class Bar(tqdm):
        def __init__(self, *args, **kwargs):
            # snapshot_download makes three bars: bytes on the disk, bytes of the network, files.
            self._counts_bytes = kwargs.get("name") == "huggingface_hub.snapshot_download"
            super().__init__(*args, **kwargs)

        def update(self, n: float | None = 1) -> bool | None:
            if self._counts_bytes:
                on_bytes(int(n or 0))
            return super().update(n)

    return Bar
