"""Publish a checkpoint folder as one commit on the Hugging Face Hub.

Files are uploaded first. The commit then names all of them, on top of the head that was read before, so that either the
whole folder is published or nothing. Tokens are passed on and never stored.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2
import huggingface_hub as hub
import jinja2
import yaml
from huggingface_hub import constants, errors
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

from genseg_hub import checkpoints
from genseg_hub.checkpoints import faults
from genseg_hub.checkpoints.network import limit_requests
from genseg_hub.errors import CheckpointError, PublishError
from genseg_hub.publishing import card, credentials
from genseg_hub.whole import is_disk_full

# Files of a checkpoint folder that are published; no other file leaves this disk.
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "segmenter/model.safetensors")
_PUBLISHED = (
    *_WEIGHTS,
    "config.json",
    "generation_config.json",
    "*processor_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    checkpoints.SETTINGS_FILE,
    "segmenter/config.json",
    "segmenter/*processor_config.json",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "recipe.yaml",
    "curves.png",
    "logs/*.jsonl",
    "evaluation/*.json",
)
_CARD = "README.md"
_Operation = hub.CommitOperationAdd | hub.CommitOperationCopy | hub.CommitOperationDelete
_NOTHING = "nothing was published"
_ATTEMPTS, _PATIENCE = 3, 60  # attempts when the Hub asks to wait, and the most seconds to wait


@dataclass(frozen=True)
class Push:
    """Outcome of a push.

    Attributes:
        repo_id: owner/name.
        url: page of the repository at this revision.
        revision: branch.
        commit: hash of the branch's head; None for a dry run.
        files: path in the repository and size in bytes of each file of the checkpoint.
        changed: whether the push made a commit; False for a dry run, and if the Hub had the same content already.
    """

    repo_id: str
    url: str
    revision: str
    commit: str | None
    files: tuple[tuple[str, int], ...]
    changed: bool


def push(
    folder: Path | str,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    dry_run: bool = False,
    message: str | None = None,
    token: str | None = None,
) -> Push:
    """Publish a checkpoint folder in one commit, with a model card.

    The same commit deletes an earlier checkpoint's files that the folder does not have, so that nobody loads a mixture
    of two checkpoints. The repository's history keeps them, and files of other kinds stay.

    Args:
        folder: as `genseg-train export` writes it. The card is added to the commit, not to the folder.
        repo_id: owner/name; a missing repository is created.
        private: whether the repository is private. An existing public repository is refused.
        revision: branch; a missing branch is created. The main branch by default.
        dry_run: only return the files that would be sent. Make no request; no token is needed.
        message: of the commit.
        token: for the Hub; by default the token of `hf auth login` or HF_TOKEN.

    Raises:
        PublishError: the folder, the name, the rights, the network, the Hub or a concurrent push does not allow it.
    """
    folder, revision = Path(folder), revision or constants.DEFAULT_REVISION
    files = _files(folder, repo_id)
    sizes = tuple((path, len(it) if isinstance(it, bytes) else it.stat().st_size) for path, it in files.items())
    url = f"{constants.ENDPOINT}/{repo_id}/tree/{revision}"
    if dry_run:
        return Push(repo_id, url, revision, None, sizes, False)
    token = (token or hub.get_token() or "").strip()
    if not token:
        raise PublishError(f"there is no token for the Hub, {_NOTHING}: run `hf auth login` or set HF_TOKEN")
    if not re.fullmatch(r"[!-~]+", token):  # the HTTP client would quote it in its error
        raise PublishError(f"the token for the Hub is not one, {_NOTHING}: run `hf auth login` or set HF_TOKEN anew")
    limit_requests()
    api = hub.HfApi(token=token)
    message = message or f"Checkpoint {folder.resolve().name}"
    try:
        for attempt in range(_ATTEMPTS):
            try:
                head, commit = _commit(api, repo_id, private, revision, files, message)
                break
            except errors.HfHubHTTPError as error:
                wait = _retry_after(error)
                if wait is None or attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(wait)
    except PublishError:
        raise
    except Exception as error:  # huggingface_hub passes on errors of its HTTP client, of xet and of the system
        raise PublishError(_explain(error, repo_id, revision)) from error
    return Push(repo_id, url, revision, commit, sizes, commit != head)


def _files(folder: Path, repo_id: str) -> dict[str, Path | bytes]:
    """Return path in the repository -> file or content, after every check that needs no network."""
    try:
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise errors.HFValidationError("the owner is missing")
        if not folder.is_dir():
            raise CheckpointError(f"there is no folder {folder}")
        settings = checkpoints.check_folder(folder, str(folder))
        _check_segmenter(folder, settings["segmenter"])
    except errors.HFValidationError as error:
        raise PublishError(f"{repo_id!r} is not a Hub id (owner/name), {_NOTHING}: {error}") from error
    except (CheckpointError, ValueError, KeyError) as error:
        raise PublishError(f"this is not a usable checkpoint, {_NOTHING}: {error}") from error
    patterns = (*_PUBLISHED, _CARD)
    globbed = {file for pattern in patterns for file in folder.glob(pattern)}
    found = sorted(file for file in globbed if file.is_file() and not file.name.startswith("."))
    for file in found:
        if not file.resolve().is_relative_to(folder.resolve()):
            raise PublishError(f"{file} is a link that leads out of {folder}, {_NOTHING}: put a copy in its place")
        if file.suffix == ".safetensors":
            _check_weights(file)
        elif secret := credentials.found_in(file.read_bytes()):
            raise PublishError(f"{file} seems to hold {secret}, {_NOTHING}: take it out and revoke it")
    files: dict[str, Path | bytes] = {f.relative_to(folder).as_posix(): f for f in found}
    try:
        files[_CARD] = str(card.card(folder, repo_id)).encode()
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
        yaml.YAMLError,
        jinja2.TemplateError,
    ) as error:
        raise PublishError(f"the model card of {folder} cannot be made, {_NOTHING}: {error}") from error
    return files


def _commit(
    api: hub.HfApi, repo_id: str, private: bool, revision: str, files: dict[str, Path | bytes], message: str
) -> tuple[str | None, str]:
    """Commit the files, and return the branch's head before and after."""
    api.create_repo(repo_id, private=private, exist_ok=True)
    if private and not api.model_info(repo_id).private:
        raise PublishError(
            f"{repo_id} is a public repository already, {_NOTHING}: make it private in its settings on the Hub, "
            "or choose another name"
        )
    head = _head(api, repo_id, revision)
    operations: list[_Operation] = [*_additions(files), *_deletions(head, files)]
    commit = api.create_commit(repo_id, operations, commit_message=message, revision=revision, parent_commit=head.sha)
    return head.sha, commit.oid


