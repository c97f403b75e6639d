"""Downloads from the Hugging Face Hub, and why they could not be had.

They are huggingface_hub's: cached, resumable, and obeying HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and the
proxies. This module knows repositories and files, not what is in them.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub as hub
from huggingface_hub import constants, errors

from genseg_hub.errors import CheckpointError

_SNAPSHOT = re.compile(r"models--([^/\\]+)--([^/\\]+)[/\\]snapshots[/\\]([0-9a-f]{40})")  # in huggingface_hub's cache
_ATTEMPTS = 3  # of a download whose connection is reset; whole files are kept


def download(name: str, revision: str | None, local_files_only: bool, files: list[str]) -> Path:
    """The folder that holds what there is of these files of a repository, in huggingface_hub's cache.

    Args:
        files: names or patterns; ones that the repository does not have are left out.

    Raises:
        CheckpointError: it cannot be had.
    """
    with explained(name, revision):
        for attempt in range(_ATTEMPTS):
            try:
                return Path(
                    hub.snapshot_download(
                        name, revision=revision, allow_patterns=files, local_files_only=local_files_only
                    )
                )
            except errors.HTTPError as error:
                # huggingface_hub goes on by itself where a connection ends early, not where it is reset.
                if isinstance(error, errors.HfHubHTTPError) or attempt == _ATTEMPTS - 1:
                    raise
    raise AssertionError("the last attempt returns or raises")


def dry_run(name: str, revision: str | None, files: list[str]) -> list[hub.DryRunFileInfo]:
    """What `download` would use, with sizes. Raises CheckpointError as it does."""
    with explained(name, revision):
        try:
            return hub.snapshot_download(name, revision=revision, allow_patterns=files, dry_run=True)
        except errors.DryRunError as error:
            raise error.__cause__ or error from None


def snapshot_of(path: Path) -> tuple[str, str] | None:
    """Hub id and commit of a file or folder in huggingface_hub's cache; None for any other."""
    found = _SNAPSHOT.search(str(path))
    return (f"{found[1]}/{found[2]}", found[3]) if found else None


@contextlib.contextmanager
def explained(name: str, revision: str | None) -> Iterator[None]:
    """Turn whatever huggingface_hub raises into a CheckpointError."""
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
    except Exception as error:  # the HTTP client's own errors: a proxy that refuses, a connection that drops
        raise _unreachable(name, error) from error


def _unreachable(name: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{name} is not on this disk and {constants.ENDPOINT} cannot be reached: check the network, the proxy "
        "and HF_HUB_OFFLINE, or copy the checkpoint's folder here and give its path "
        f"({type(error).__name__}: {str(error)[:200]})"
    )
