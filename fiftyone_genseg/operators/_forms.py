"""What forms share: a problem, what is typed for a path or a name, and which referring examples are meant."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import fiftyone as fo
from fiftyone.operators import types
from genseg_hub import checkpoints
from genseg_hub.checkpoints.catalog import EMBEDDED, KNOWN
from genseg_hub.errors import CheckpointError
from genseg_hub.reasoners import serving
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from fiftyone_genseg import fields, training_runs

DEFAULT_TRUTH = "ground_truth"
SERVER_KEY = "OPENAI_API_KEY"
_LONGEST = 500  # characters of a message: what was typed may be longer


def show_problem(inputs: types.Object, problem: str) -> None:
    """Show why a form cannot be sent, and keep it from being sent."""
    problem = problem if len(problem) <= _LONGEST else f"{problem[:_LONGEST]} ..."
    shown = inputs.view("problem", types.Error(label=problem))
    shown.invalid = True
    shown.error_message = problem


def sentence(error: Exception) -> str:
    """What an error says, as a sentence."""
    text = str(error).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def path(text: str) -> Path:
    """What was typed as a path. There need not be a file, but the file system can be asked for one.

    Raises:
        ValueError: for another's home, a name that is too long or has characters that no name has, and what may not be
            looked at.
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


def check_source(source: str, or_else: str) -> None:
    """Raise ValueError unless this names a folder that `Dataset.save_to_disk` wrote, or may be a Hub dataset.

    Args:
        or_else: what else it could have been.
    """
    from datasets import config

    folder, name = path(source), source.partition(":")[0]
    if folder.is_dir():
        if (folder / config.DATASETDICT_JSON_FILENAME).is_file():
            raise ValueError(f"{source} holds several splits: name the folder of one of them")
        if not (folder / config.DATASET_STATE_JSON_FILENAME).is_file():
            raise ValueError(f"{source} is not a folder that `save_to_disk` wrote")
        return
    try:
        validate_repo_id(name)
    except HFValidationError:
        name = ""
    if "/" not in name:
        raise ValueError(f"{source!r} is neither {or_else}, nor a folder, nor a Hub dataset (owner/name)")


def check_checkpoint(name: str, with_reasoner: bool = True) -> None:
    """Raise CheckpointError unless this may be a Hub id, or names a checkpoint that is here; asks no network.

    Args:
        with_reasoner: False where a server may have it.
    """
    checkpoints.check_name(name)
    reasoner, segmenter = checkpoints.split_segmenter(name)
    bare, revision = checkpoints.split_revision(reasoner)
    if revision and (bare in EMBEDDED or path(bare).is_dir()):
        raise CheckpointError(f"{bare} is on this disk and has no revisions: leave @{revision} out")
    if bare not in EMBEDDED and path(bare).is_dir():
        checkpoints.check_folder(path(bare), bare, with_reasoner)
    if segmenter and (folder := checkpoints.segmenter_folder(segmenter)):
        checkpoints.check_segmenter(folder)


def checkpoint_choices() -> types.AutocompleteView:
    """Known names and the checkpoints that were trained here; any other may be typed."""
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
    """A choice among values, which are shown as they are where `names` has no other words for them."""
    view = types.DropdownView()
    for value in values:
        view.add_choice(value, label=(names or {}).get(value, value))
    return view


def ask_for_server(inputs: types.Object, whose: str) -> None:
    """Ask for the address of a server. Its key is no part of a form, which is kept with the run.

    Args:
        whose: which reasoners are asked there, as a sentence.
    """
    inputs.str(
        "server",
        label="Server",
        description=f"Address of an OpenAI-compatible server, such as http://localhost:8000/v1. {whose} "
        f"Its key is the secret {SERVER_KEY}",
        required=False,
    )


def server(params: dict) -> str | None:
    """The address that a form has, if it has one. Raises ValueError for what is no address."""
    typed = str(params.get("server") or "").strip()
    return serving.checked_address(typed) if typed else None


def ask_for_examples(ctx, inputs: types.Object) -> None:
    """Ask where the true masks and the expressions are; a slice that a panel chose is given in `pairs`."""
    inputs.str("gt_field", label="Ground truth", default=DEFAULT_TRUTH)
    inputs.str(
        "expression_field",
        label="Expressions",
        description="A sample field; empty for `expression`, or else the ground truth's attribute of that name",
        required=False,
    )
    pairs = ctx.params.get("pairs")
    if pairs is not None:
        inputs.view("what", types.Notice(label=f"{len(pairs):,} expressions of the chosen slice"))


def examples_problem(ctx) -> str | None:
    """Why there can be no referring examples where the form says, as a sentence."""
    truth, expressions = ctx.params.get("gt_field") or DEFAULT_TRUTH, ctx.params.get("expression_field")
    if getattr(ctx.dataset.get_field(truth), "document_type", None) is not fo.Detections:
        return f"The ground truth field {truth!r} holds no Detections."
    if expressions and ctx.dataset.get_field(expressions) is None:
        return f"There is no field {expressions!r}."
    if ctx.params.get("pairs") is None:
        try:
            fields.check_view(ctx.target_view())
        except ValueError as error:
            return sentence(error)
    return None


def examples_asked_for(ctx) -> dict[str, Any]:
    """The form's answers, as the arguments of `export.examples` and `export.export`."""
    from fiftyone_genseg.fields import default_expression_field

    truth, pairs = ctx.params.get("gt_field") or DEFAULT_TRUTH, ctx.params.get("pairs")
    return {
        "view": ctx.dataset if pairs is not None else ctx.target_view(),
        "gt_field": truth,
        "expression_field": ctx.params.get("expression_field") or default_expression_field(ctx.dataset, truth),
        "pairs": None if pairs is None else {tuple(pair) for pair in pairs},
    }
