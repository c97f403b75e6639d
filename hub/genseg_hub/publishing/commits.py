"""Make one commit on the Hub that holds all files of a folder, or none.

Files are uploaded first. The commit then names all of them, on top of the head that was read before. So either the
whole folder is published or nothing. Tokens are passed on and never stored. This module knows no checkpoint.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import httpx2
import huggingface_hub as hub
from huggingface_hub import constants, errors
from huggingface_hub.utils import validate_repo_id

from genseg_hub.checkpoints import faults
from genseg_hub.checkpoints.network import limit_requests
from genseg_hub.errors import PublishError
from genseg_hub.whole import is_disk_full

Kind = Literal["model", "dataset"]
Files = Mapping[str, Path | bytes]  # path in the repository -> file or content
NOTHING = "nothing was published"
_ATTEMPTS, _PATIENCE = 3, 60  # attempts when the Hub asks to wait, and the most seconds to wait
_Operation = hub.CommitOperationAdd | hub.CommitOperationCopy | hub.CommitOperationDelete


@dataclass(frozen=True)
class Push:
    """Outcome of a push.

    Attributes:
        repo_id: owner/name.
        url: page of the repository at this revision.
        revision: branch.
        commit: hash of the branch's head; None for a dry run.
        files: path in the repository and size in bytes of each file.
        changed: whether the push made a commit; False for a dry run, and if the Hub had the same content already.
    """

    repo_id: str
    url: str
    revision: str
    commit: str | None
    files: tuple[tuple[str, int], ...]
    changed: bool


@dataclass(frozen=True)
class Target:
    """Branch of a repository.

    Attributes:
        repo_id: owner/name; a missing repository is created.
        kind: kind of the repository.
        private: whether the repository is private. An existing public repository is refused.
        revision: branch; a missing branch is created. None for the main branch.
    """

    repo_id: str
    kind: Kind = "model"
    private: bool = False
    revision: str | None = None

    @property
    def branch(self) -> str:
        """Return the name of the branch."""
        return self.revision or constants.DEFAULT_REVISION

    @property
    def page(self) -> str:
        """Return the address of the repository."""
        return f"{constants.ENDPOINT}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo_id}"


def check_id(repo_id: str) -> None:
    """Raise PublishError unless a name has the form of a Hub id, owner/name."""
    try:
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise errors.HFValidationError("the owner is missing")
    except errors.HFValidationError as error:
        raise PublishError(f"{repo_id!r} is not a Hub id (owner/name), {NOTHING}: {error}") from error


def find_token(token: str | None) -> str:
    """Return the given token, else the token of `hf auth login` or HF_TOKEN.

    No request is made.

    Raises:
        PublishError: there is none, or it cannot be one.
    """
    token = (token or hub.get_token() or "").strip()
    if not token:
        raise PublishError(f"there is no token for the Hub, {NOTHING}: run `hf auth login` or set HF_TOKEN")
    if not re.fullmatch(r"[!-~]+", token):  # the HTTP client would quote it in its error
        raise PublishError(f"the token for the Hub is malformed, {NOTHING}: run `hf auth login` or set HF_TOKEN anew")
    return token


def push(
    target: Target,
    files: Files,
    is_ours: Callable[[PurePosixPath], bool],
    message: str,
    token: str | None = None,
    dry_run: bool = False,
) -> Push:
    """Publish files in one commit.

    Args:
        target: repository and branch to publish to.
        files: files to publish.
        is_ours: returns whether a file of the repository is deleted by the same commit when `files` lacks it.
        message: message of the commit.
        token: token for the Hub; by default the token of `hf auth login` or HF_TOKEN.
        dry_run: only return the files that would be sent. Make no request; no token is needed.

    Raises:
        PublishError: the rights, the network, the Hub or a concurrent push does not allow it.
    """
    sizes = tuple((path, len(it) if isinstance(it, bytes) else it.stat().st_size) for path, it in files.items())
    url = f"{target.page}/tree/{target.branch}"
    if dry_run:
        return Push(target.repo_id, url, target.branch, None, sizes, False)
    api = hub.HfApi(token=find_token(token))
    limit_requests()
    try:
        for attempt in range(_ATTEMPTS):
            try:
                head, commit = _commit(api, target, files, is_ours, message)
                break
            except errors.HfHubHTTPError as error:
                wait = _retry_after(error)
                if wait is None or attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(wait)
    except PublishError:
        raise
    except Exception as error:  # huggingface_hub passes on errors of its HTTP client, of xet and of the system
        raise PublishError(_explain(error, target)) from error
    return Push(target.repo_id, url, target.branch, commit, sizes, commit != head)


def _commit(
    api: hub.HfApi, target: Target, files: Files, is_ours: Callable[[PurePosixPath], bool], message: str
) -> tuple[str | None, str]:
    """Commit the files, and return the branch's head before and after."""
    api.create_repo(target.repo_id, repo_type=target.kind, private=target.private, exist_ok=True)
    if target.private and not api.repo_info(target.repo_id, repo_type=target.kind).private:
        raise PublishError(
            f"{target.repo_id} is a public repository already, {NOTHING}: make it private in its settings on the Hub, "
            "or choose another name"
        )
    head = _head(api, target)
    there = [sibling.rfilename for sibling in head.siblings or []]
    stale = [path for path in there if path not in files and is_ours(PurePosixPath(path))]
    operations: list[_Operation] = [
        *(hub.CommitOperationAdd(path, content) for path, content in files.items()),
        *(hub.CommitOperationDelete(path, is_folder=False) for path in stale),
    ]
    commit = api.create_commit(
        target.repo_id,
        operations,
        commit_message=message,
        repo_type=target.kind,
        revision=target.branch,
        parent_commit=head.sha,
    )
    return head.sha, commit.oid


