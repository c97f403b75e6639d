"""The known checkpoints as models of FiftyOne's model zoo.

FiftyOne finds them by `zoo/manifest.json` and calls the functions below by way of `zoo/__init__.py`.
`python -m fiftyone_genseg.zoo > zoo/manifest.json` writes the manifest anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fiftyone.operators import types
from genseg_hub import checkpoints
from genseg_hub.checkpoints.catalog import EMBEDDED, KNOWN, KnownCheckpoint
from genseg_hub.errors import CheckpointError
from genseg_hub.whole import write_text

from fiftyone_genseg.fields import string_fields
from fiftyone_genseg.operators import _forms

if TYPE_CHECKING:
    from fiftyone_genseg.model import ReferringSegmentationModel

# Name of the models' source. FiftyOne imports its folder for them by this name, so it must not be a package's name.
SOURCE = "genseg-r1"
# Without fiftyone-genseg: FiftyOne would look for it on PyPI, which does not have it.
PACKAGES = ("rf-sam-2>=1.0.3", "torch>=2.11", "torchvision>=0.26", "transformers>=5.19")
_TAGS = ("segmentation", "instances", "referring", "vlm", "torch", "transformers")
_LICENCES = {"apache-2.0": "Apache 2.0", "other": "Other"}  # as FiftyOne spells them


def manifest() -> dict[str, Any]:
    """Return the contents of `zoo/manifest.json`: one model for each known checkpoint."""
    return {"name": SOURCE, "models": [_entry(known) for known in KNOWN]}


def download_model(model_name: str, model_path: str) -> None:
    """Download the newest commit of a checkpoint, and note its commit in `model_path`.

    Weights stay in the cache of huggingface_hub. FiftyOne regards the model as downloaded when the note exists.

    Args:
        model_name: as in the manifest.
        model_path: file of the note.

    Raises:
        CheckpointError: see `checkpoints.pull`; also if a local folder hides the model of the Hub.
        DiskFullError: the disk is full; there is no note.
    """
    checkpoint = checkpoints.pull(_checkpoint(model_name), newest=True)
    if checkpoint.commit is None and checkpoint.name not in EMBEDDED:
        raise CheckpointError(
            f"there is a folder {checkpoint.name} here, which hides the model of that name on the Hub; start elsewhere"
        )
    write_text(Path(model_path), json.dumps({"checkpoint": checkpoint.pinned}))


def load_model(model_name: str, model_path: str, **kwargs: Any) -> ReferringSegmentationModel:
    """Load the commit that was downloaded.

    Args:
        model_name: as in the manifest.
        model_path: the note that `download_model` made.
        **kwargs: `expression` and `expression_field` (or `prompt` and `prompt_field`) and `device` of
            `ReferringSegmentationModel`.

    Raises:
        CheckpointError: the note is not about this model; see also `GenSegR1.from_pretrained`.
    """
    from fiftyone_genseg.model import ReferringSegmentationModel

    try:
        pinned = str(json.loads(Path(model_path).read_text())["checkpoint"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _bad_note(model_name, model_path) from error
    name, at, _ = pinned.partition("@")
    if name != _checkpoint(model_name) or not (at or name in EMBEDDED):
        raise _bad_note(model_name, model_path)
    return ReferringSegmentationModel(pinned, **kwargs)


def resolve_input(model_name: str, ctx) -> types.Property:
    """Return the form of the App's operator "Apply zoo model" for this model.

    The answers become arguments of `load_model`.

    Args:
        model_name: as in the manifest.
        ctx: FiftyOne's context of the operator.
    """
    given = ctx.params.get("remote_params") or {}
    inputs = types.Object()
    expression = inputs.str(
        "expression",
        label="What to look for",
        description="One expression for all images, such as: the dog left of the bench. Or choose a field",
        required=not given.get("expression_field"),
    )
    fields = string_fields(ctx.dataset)
    if fields:
        inputs.enum(
            "expression_field",
            fields,
            label="Field of expressions",
            description="The string field that holds each sample's own expression",
            required=False,
            view=_forms.dropdown(fields),
        )
    if given.get("expression") and given.get("expression_field"):
        expression.invalid = True
        expression.error_message = "Give an expression or a field of expressions, not both."
    return types.Property(inputs)


def _checkpoint(model_name: str) -> str:
    return model_name.removeprefix(f"{SOURCE}/")


def _bad_note(model_name: str, model_path: str) -> CheckpointError:
    return CheckpointError(
        f"{model_path} does not say which commit of {model_name} was downloaded: run "
        f"foz.delete_zoo_model({model_name!r}) and load it again; the weights are kept"
    )


def _entry(known: KnownCheckpoint) -> dict[str, Any]:
    folder = EMBEDDED.get(known.name)
    files = folder.rglob("*.safetensors") if folder else ()
    return {
        "base_name": f"{SOURCE}/{known.name}",
        "base_filename": f"{known.name.replace('/', '--')}.json",
        "author": "fiftyone-genseg" if folder else known.name.partition("/")[0],
        "source": None if folder else f"https://huggingface.co/{known.name}",
        "license": _LICENCES.get(known.licence, known.licence) or None,
        "description": (
            f"Referring segmentation with {known.parameters} parameters; needs {known.needs}; "
            + ("takes words" if known.takes_words else f"dialect {known.dialect}, segmenter {known.segmenter}")
        ),
        "size_bytes": sum(file.stat().st_size for file in files) if folder else round(known.gigabytes * 1e9),
        "requirements": {"packages": list(PACKAGES), "cpu": {"support": True}, "gpu": {"support": True}},
        "tags": list(_TAGS),
    }


if __name__ == "__main__":
    print(json.dumps(manifest(), indent=2))
