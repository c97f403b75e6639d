"""Commands that serve a checkpoint's reasoner, and checks of addresses.

This module starts no process. The engine gets the folder that `checkpoints.pull` made, with safetensors and without
code, and the name under which `ServerReasoner` finds the checkpoint.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import ssl
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from genseg_hub.checkpoints import Checkpoint
from genseg_hub.errors import ServingError
from genseg_hub.extras import install_command, is_installed

ENGINES = ("vllm", "sglang", "transformers")
# 16,384 tokens of an image, the maximum of Qwen-VL's processors, and room for the prompt and the answer.
MAX_MODEL_LEN = 20_480


def checked_address(address: str) -> str:
    """Return the address of a server's API without a final slash; ask no server.

    Args:
        address: such as "http://localhost:8000/v1".

    Raises:
        ValueError: the text is no address, or has a password, which every error message would show.
    """
    address = address.strip()
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if "@" in address or (usable and (parts.query or parts.fragment)):
        raise ValueError("the address of a server must have no user, password or query; a key goes into OPENAI_API_KEY")
    if not usable:
        raise ValueError(f"{address!r} is no address of a server; for example: http://localhost:8000/v1")
    return address.rstrip("/")


def is_local(address: str) -> bool:
    """Return whether an address is of this machine, which is asked without a proxy."""
    host = (urlsplit(address).hostname or "").removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    return found.is_loopback or found.is_unspecified  # 0.0.0.0, on which engines listen


def client_options(address: str) -> dict[str, Any]:
    """Return how an HTTP client asks an address.

    This machine is asked without a proxy. Certificates of SSL_CERT_FILE and SSL_CERT_DIR count everywhere.

    Raises:
        ValueError: these certificates cannot be read.
    """
    if not is_local(address):
        return {"trust_env": True}
    file, folder = os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None
    own = address.startswith("https:") and bool(file or folder)
    try:
        verify = ssl.create_default_context(cafile=file, capath=folder) if own else True
    except OSError as error:
        raise ValueError(f"the certificates of SSL_CERT_FILE ({file}) cannot be read: {error}; mend it") from error
    return {"trust_env": False, "verify": verify}


def find(engine: str | None = None) -> tuple[str, str]:
    """Return the name and the executable of an engine.

    The function looks beside this Python and then on PATH, because engines often have their own environment.

    Args:
        engine: a name in ENGINES; None for the first installed engine.

    Raises:
        ServingError: there is no such engine, or it is not installed.
    """
    if engine is not None and engine not in ENGINES:
        raise ServingError(f"there is no engine {engine!r}; choose one of {', '.join(ENGINES)}")
    for name in [engine] if engine else ENGINES:
        executable = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
        if executable and (name != "transformers" or _transformers_can_serve()):
            return name, executable
    raise ServingError(
        f"{engine or 'no engine'} is not installed here: pip install vllm, or pip install sglang (a GPU; each in an "
        f"environment of its own, on PATH), or for `transformers serve`: {install_command('serve')}"
    )


def command(
    checkpoint: Checkpoint,
    engine: str,
    executable: str,
    host: str,
    port: int,
    dtype: str,
    max_model_len: int | None = None,
    media_folder: Path | None = None,
    further: list[str] | None = None,
) -> list[str]:
    """Return the command that serves a checkpoint.

    Args:
        checkpoint: as `pull` returns it.
        engine: name that `find` returned.
        executable: path that `find` returned.
        host: address on which the engine listens.
        port: port on which the engine listens.
        dtype: such as "bfloat16"; "auto" for the stored one.
        max_model_len: tokens of image, prompt and answer; None for MAX_MODEL_LEN, or the model's maximum if smaller.
        media_folder: folder from which the engine may read images (vLLM only).
        further: arguments for the engine; they come last and override the others.

    Raises:
        ServingError: the engine has no such argument, or the argument would run a repository's code.
    """
    further = further or []
    if any(argument.replace("_", "-").lower().startswith("--trust") for argument in further):
        raise ServingError("code of a repository is never run; leave --trust-remote-code out")
    if engine != "vllm" and media_folder is not None:
        raise ServingError("only vLLM has to be told from where it may read images; leave --media-folder out")
    if engine == "transformers" and max_model_len is not None:
        raise ServingError("`transformers serve` has no limit of the context; leave --max-model-len out")
    where = ["--host", host, "--port", str(port), "--dtype", dtype]
    if engine == "transformers":  # it serves a model only under the name or path that it loads
        return [
            executable,
            "serve",
            checkpoint.pinned if checkpoint.commit else str(_folder(checkpoint)),
            *where,
            *further,
        ]
    length = str(max_model_len or min(MAX_MODEL_LEN, _longest(checkpoint)))
    if engine == "sglang":
        limits = ["--context-length", length, "--limit-mm-data-per-request", '{"image": 1}']
        start = [executable, "serve", "--model-path", str(_folder(checkpoint))]
    else:
        limits = ["--max-model-len", length, "--limit-mm-per-prompt", '{"image": 1, "video": 0}']
        start = [executable, "serve", str(_folder(checkpoint))]
    # With its commit, so that a client that wants another commit notices.
    name = ["--served-model-name", checkpoint.pinned]
    media = ["--allowed-local-media-path", str(media_folder.resolve())] if media_folder else []
    return [*start, *name, "--load-format", "safetensors", *where, *limits, *media, *further]


def _folder(checkpoint: Checkpoint) -> Path:
    return checkpoint.reasoner.resolve()


def _longest(checkpoint: Checkpoint) -> int:
    """Return the number of tokens for which the model has positions."""
    try:
        config = json.loads((checkpoint.reasoner / "config.json").read_text())
        positions = (config.get("text_config") or config).get("max_position_embeddings", MAX_MODEL_LEN)
        return positions if isinstance(positions, int) and positions > 0 else MAX_MODEL_LEN
    except (ValueError, AttributeError) as error:
        raise ServingError(f"config.json of {checkpoint.name} cannot be read ({error}); mend it") from error


def _transformers_can_serve() -> bool:
    from transformers.utils import import_utils

    return is_installed("serve") and import_utils.is_serve_available()
