"""Explain errors of huggingface_hub: what happened, and what to do.

The message has the HTTP status. It tells these cases apart: the Hub refuses (401, 403), does not have the file (404),
asks to wait (429), or has a problem (5xx). The address does not answer as a Hub does (the page of a proxy, a redirect
loop), or cannot be reached. The disk is full.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx2
from huggingface_hub import constants, errors

from genseg_hub.errors import CheckpointError, HubError
from genseg_hub.whole import is_disk_full

# Errors of huggingface_hub for an answer that is not the JSON, the redirect or the headers of a Hub.
_NO_HUB = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    AssertionError,
    errors.FileMetadataError,
    httpx2.TooManyRedirects,
    httpx2.DecodingError,
    httpx2.UnsupportedProtocol,
    httpx2.InvalidURL,
)
_CHARACTERS = 200  # of a stranger's message


@contextlib.contextmanager
def explained(name: str, revision: str | None) -> Iterator[None]:
    """Turn every error of huggingface_hub into a CheckpointError.

    Args:
        name: Hub id, for the message.
        revision: branch, tag or commit, for the message.

    Raises:
        HubError: the Hub, or the way to it, failed.
        CheckpointError: the name, or this disk, does not allow it.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise _explained(_cause(error), name, revision) from error


def is_no_hub(error: BaseException) -> bool:
    """Return whether an error says that an answer is not a Hub's."""
    if isinstance(error, errors.HfHubHTTPError | errors.LocalEntryNotFoundError | ConnectionError | TimeoutError):
        return False
    has_other_bytes = isinstance(error, OSError) and error.errno is None  # than huggingface_hub was told to expect
    return isinstance(error, _NO_HUB) or has_other_bytes


def said(error: errors.HfHubHTTPError) -> str:
    """Return the HTTP status and the server's message, in one line."""
    status = f"HTTP {error.response.status_code}"
    return f"{status}, {printable(error.server_message)}" if error.server_message else status


def printable(words: object) -> str:
    """Return the start of a stranger's text in a line without control characters."""
    text = "".join(character if character.isprintable() else " " for character in str(words))
    return " ".join(text.split())[:_CHARACTERS]


def _cause(error: Exception) -> Exception:
    """Return the error that made huggingface_hub look into its cache in vain."""
    while isinstance(error, errors.LocalEntryNotFoundError | errors.DryRunError | RuntimeError | ValueError):
        if not isinstance(error.__cause__, Exception):
            break
        error = error.__cause__
    return error


def _explained(error: Exception, name: str, revision: str | None) -> CheckpointError:
    if isinstance(error, errors.HFValidationError):
        return CheckpointError(f"{name!r} is not a Hub id (owner/name): {error}")
    if isinstance(error, errors.HfHubHTTPError):
        return _of_status(error, name, revision)
    if isinstance(error, httpx2.LocalProtocolError):  # its text can quote the token
        return CheckpointError(f"{name} cannot be asked for: the token (HF_TOKEN) or the proxy's address is malformed")
    if is_no_hub(error):
        return _fault(
            f"{constants.ENDPOINT} does not answer as a Hub does ({_words(error)})",
            f": {name} was not downloaded; check HF_ENDPOINT, the proxy, and whether the network wants a login first",
        )
    if isinstance(error, errors.LocalEntryNotFoundError):  # nobody was asked
        return CheckpointError(
            f"{name} is not on this disk{f' at {revision!r}' if revision else ''}, and local_files_only forbids the "
            "network: pull it with network access, or copy the checkpoint's folder to this machine and give its "
            "absolute path"
        )
    if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
        if is_disk_full(error):
            return CheckpointError(
                f"the disk is full: free some space or point HF_HOME elsewhere, then pull {name} again; "
                "files that are complete are kept"
            )
        return CheckpointError(f"{name} could not be stored: {error}")
    # Errors of the HTTP client or of xet: no connection, no answer, a refusing proxy.
    return HubError(
        f"{name} is not on this disk and {constants.ENDPOINT} cannot be reached: check the network, the proxy "
        "and HF_HUB_OFFLINE, or copy the checkpoint's folder to this machine and give its absolute path "
        f"({_words(error)})",
        f"{constants.ENDPOINT} cannot be reached ({_words(error)})",
    )


def _of_status(error: errors.HfHubHTTPError, name: str, revision: str | None) -> HubError:
    status, words = error.response.status_code, said(error)
    if isinstance(error, errors.GatedRepoError):
        return _fault(
            f"{name} is gated",
            f": accept its terms at {constants.ENDPOINT}/{name}, then run `hf auth login` ({words})",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return _fault(f"{name} has no revision {revision!r}", f" ({words})")
    if isinstance(error, errors.RepositoryNotFoundError):
        return _fault(
            f"the Hub has no repository {name} that you may see",
            f": check the spelling; for a private one run `hf auth login` ({words})",
        )
    if status == 407:
        return _fault(f"the proxy wants a login ({words})", f": {name} was not downloaded; check the proxy's address")
    if status in (401, 403):
        return _fault(f"the Hub refused {name}: {words}", "; check the token's rights, or run `hf auth login`")
    if status in (404, 410):
        return _fault(f"the Hub does not find a file of {name} ({words})", "; check the name and its revision")
    if status == 429:
        wait = error.response.headers.get("Retry-After", "")
        when = f"in {wait} seconds" if wait.isdigit() else "later"
        return _fault(f"the Hub asks to slow down ({words})", f": pull {name} again {when}")
    if status >= 500:
        return _fault(f"the Hub, or a proxy before it, has a problem ({words})", f": pull {name} again later")
    return _fault(f"the Hub refused {name}: {words}", "")


def _fault(fault: str, remedy: str) -> HubError:
    return HubError(fault + remedy, fault)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {printable(error)}"
