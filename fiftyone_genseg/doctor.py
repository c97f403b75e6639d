"""Check what this machine has for segmenting, and which checkpoint fits it.

Each check returns findings and starts nothing: no App, no database, no download. A server or the Hub that does not
answer costs seconds at most.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from genseg_hub.checkpoints.catalog import NANO, KnownCheckpoint
from genseg_hub.errors import ReasonerError
from genseg_hub.extras import install_command
from genseg_hub.reasoners import served_models
from huggingface_hub import constants
from packaging.requirements import Requirement
from packaging.version import Version

import fiftyone_genseg
from fiftyone_genseg import database, default_checkpoint, machine, messages

OK, NOTE, WARNING, BROKEN = "ok", "note", "warning", "broken"
DISTRIBUTION = "fiftyone-genseg"
# Package -> the extra that it belongs to; None if the product needs it.
PACKAGES = {"fiftyone": None, "torch": None, "transformers": None, "rf-sam-2": None, "trl": "train", "openai": "serve"}
# Port -> who listens there by default.
PORTS = {
    11434: "Ollama",
    1234: "LM Studio",
    8080: "llama.cpp or mlx-vlm",
    8000: "vLLM, SGLang or genseg serve",
}
_HUB_SECONDS, _SERVER_SECONDS, _DATABASE_SECONDS = 3.0, 1.0, 2.0
_NAMES_TOLD, _LONGEST = 5, 200  # names, and characters of a server's message


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        state: OK; NOTE for a thing that may be missing; WARNING; BROKEN for a thing without which nothing works.
        about: the thing that was checked.
        found: the result of the check.
        remedy: what to do; "" for nothing.
    """

    state: str
    about: str
    found: str
    remedy: str = ""


def findings(devices: Sequence[machine.Device]) -> Iterator[Finding]:
    """Yield the findings of every check.

    Args:
        devices: devices of this machine; the first is the device that a checkpoint would run on.
    """
    yield from packages()
    for device in devices:
        yield of_device(device)
    yield disk()
    yield of_database()
    yield from hub()
    yield from servers()
    yield of_default(machine.recommended(devices[0]))


def devices() -> tuple[list[machine.Device], list[Finding]]:
    """Return the devices, and a finding if PyTorch cannot be used.

    The first device is the device of "auto".
    """
    try:
        return [*machine.gpus(), machine.cpu()], []
    except (ImportError, OSError) as error:
        remedy = "pip install --force-reinstall torch torchvision"
        return [machine.cpu()], [Finding(BROKEN, "torch", f"cannot be imported: {error}", remedy)]


def packages() -> Iterator[Finding]:
    """Yield the versions of Python and the packages, beside the needed versions."""
    yield Finding(OK, "Python", platform.python_version())
    try:
        asked = importlib.metadata.requires(DISTRIBUTION) or []
        yield Finding(OK, DISTRIBUTION, fiftyone_genseg.__version__)
    except importlib.metadata.PackageNotFoundError:
        asked = []
        found = f"{fiftyone_genseg.__version__}, not installed: it runs from {Path(fiftyone_genseg.__file__).parent}"
        yield Finding(NOTE, DISTRIBUTION, found)
    requirements = {requirement.name: requirement for requirement in reversed([*map(Requirement, asked)])}
    for name, extra in PACKAGES.items():
        yield of_package(name, extra, requirements.get(name))


def of_package(name: str, extra: str | None, requirement: Requirement | None) -> Finding:
    """Return whether a package is installed in a version that fits.

    Args:
        name: name of the package.
        extra: extra that the package belongs to; None if the product needs the package.
        requirement: requirement of this package; None if unknown.
    """
    wanted = f"{name}{requirement.specifier}" if requirement else name
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if extra is None:
            return Finding(BROKEN, name, "not installed", f'pip install "{wanted}"')
        purpose = {"train": "training", "serve": "asking a server"}[extra]
        return Finding(NOTE, name, f"not installed; needed for {purpose}", install_command(extra))
    if requirement and not requirement.specifier.contains(Version(version), prereleases=True):
        state = BROKEN if extra is None else WARNING
        return Finding(state, name, f"{version}, but {requirement.specifier} is needed", f'pip install "{wanted}"')
    return Finding(OK, name, version)


def of_device(device: machine.Device) -> Finding:
    """Return the memory of a device."""
    free = "" if device.free is None else f", {device.free:.1f} GB free"
    return Finding(OK, device.name, f"{device.label}, {device.total:.1f} GB of memory{free}")


