"""Parts that forms share: a problem, paths and names that are typed, choices, and the source of examples."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom
from fiftyone.operators import types
from genseg_hub import checkpoints, dialects
from genseg_hub.checkpoints.catalog import KNOWN, NANO
from genseg_hub.options import HubOptions, ReasonerOptions, ServerOptions

from fiftyone_genseg import default_checkpoint, fields, messages, training_runs

SERVER_KEY = "OPENAI_API_KEY"
HUB_TOKEN = "HF_TOKEN"
_LONGEST = 500  # characters of a message: what was typed may be longer


def target_view(ctx) -> fo.DatasetView | None:
    """Return the samples that a form is about, each by itself; None without a dataset.

    Of groups these are the samples of the slice that the App shows, of dynamic groups all samples.
    """
    if ctx.dataset is None:
        return None
    return fields.flat(ctx.target_view(require_flat=ctx.dataset.media_type == fom.GROUP))


def show_problem(inputs: types.Object, problem: str) -> None:
    """Show why a form cannot be sent, and keep it from being sent."""
    problem = problem if len(problem) <= _LONGEST else f"{problem[:_LONGEST]} ..."
    shown = inputs.view("problem", types.Error(label=problem))
    shown.invalid = True
    shown.error_message = problem


def about_nano(samples: fo.DatasetView | None, checkpoint: str | None) -> str:
    """Return what to choose instead of nano, where nano would get photographs; "" otherwise.

    Nano counts as chosen by the user where another checkpoint is the default.

    Args:
        samples: what the form is about; None without a dataset.
        checkpoint: as the form has it.
    """
    if (checkpoint or "").partition("+")[0] != NANO or samples is None or fields.is_rendered(samples):
        return ""
    return messages.NANO_IN_A_FORM if default_checkpoint.find().name == NANO else ""


def path(text: str) -> Path:
    """Return a text as a path. There need not be a file, but the file system can be asked for one.

    Raises:
        ValueError: the home of nobody, a name that is too long or has characters that no name has, or a path that may
            not be looked at.
    """
    try:
        found = Path(text).expanduser()
        found.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{text!r} cannot be used as a path: {why}") from error
    return found


def check_new_folder(folder: Path) -> None:
    """Raise ValueError unless a folder is there for an export, or can be made."""
    from fiftyone_genseg.datasets.export import is_free

    if not is_free(folder):
        raise ValueError(f"{folder} exists and is not an empty folder")
    above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"{folder} cannot be made: {above} is no folder that may be written to")


def checkpoint_choices() -> types.AutocompleteView:
    """Return known names and the checkpoints that were trained here; any other may be typed."""
    view = types.AutocompleteView(allow_user_input=True)
    for known in KNOWN:
        where = "on this disk" if checkpoints.is_on_disk(known.name) else "will be downloaded"
        view.add_choice(
            known.name,
            label=f"{known.name} ({known.parameters} parameters, {where})",
            description=f"needs {known.needs}",
        )
    for name, folder in training_runs.trained().items():
        view.add_choice(str(folder), label=f"{name} (trained here)", description=str(folder))
    return view


def dropdown(values: Iterable[str], names: Mapping[str, str] | None = None) -> types.DropdownView:
    """Return a choice among values; `names` has other words for some of them."""
    view = types.DropdownView()
    for value in values:
        view.add_choice(value, label=(names or {}).get(value, value))
    return view


def ask_for_server(inputs: types.Object, whose: str) -> None:
    """Ask for the address of a server. The server's key is no part of a form, because a run keeps its form.

    Args:
        inputs: the form.
        whose: which reasoners are asked there, as a sentence.
    """
    inputs.str(
        "server",
        label="Server",
        description=f"Address of an OpenAI-compatible server, such as http://localhost:8000/v1. {whose} "
        f"Its key is the secret {SERVER_KEY}",
        required=False,
    )


def ask_for_model_options(inputs: types.Object, params: Mapping[str, Any]) -> None:
    """Ask for the options of `genseg_hub.options`, behind a switch. The Hub's token is no part of a form.

    Args:
        inputs: the form.
        params: its values.
    """
    inputs.bool(
        "advanced",
        label="Advanced",
        description="How the checkpoint is loaded and asked",
        default=False,
        view=types.SwitchView(),
    )
    if not params.get("advanced"):
        return
    for option in (
        option for kind in (ReasonerOptions, HubOptions, ServerOptions) for option in dataclasses.fields(kind)
    ):
        choices = dialects.names() if option.name == "dialect" else option.metadata["choices"]
        asked: dict[str, Any] = {
            "label": option.name.replace("_", " ").capitalize(),
            "description": option.metadata["help"],
            "required": False,
        }
        if option.name == "token":
            continue
        if choices:
            inputs.enum(option.name, choices, view=dropdown(choices), **asked)
        elif "int" in str(option.type):
            inputs.int(option.name, min=1, **asked)
        elif "float" in str(option.type):
            inputs.float(option.name, min=0, **asked)
        elif "bool" in str(option.type):
            inputs.bool(option.name, default=False, **asked)
        else:
            inputs.str(option.name, **asked)


def ask_for_examples(ctx, inputs: types.Object) -> None:
    """Ask where the true masks and the expressions are; a slice that a panel chose is given in `pairs`."""
    inputs.str("gt_field", label="Ground truth", default=fields.GROUND_TRUTH)
    inputs.str(
        "expression_field",
        label="Expressions",
        description="A sample field; empty for `expression`, or else the ground truth's attribute of that name",
        required=False,
    )
    pairs = ctx.params.get("pairs")
    if pairs is not None:
        inputs.view("what", types.Notice(label=f"{len(pairs):,} expressions of the chosen slice"))