def _retry_after(error: errors.HfHubHTTPError) -> int | None:
    """Return the seconds that the Hub asks to wait, None if too many; huggingface_hub itself waits for uploads only."""
    wait = error.response.headers.get("Retry-After", "")
    return int(wait) if error.response.status_code == 429 and wait.isdigit() and int(wait) <= _PATIENCE else None


def _check_segmenter(folder: Path, segmenter: str) -> None:
    """Raise CheckpointError unless the named segmenter is in segmenter/, which is published, or on the Hub."""
    if segmenter == "segmenter":
        checkpoints.check_segmenter(folder / segmenter)
    elif "/" not in segmenter or (folder / segmenter).exists():
        raise CheckpointError(f"its segmenter {segmenter!r} is neither segmenter/ nor a Hub id")


def _check_weights(file: Path) -> None:
    try:
        with safe_open(file, framework="np") as weights:
            said = json.dumps(weights.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise PublishError(
            f"{file} is truncated or damaged ({error}), {_NOTHING}: write the checkpoint again"
        ) from error
    if secret := credentials.found_in(said.encode()):
        raise PublishError(f"the header of {file} seems to hold {secret}, {_NOTHING}: take it out and revoke it")


def _head(api: hub.HfApi, repo_id: str, revision: str) -> hub.ModelInfo:
    try:
        return api.model_info(repo_id, revision=revision)
    except errors.RevisionNotFoundError:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
        return api.model_info(repo_id, revision=revision)


def _additions(files: dict[str, Path | bytes]) -> list[hub.CommitOperationAdd]:
    return [hub.CommitOperationAdd(path, content) for path, content in files.items()]


def _deletions(head: hub.ModelInfo, files: dict[str, Path | bytes]) -> list[hub.CommitOperationDelete]:
    there = [sibling.rfilename for sibling in head.siblings or []]
    stale = [path for path in there if path not in files and is_published(Path(path))]
    return [hub.CommitOperationDelete(path, is_folder=False) for path in stale]


def is_published(path: Path) -> bool:
    """Return whether a path in a checkpoint's folder is that of a file which a push sends; the card is none.

    Patterns match as in `Path.glob`: `*` stays within a folder.
    """
    return any(len(path.parts) == 1 + pattern.count("/") and path.match(pattern) for pattern in _PUBLISHED)


def _explain(error: BaseException, repo_id: str, revision: str) -> str:
    """Return a message: what happened, whether something was published, and what to do."""
    while isinstance(error, RuntimeError) and error.__cause__:  # huggingface_hub wraps a failed upload
        error = error.__cause__
    asked = _url(error)
    committing = asked is not None and "/commit/" in asked
    page = f"{constants.ENDPOINT}/{repo_id}/commits/{revision}"
    unknown = f"it cannot be known whether {repo_id} was published: see {page}"
    outcome = unknown if committing else _NOTHING
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        said = faults.said(error)
        if status == 401:
            return f"the Hub does not accept the token, {_NOTHING}: run `hf auth login` or set HF_TOKEN anew ({said})"
        if status == 403:
            return f"the token may not write to {repo_id}, {_NOTHING}: use one with write access ({said})"
        if status == 404:
            return f"the Hub does not find {repo_id} or its branch {revision}, {_NOTHING}: check the name ({said})"
        if status in (409, 412):
            return f"somebody else changed {repo_id} meanwhile, {_NOTHING}: look at {page}, then push again ({said})"
        if status == 429:
            wait = error.response.headers.get("Retry-After")
            when = f"in {wait} seconds" if wait else "later"
            return f"the Hub asks to slow down, {_NOTHING}: push again {when} ({said})"
        if status >= 500:
            return f"the Hub has a problem, {outcome}; push again later ({said})"
        return f"the Hub refused {repo_id}, {_NOTHING}: {said}"
    if isinstance(error, json.JSONDecodeError | KeyError | httpx2.TooManyRedirects):  # a proxy answers in its place
        return f"{constants.ENDPOINT} does not answer as a Hub does, {outcome}; push again later"
    if is_disk_full(error):
        return f"the disk is full, {_NOTHING}: free some space, then push again"
    if isinstance(error, ConnectionError) or asked is not None:
        return (
            f"the connection to {constants.ENDPOINT} failed, {outcome}; check the network, the proxy and "
            f"HF_HUB_OFFLINE, then push again: what was sent is not sent twice ({type(error).__name__}: {error})"
        )
    return f"{repo_id} could not be pushed, {outcome}: {type(error).__name__}: {error}"


def _url(error: BaseException) -> str | None:
    """Return the address of the request that failed, if an error of the HTTP client has one."""
    try:
        return str(getattr(error, "response", error).request.url)  # type: ignore[union-attr]
    except (AttributeError, RuntimeError):
        return None
