"""Downloads from the Hugging Face Hub, with an explanation of every error.

huggingface_hub downloads. It caches and resumes, and it obeys HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and the
proxies. This module knows repositories and files, not their contents.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub as hub
from huggingface_hub import constants, errors
from huggingface_hub.utils import tqdm

from genseg_hub.errors import CheckpointError
from genseg_hub.options import HubOptions, given

_DEFAULTS = HubOptions()
_SNAPSHOT = re.compile(r"models--([^/\\]+)--([^/\\]+)[/\\]snapshots[/\\]([0-9a-f]{40})")  # in huggingface_hub's cache
_ATTEMPTS = 3  # when the connection is reset; complete files stay in the cache


def download(
    name: str,
    revision: str | None,
    files: list[str],
    options: HubOptions = _DEFAULTS,
    on_bytes: Callable[[int], None] | None = None,
) -> Path:
    """Download files of a repository into huggingface_hub's cache, and return the folder that holds them.

    Args:
        name: Hub id of the repository.
        revision: branch, tag or commit; None for the main branch.
        files: names or patterns; files that the repository does not have are left out.
        options: token, cache, network.
        on_bytes: called by the download's threads with each number of arrived bytes. The number is negative when a
            file's download starts again.

    Raises:
        CheckpointError: the files cannot be downloaded.
    """
    bar = None if on_bytes is None else _reporting(on_bytes)
    with explained(name, revision):
        for attempt in range(_ATTEMPTS):
            try:
                return Path(
                    hub.snapshot_download(
                        name,
                        revision=revision,
                        allow_patterns=files,
                        tqdm_class=bar,
                        **given(options),
                    )
                )
            except errors.HTTPError as error:
                # huggingface_hub resumes by itself where a connection ends early, not where it is reset.
                if isinstance(error, errors.HfHubHTTPError) or attempt == _ATTEMPTS - 1:
                    raise
    raise AssertionError("the last attempt returns or raises")


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


def dry_run(
    name: str, revision: str | None, files: list[str], options: HubOptions = _DEFAULTS
) -> list[hub.DryRunFileInfo]:
    """Return the files that `download` would use, with their sizes.

    Args:
        name: Hub id of the repository.
        revision: branch, tag or commit; None for the main branch.
        files: names or patterns.
        options: token, cache, network.

    Raises:
        CheckpointError: as `download`.
    """
    with explained(name, revision):
        try:
            return hub.snapshot_download(name, revision=revision, allow_patterns=files, dry_run=True, **given(options))
        except errors.DryRunError as error:
            raise error.__cause__ or error from None


def snapshot_of(path: Path) -> tuple[str, str] | None:
    """Return Hub id and commit of a file or folder in huggingface_hub's cache; None for any other path."""
    found = _SNAPSHOT.search(str(path))
    return (f"{found[1]}/{found[2]}", found[3]) if found else None


@contextlib.contextmanager
def explained(name: str, revision: str | None) -> Iterator[None]:
    """Turn every error of huggingface_hub into a CheckpointError.

    Args:
        name: Hub id, for the message.
        revision: branch, tag or commit, for the message.

    Raises:
        CheckpointError: the body of the `with` statement raised an error.
    """
    try:
        yield
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{name} is gated: accept its terms at {constants.ENDPOINT}/{name}, then run `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{name} has no revision {revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"the Hub has no repository {name} that you may see: check the spelling; "
            "for a private one run `hf auth login`"
        ) from error
    except errors.HFValidationError as error:
        raise CheckpointError(f"{name!r} is not a Hub id (owner/name): {error}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise _unreachable(name, error) from error
    except errors.HfHubHTTPError as error:
        raise CheckpointError(f"the Hub refused {name}: {error.server_message or error}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise CheckpointError(
                f"the disk is full: free some space or point HF_HOME elsewhere, then pull {name} again; "
                "files that are complete are kept"
            ) from error
        if isinstance(error, ConnectionError):
            raise _unreachable(name, error) from error
        raise CheckpointError(f"{name} could not be stored: {error}") from error
    except Exception as error:  # errors of the HTTP client: a proxy refuses, a connection drops
        raise _unreachable(name, error) from error


def _unreachable(name: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{name} is not on this disk and {constants.ENDPOINT} cannot be reached: check the network, the proxy "
        "and HF_HUB_OFFLINE, or copy the checkpoint's folder here and give its path "
        f"({type(error).__name__}: {str(error)[:200]})"
    )
