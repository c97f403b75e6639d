"""Parts that forms share: problems, typed paths and names, choices, examples."""

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

from fiftyone_genseg import default_checkpoint, fields, labels, messages, training_runs
from fiftyone_genseg.datasets import request as examples

SERVER_KEY = "OPENAI_API_KEY"
HUB_TOKEN = "HF_TOKEN"
DEVICES = ("auto", "cpu", "cuda", "mps")
_LONGEST = 500  # characters of a message: the typed text may be longer


def target_view(ctx) -> fo.DatasetView | None:
    """Return the samples that a form is about, each by itself; None without a dataset.

    A grouped dataset gives the samples of the slice that the App shows. Dynamic groups give all their samples.
    """
    if ctx.dataset is None:
        return None
    return fields.flat(ctx.target_view(require_flat=ctx.dataset.media_type == fom.GROUP))


def show_problem(inputs: types.Object, problem: str | None, untouched: bool = False) -> None:
    """Show why a form cannot be sent, and keep it from being sent.

    The text goes first, so that the user sees it.

    Args:
        inputs: the form, still empty.
        problem: a sentence; None if the form can be sent.
        untouched: the user has filled in nothing yet: the sentence is advice, and no error.
    """
    if problem is None:
        return
    problem = problem if len(problem) <= _LONGEST else f"{problem[:_LONGEST]} ..."
    shown = inputs.view("problem", (types.Notice if untouched else types.Error)(label=problem))
    shown.invalid = True
    shown.error_message = problem  # also where one hovers over the button that cannot be pressed


def unusable(samples: fo.DatasetView | None) -> str | None:
    """Return, as a sentence, why the samples suit no form; None if they suit some.

    The forms in question ask for masks or expressions.
    """
    if samples is None:
        return "Open a dataset first."
    if not len(samples):
        return "There are no samples in this view: clear the filters."
    try:
        fields.check_view(samples)
    except ValueError as error:
        return messages.sentence(error)
    return None


def alone(title: str, problem: str) -> types.Property:
    """Return a form that has nothing but the reason why it cannot work."""
    inputs = types.Object()
    show_problem(inputs, problem)
    return types.Property(inputs, view=types.View(label=title))


def mask_fields(samples: fo.Dataset | fo.DatasetView | None) -> list[str]:
    """Return the fields of Detections, without the boxes of answers."""
    return fields.mask_fields(samples)


def about_nano(samples: fo.DatasetView | None, checkpoint: str | None) -> str:
    """Return advice if nano would get photographs; "" otherwise.

    The advice names other checkpoints. Nano counts as chosen by the user if another checkpoint is the default.

    Args:
        samples: the samples of the form; None without a dataset.
        checkpoint: as the form has it.
    """
    if (checkpoint or "").partition("+")[0] != NANO or samples is None or fields.is_rendered(samples):
        return ""
    return messages.NANO_IN_A_FORM if default_checkpoint.find().name == NANO else ""


def result_fields(samples: fo.DatasetView | None) -> list[str]:
    """Return the fields of masks that "Referring segment" wrote."""
    return [name for name in mask_fields(samples) if samples and samples.get_field(labels.responses_field(name))]


def text_of(value: Any) -> str:
    """Return a path as text: as it was typed, or as the App's file explorer gives it."""
    if isinstance(value, Mapping):
        value = value.get("absolute_path") or value.get("path")
    return str(value or "").strip()


def ask_for_path(ctx, inputs: types.Object, name: str, label: str, description: str, folder: bool) -> None:
    """Ask for a file or folder in the App's file explorer.

    The file lies on the machine that runs FiftyOne. A path that a caller gives as text is shown, and can be changed, as
    text.

    Args:
        ctx: FiftyOne's context of the form.
        inputs: the form.
        name: name of the property; see `text_of` for its value.
        label: above the field.
        description: below the label.
        folder: choose a folder instead of a file.
    """
    asked: dict[str, Any] = {"label": label, "description": description, "required": True}
    if isinstance(ctx.params.get(name), str):
        inputs.str(name, **asked)
    else:
        view = types.FileExplorerView(label=label, description=description, choose_dir=folder)
        inputs.file(name, view=view, **asked)


def path(text: str) -> Path:
    """Return a text as a path that the file system accepts; no file need be there.

    Raises:
        ValueError: the path names the home of an unknown user, this process may not read it, or the file system takes
            no such name.
    """
    try:
        found = Path(text).expanduser()
        found.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{text!r} cannot be used as a path: {why}; choose another") from error
    return found


def check_new_folder(folder: Path) -> None:
    """Raise ValueError unless a folder is there for an export, or can be made."""
    from fiftyone_genseg.datasets.export import is_free

    if not is_free(folder):
        raise ValueError(f"{folder} exists and is not an empty folder; choose another")
    above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"{folder} cannot be made: {above} is no folder that may be written to")


