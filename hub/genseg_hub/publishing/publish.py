"""Publish a checkpoint folder as one commit on the Hub, with its model card."""

from __future__ import annotations

import json
from pathlib import Path, PurePath

import jinja2
import yaml
from safetensors import SafetensorError, safe_open

from genseg_hub import checkpoints
from genseg_hub.errors import CheckpointError, PublishError
from genseg_hub.publishing import card, commits, credentials, eval_results
from genseg_hub.publishing.commits import NOTHING, Push

# Files of a checkpoint folder that are published; no other file leaves this disk.
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "segmenter/model.safetensors")
_PUBLISHED = (
    *_WEIGHTS,
    "config.json",
    "generation_config.json",
    "*processor_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    checkpoints.SETTINGS_FILE,
    "segmenter/config.json",
    "segmenter/*processor_config.json",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "recipe.yaml",
    "curves.png",
    "logs/*.jsonl",
    "evaluation/*.json",
    f"{eval_results.FOLDER}/*.yaml",
)
_CARD = "README.md"


def push(
    folder: Path | str,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    dry_run: bool = False,
    message: str | None = None,
    token: str | None = None,
) -> Push:
    """Publish a checkpoint folder in one commit, with card and figures.

    The figures are in the Hub's own form. The same commit deletes an earlier checkpoint's files that the folder does
    not have, so that nobody loads a mixture of two checkpoints. The repository's history keeps them, and files of other
    kinds stay.

    Args:
        folder: as `genseg-train export` or `GenSegR1.save_pretrained` writes it. The card and the figures are added to
            the commit, not to the folder.
        repo_id: owner/name; a missing repository is created.
        private: whether the repository is private. An existing public repository is refused.
        revision: branch; a missing branch is created. The main branch by default.
        dry_run: only return the files that would be sent. Make no request; no token is needed.
        message: message of the commit.
        token: token for the Hub; by default the token of `hf auth login` or HF_TOKEN.

    Raises:
        PublishError: the folder, the name, the rights, the network, the Hub or a concurrent push does not allow it.
    """
    commits.check_id(repo_id)
    folder = Path(folder)
    files = _files(folder, repo_id)
    target = commits.Target(repo_id, private=private, revision=revision)
    message = message or f"Checkpoint {folder.resolve().name}"
    return commits.push(target, files, is_published, message, token, dry_run)


def _files(folder: Path, repo_id: str) -> dict[str, Path | bytes]:
    """Return path in the repository -> file or content.

    Every check that needs no network comes first.
    """
    try:
        if not folder.is_dir():
            raise CheckpointError(f"there is no folder {folder}")
        settings = checkpoints.check_folder(folder, str(folder))
        _check_segmenter(folder, settings["segmenter"])
    except (CheckpointError, ValueError, KeyError) as error:
        raise PublishError(f"this is not a usable checkpoint, {NOTHING}: {error}") from error
    patterns = (*_PUBLISHED, _CARD)
    globbed = {file for pattern in patterns for file in folder.glob(pattern)}
    found = sorted(file for file in globbed if file.is_file() and not file.name.startswith("."))
    for file in found:
        if not file.resolve().is_relative_to(folder.resolve()):
            raise PublishError(f"{file} is a link that leads out of {folder}, {NOTHING}: put a copy in its place")
        if file.suffix == ".safetensors":
            _check_weights(file)
        elif secret := credentials.found_in(file.read_bytes()):
            raise PublishError(f"{file} seems to hold {secret}, {NOTHING}: take it out and revoke it")
    files: dict[str, Path | bytes] = {f.relative_to(folder).as_posix(): f for f in found}
    try:
        files[_CARD] = str(card.card(folder, repo_id)).encode()
        files |= eval_results.files(card.reports(folder))
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
        yaml.YAMLError,
        jinja2.TemplateError,
    ) as error:
        raise PublishError(f"the model card of {folder} cannot be made, {NOTHING}: {error}") from error
    return files


def _check_segmenter(folder: Path, segmenter: str) -> None:
    """Raise CheckpointError unless others can load the named segmenter.

    The segmenter must be on the Hub, or in the folder segmenter/, which is published.
    """
    if segmenter == "segmenter":
        checkpoints.check_segmenter(folder / segmenter)
    elif "/" not in segmenter or (folder / segmenter).exists():
        raise CheckpointError(f"its segmenter {segmenter!r} is neither segmenter/ nor a Hub id")


def _check_weights(file: Path) -> None:
    try:
        with safe_open(file, framework="np") as weights:
            said = json.dumps(weights.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise PublishError(
            f"{file} is truncated or damaged ({error}), {NOTHING}: write the checkpoint again"
        ) from error
    if secret := credentials.found_in(said.encode()):
        raise PublishError(f"the header of {file} seems to hold {secret}, {NOTHING}: take it out and revoke it")


def is_published(path: PurePath) -> bool:
    """Return whether a push sends a file of a checkpoint's folder.

    The folder's README.md does not count, because the card is written anew. Patterns match as in `Path.glob`: `*` stays
    within a folder.
    """
    return any(len(path.parts) == 1 + pattern.count("/") and path.match(pattern) for pattern in _PUBLISHED)
