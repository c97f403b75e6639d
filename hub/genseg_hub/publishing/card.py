"""Model cards of checkpoint folders, with the metadata that the Hub displays."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import huggingface_hub as hub
import yaml

from genseg_hub import checkpoints
from genseg_hub.checkpoints.catalog import EMBEDDED, KNOWN
from genseg_hub.checkpoints.names import is_hub_id
from genseg_hub.figures import NAMES
from genseg_hub.markdown import as_code, as_words
from genseg_hub.publishing import eval_results

LICENSE = "apache-2.0"
TASK = "image-segmentation"
METRICS = ("ciou", "miou", "target_miou", "n_acc", "t_acc", "pr@0.5", "pr@0.7", "pr@0.9")
_TEMPLATE = Path(__file__).with_name("card.md.jinja")


def card(folder: Path, repo_id: str) -> hub.ModelCard:
    """Return the model card of a checkpoint; makes no request.

    A README.md in the folder keeps its text and its metadata. Tags and missing metadata are added, and the figures of
    `evaluation/` replace its figures.

    Args:
        folder: a checkpoint folder. It may also hold evaluation/*.json, recipe.yaml, logs/*.jsonl and curves.png.
        repo_id: owner/name of the repository that gets the card.

    Raises:
        OSError, ValueError, TypeError, AttributeError, yaml.YAMLError, jinja2.TemplateError: a file cannot be read, or
            holds something else.
    """
    settings, scored = _settings(folder), reports(folder)
    name, base_model = repo_id.split("/")[-1], settings.get("base_model")
    metadata: dict[str, Any] = {
        "library_name": "fiftyone-genseg",
        "pipeline_tag": TASK,
        "tags": ["genseg-r1", "referring-segmentation", "reasoning-segmentation", "sam2", "arxiv:2602.09701"],
    }
    if base_model is None or base_model in {known.name for known in KNOWN}:
        metadata["license"] = LICENSE
    if _is_on_hub(base_model):
        metadata["base_model"] = base_model
    if trained_on := [name for name in settings.get("datasets", []) if is_hub_id(name)]:
        metadata["datasets"] = trained_on
    readme = folder / "README.md"
    if readme.is_file():
        made = hub.ModelCard(readme.read_text(encoding="utf-8"))
    else:
        made = hub.ModelCard.from_template(
            hub.ModelCardData(**metadata),
            template_path=str(_TEMPLATE),
            name=name,
            repo_id=repo_id,
            **_facts(folder, settings, list(scored.values())),
        )
    for key, value in metadata.items():
        if not made.data.get(key):
            made.data[key] = value
    made.data["tags"] = list(dict.fromkeys([*made.data["tags"], *metadata["tags"]]))
    if scored:
        made.data["model_name"] = name
        made.data["eval_results"] = [
            result
            for file, report in scored.items()
            if not report.get("start")  # of other weights, beside which this checkpoint is to be seen
            for result in _results(file, report)
        ]
    return made


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / checkpoints.SETTINGS_FILE
    return json.loads(file.read_text()) if file.is_file() else {}


def reports(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the reports of `evaluation/` by file name, in order.

    Raises:
        OSError, ValueError, TypeError: a file cannot be read, or is no report.
    """
    found = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("evaluation/*.json"))}
    for name, report in found.items():
        for key in ("benchmark", "policy", "n"):
            if key not in report:
                raise ValueError(f"evaluation/{name}.json has no {key!r}")
    return found


def _is_on_hub(base_model: str | None) -> bool:
    """Return whether a base model is a Hub id, and not a folder of the same form."""
    return bool(base_model) and is_hub_id(str(base_model)) and not Path(str(base_model)).exists()


def _results(name: str, report: dict[str, Any]) -> list[hub.EvalResult]:
    """Return a report as the Hub's model-index wants it, without undefined figures."""
    return [
        hub.EvalResult(
            task_type=TASK,
            task_name="Referring segmentation",
            dataset_type=eval_results.dataset_id(report)
            or re.sub(r"[^a-z0-9.]+", "-", report["benchmark"].lower()).strip("-"),
            dataset_name=report["benchmark"],
            dataset_config=name,  # two reports on one benchmark stay two
            metric_type=metric,
            metric_name=NAMES[metric],
            metric_value=round(report[metric], 4),
            metric_args={"policy": report["policy"], "expressions": report["n"]},
        )
        for metric in METRICS
        if report.get(metric) is not None
    ]


def _facts(folder: Path, settings: dict[str, Any], reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the values that the template of the card reads."""
    base_model = settings.get("base_model")
    recipe = folder / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8").strip() if recipe.is_file() else None
    yaml.safe_load(text or "")  # a card with a recipe that cannot be read helps nobody
    is_nano = base_model in EMBEDDED
    ticks = max(map(len, re.findall("`+", text or "")), default=0)
    return {
        "words": as_words,
        "code": as_code,
        "fence": "`" * max(3, ticks + 1),  # which the recipe cannot end
        "reports": sorted(reports, key=lambda report: bool(report.get("start"))),
        "metrics": {metric: NAMES[metric] for metric in METRICS},
        "origin": base_model if is_nano or _is_on_hub(base_model) else None,
        "recipe": text,
        "has_logs": any(folder.glob("logs/*.jsonl")),
        "has_curves": (folder / "curves.png").is_file(),
        "update": settings.get("lora_update"),
        "versions": settings.get("versions"),
        "is_nano": is_nano,
        "is_on_scenes": is_nano or any(report["benchmark"].lower().startswith("refscenes") for report in reports),
    }