def disk() -> Finding:
    """Return the free space on the disk of the checkpoints."""
    folder = Path(constants.HF_HUB_CACHE).expanduser()
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free, remedy = shutil.disk_usage(there).free / 1e9, "point HF_HOME to another disk"
    if not os.access(there, os.W_OK):
        return Finding(WARNING, "disk", f"{folder} may not be written to", remedy)
    least = machine.download_size(machine.GENERAL[0])
    found = f"{free:.1f} GB free at {folder}"
    return Finding(OK, "disk", found) if free >= least else Finding(WARNING, "disk", found, f"free some, or {remedy}")


def of_database() -> Finding:
    """Return whether FiftyOne has a database."""
    try:
        return Finding(OK, "database", database.check(_DATABASE_SECONDS))
    except RuntimeError as error:
        remedy = "python -m fiftyone_genseg.database, or FIFTYONE_DATABASE_URI=mongodb://host:port"
        return Finding(BROKEN, "database", str(error), remedy)


def hub() -> Iterator[Finding]:
    """Yield whether the Hub answers, and whether there is a token.

    The token itself is not read.
    """
    if constants.HF_HUB_OFFLINE:
        found = "HF_HUB_OFFLINE is set: only files on this disk are used"
        yield Finding(NOTE, "Hub", found, "unset HF_HUB_OFFLINE to download checkpoints")
    else:
        yield _answer_of_hub()
    if huggingface_hub.get_token():
        yield Finding(OK, "token", "a token is set")
    else:
        yield Finding(NOTE, "token", "no token is set", "hf auth login, for gated and private checkpoints")


def _answer_of_hub() -> Finding:
    remedy = "check the network, the proxy and HF_ENDPOINT; checkpoints on this disk and servers work without"
    try:
        answer = huggingface_hub.utils.get_session().head(
            constants.ENDPOINT, timeout=_HUB_SECONDS, follow_redirects=True
        )
    except (huggingface_hub.errors.HTTPError, OSError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"[:_LONGEST]
        return Finding(WARNING, "Hub", f"{constants.ENDPOINT} does not answer ({why})", remedy)
    if answer.status_code >= 400 and answer.status_code != 404:
        return Finding(WARNING, "Hub", f"{constants.ENDPOINT} refuses with status {answer.status_code}", remedy)
    return Finding(OK, "Hub", f"{constants.ENDPOINT} answers")


def servers(ports: Mapping[int, str] | None = None) -> Iterator[Finding]:
    """Yield the servers of models on this machine, each with the names of its models.

    Args:
        ports: port -> who may listen there; None for `PORTS`.
    """
    ports = PORTS if ports is None else ports
    with ThreadPoolExecutor(max(1, len(ports))) as workers:
        found = [finding for finding in workers.map(_server, ports, ports.values()) if finding]
    yield from found
    if not found:
        asked = ", ".join(map(str, ports))
        yield Finding(NOTE, "servers", f"none on the ports {asked}", "to use one, see docs/serving.md")


def _server(port: int, who: str) -> Finding | None:
    about, address = f"port {port}", f"http://127.0.0.1:{port}/v1"
    try:
        socket.create_connection(("127.0.0.1", port), _SERVER_SECONDS).close()
    except OSError:
        return None
    try:
        models = served_models.list_models(address, _SERVER_SECONDS)
    except ImportError as error:
        return Finding(NOTE, about, f"something listens, {who} by default; {error}", install_command("serve"))
    except ReasonerError as error:
        return Finding(NOTE, about, str(error)[:_LONGEST], "only needed to ask this server")
    if not models:
        return Finding(NOTE, about, f"{_kind(models, who)} serves no model", "load a model there")
    names = [model.name for model in models]
    told = ", ".join(names[:_NAMES_TOLD]) + (f" and {len(names) - _NAMES_TOLD} more" if names[_NAMES_TOLD:] else "")
    likely = min(models, key=lambda model: (model.vision is False, model.dialect is None, model.thinks))
    return Finding(OK, about, f"{_kind(models, who)}: {told}", f"--server {address} --served-model {likely.name}")


def _kind(models: list[served_models.ServedModel], who: str) -> str:
    """Return the kind of a server, as its list tells it, or else its port."""
    return models[0].server if models and models[0].server != served_models.UNKNOWN else who


def of_default(best: KnownCheckpoint | None) -> Finding:
    """Return the checkpoint of a run for which the user names none.

    Args:
        best: the recommended checkpoint.
    """
    name, why = default_checkpoint.find()
    if name == NANO:
        return Finding(NOTE, "default", f"{name}: {why}", messages.nano_in_a_terminal(best.name if best else None))
    return Finding(OK, "default", f"{name}: {why}", f"{default_checkpoint.VARIABLE}=... chooses another")