def checkpoint_choices() -> types.AutocompleteView:
    """Return the checkpoints that were trained here, and known names.

    Any other name may be typed.
    """
    view = trained_choices()
    for known in KNOWN:
        where = "on this disk" if checkpoints.is_on_disk(known.name) else "will be downloaded"
        view.add_choice(
            known.name,
            label=f"{known.name} ({known.parameters} parameters, {where})",
            description=f"needs {known.needs}",
        )
    return view


def trained_choices() -> types.AutocompleteView:
    """Return the checkpoints that were trained here; any other folder may be typed."""
    view = types.AutocompleteView(allow_user_input=True)
    for name, folder in training_runs.trained().items():
        view.add_choice(str(folder), label=f"{name} (trained here)", description=str(folder))
    return view


def suggestions(values: Iterable[str]) -> types.AutocompleteView:
    """Return values to choose from; any other may be typed."""
    view = types.AutocompleteView(allow_user_input=True)
    for value in values:
        view.add_choice(value, label=value)
    return view


def dropdown(values: Iterable[str], names: Mapping[str, str] | None = None) -> types.DropdownView:
    """Return a choice among values; `names` has other words for some of them."""
    names = names or {}
    view = types.DropdownView(placeholder=names.get("", ""))  # the App shows no label for an empty value
    for value in values:
        view.add_choice(value, label=names.get(value, value))
    return view


def ask_for_server(inputs: types.Object, whose: str, address: str | None = None) -> None:
    """Ask for the address of a server.

    The server's key is no part of a form, because a run keeps its form.

    Args:
        inputs: the form.
        whose: which reasoners are asked there, as a sentence.
        address: address that the form begins with.
    """
    inputs.str(
        "server",
        default=address,
        label="Server",
        description=f"Address of an OpenAI-compatible server, such as http://localhost:8000/v1. {whose} "
        f"Its key is the secret {SERVER_KEY}",
        required=False,
    )


def ask_for_segmenter(inputs: types.Object, whose: str = "") -> None:
    """Ask for the segmenter of a model that only a server knows.

    Args:
        inputs: the form.
        whose: whose segmenter it is, as a sentence.
    """
    described = "A Hub id such as facebook/sam2.1-hiera-tiny, or the absolute path of a folder. Empty for SAM 2.1 large"
    inputs.str("segmenter", label="Segmenter", description=f"{whose} {described}".strip(), required=False)


def ask_for_model_options(inputs: types.Object, params: Mapping[str, Any]) -> None:
    """Ask for the options of `genseg_hub.options`, behind a switch.

    The Hub's token is no part of a form.

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


def ask_for_truth(inputs: types.Object, samples: fo.DatasetView | None) -> None:
    """Ask for the field of the true masks."""
    masks = mask_fields(samples)
    wanted = [name for name in (fields.GROUND_TRUTH, fields.KEPT, *fields.truth_fields(samples)) if name in masks]
    default = next(iter([*wanted, *masks]), fields.GROUND_TRUTH)
    description = "Detections with masks; a sample without any has no target"
    inputs.enum("gt_field", masks, label="Ground truth", description=description, default=default, view=dropdown(masks))


def automatic_expressions(gt_field: str) -> str:
    """Return the default source of expressions, in words."""
    if gt_field == fields.KEPT:
        return f"the field `{fields.KEPT_EXPRESSIONS}`"
    return "the field `expression`, else the ground truth's attribute `expression`"


def ask_for_examples(ctx, inputs: types.Object) -> None:
    """Ask for the fields of the true masks and of the expressions.

    A slice that a panel chose is given in `pairs`.
    """
    view = target_view(ctx)
    request = examples.ExamplesRequest.from_params(view, ctx.params)
    count, samples = fields.count_kept(view)
    if count and request.pairs is None:
        choices = types.RadioGroup()
        kept = f"Kept answers ({count:,} expressions on {samples:,} samples)"
        choices.add_choice(examples.KEPT, label=kept, description="Answers that people kept in the panel Ask")
        if fields.truth_fields(view) or request.gt_field != fields.KEPT:
            choices.add_choice(examples.FIELD, label="A ground truth field")
        default = examples.KEPT if request.gt_field == fields.KEPT else examples.FIELD
        inputs.enum("examples", choices.values(), label="Examples", default=default, view=choices)
        if request.gt_field == fields.KEPT:
            return
    ask_for_truth(inputs, view)
    sources = dropdown(["", *fields.expression_fields(view)], {"": automatic_expressions(request.gt_field)})
    inputs.enum("expression_field", sources.values(), label="Expressions", default="", view=sources)
    pairs = ctx.params.get("pairs")
    if pairs is not None:
        inputs.view("what", types.Notice(label=f"{len(pairs):,} expressions of the chosen slice"))


def filled(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a form's values.

    A cleared checkpoint is the default one, or with a server the server's own model.
    """
    filled = {name: value for name, value in params.items() if value is not None}
    if "checkpoint" in params and not params["checkpoint"]:
        filled["checkpoint"] = "" if filled.get("server") else default_checkpoint.find().name
    return filled
