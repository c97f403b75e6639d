"""The fields of forms in which models of a server are chosen.

FiftyOne resolves a form at each change, so the list of a server is kept for some seconds. The server is asked without a
key, because the address may be half typed. An address without a path is not asked.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from fiftyone.operators import types
from genseg_hub.errors import ReasonerError
from genseg_hub.reasoners.served_models import ServedModel, list_models
from genseg_hub.reasoners.serving import checked_address

from fiftyone_genseg.messages import sentence

_TIMEOUT = 3.0  # seconds
_KEPT = 20.0  # seconds
_SHOWN = 200  # choices


class _Listed(NamedTuple):
    """List of a server, or the reason why there is none, and its expiry."""

    models: list[ServedModel]
    problem: str
    until: float


_lists: dict[str, _Listed] = {}
_lock = threading.Lock()


def ask_for_served_model(inputs: types.Object, address: str | None, name: str | None = None) -> None:
    """Ask for the name of the model on a server; nothing without an address.

    Args:
        inputs: the form.
        address: address of the server, as far as it is typed.
        name: name that the form begins with.
    """
    if not address:
        return
    view, problem = _choices(address)
    inputs.str(
        "served_model",
        default=name,
        label="Model of the server",
        description=problem
        or "Its name on the server, which tells the dialect. Empty to ask for the form's checkpoint",
        required=False,
        view=view,
    )


def ask_for_served_models(inputs: types.Object, address: str | None) -> None:
    """Ask for the names of several models on a server.

    See `ask_for_served_model` for the arguments.
    """
    if not address:
        return
    view, problem = _choices(address)
    inputs.list(
        "served_models",
        types.String(),
        label="Models of the server",
        description=problem
        or "Their names on the server, which tell the dialects. They are asked beside the checkpoints",
        required=False,
        view=view,
    )


def _choices(address: str) -> tuple[types.AutocompleteView, str]:
    """Return the models of a server that see, and why there are none, or "".

    Models with a dialect are first.
    """
    listed = _of(address)
    view = types.AutocompleteView(allow_user_input=True)
    seeing = [model for model in listed.models if model.vision is not False]
    for model in sorted(seeing, key=lambda model: (not model.dialect, model.name))[:_SHOWN]:
        view.add_choice(model.name, label=f"{model.name} ({model.dialect})" if model.dialect else model.name)
    return view, listed.problem


def _of(address: str) -> _Listed:
    now = time.monotonic()
    with _lock:
        for old in [other for other, listed in _lists.items() if listed.until < now]:
            del _lists[old]
        if address in _lists:
            return _lists[address]
    models, problem = list[ServedModel](), ""
    try:
        if urlsplit(checked_address(address)).path:
            models = list_models(address, _TIMEOUT)
        else:
            problem = "The address usually ends in /v1; then the server's models are listed here."
    except (ReasonerError, ValueError) as error:
        problem = sentence(error)
    listed = _Listed(models, problem, time.monotonic() + _KEPT)
    with _lock:
        _lists[address] = listed
    return listed