def _retry_after(error: errors.HfHubHTTPError) -> int | None:
    """Return the seconds that the Hub asks to wait, None if too many.

    The caller waits, because huggingface_hub itself waits only during uploads.
    """
    wait = error.response.headers.get("Retry-After", "")
    return int(wait) if error.response.status_code == 429 and wait.isdigit() and int(wait) <= _PATIENCE else None


def _head(api: hub.HfApi, target: Target) -> hub.ModelInfo | hub.DatasetInfo:
    info = api.dataset_info if target.kind == "dataset" else api.model_info
    try:
        return info(target.repo_id, revision=target.branch)
    except errors.RevisionNotFoundError:
        api.create_branch(target.repo_id, branch=target.branch, repo_type=target.kind, exist_ok=True)
        return info(target.repo_id, revision=target.branch)


def _explain(error: BaseException, target: Target) -> str:
    """Return what happened, whether something was published, and what to do."""
    while isinstance(error, RuntimeError) and error.__cause__:  # huggingface_hub wraps a failed upload
        error = error.__cause__
    asked = _url(error)
    committing = asked is not None and "/commit/" in asked
    repo_id, page = target.repo_id, f"{target.page}/commits/{target.branch}"
    unknown = f"it cannot be known whether {repo_id} was published: see {page}"
    outcome = unknown if committing else NOTHING
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        said = faults.said(error)
        if status == 401:
            return f"the Hub does not accept the token, {NOTHING}: run `hf auth login` or set HF_TOKEN anew ({said})"
        if status == 403:
            return f"the token may not write to {repo_id}, {NOTHING}: use one with write access ({said})"
        if status == 404:
            return f"the Hub does not find {repo_id} or its branch {target.branch}, {NOTHING}: check the name ({said})"
        if status in (409, 412):
            return f"somebody else changed {repo_id} meanwhile, {NOTHING}: look at {page}, then push again ({said})"
        if status == 429:
            wait = error.response.headers.get("Retry-After")
            when = f"in {wait} seconds" if wait else "later"
            return f"the Hub asks to slow down, {NOTHING}: push again {when} ({said})"
        if status >= 500:
            return f"the Hub has a problem, {outcome}; push again later ({said})"
        return f"the Hub refused {repo_id}, {NOTHING}: {said}"
    if isinstance(error, json.JSONDecodeError | KeyError | httpx2.TooManyRedirects):  # a proxy answers in its place
        return f"{constants.ENDPOINT} does not answer as a Hub does, {outcome}; push again later"
    if is_disk_full(error):
        return f"the disk is full, {NOTHING}: free some space, then push again"
    if isinstance(error, ConnectionError) or asked is not None:
        return (
            f"the connection to {constants.ENDPOINT} failed, {outcome}; check the network, the proxy and "
            f"HF_HUB_OFFLINE, then push again: sent files are not sent twice ({type(error).__name__}: {error})"
        )
    return f"{repo_id} could not be pushed, {outcome}: {type(error).__name__}: {error}"


def _url(error: BaseException) -> str | None:
    """Return the address of a failed request, if the client's error has one."""
    try:
        return str(getattr(error, "response", error).request.url)  # type: ignore[union-attr]
    except (AttributeError, RuntimeError):
        return None
