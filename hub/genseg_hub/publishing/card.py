"""The model card of a checkpoint folder: what the folder says about itself, with metadata that the Hub displays."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import huggingface_hub as hub
import yaml
from huggingface_hub import errors
from huggingface_hub.utils import validate_repo_id

from genseg_hub import checkpoints
from genseg_hub.checkpoints.catalog import EMBEDDED, KNOWN
from genseg_hub.evaluation.metrics import NAMES

LICENSE = "apache-2.0"
TASK = "image-segmentation"
METRICS = ("ciou", "miou", "target_miou", "n_acc", "t_acc", "pr@0.5", "pr@0.7", "pr@0.9")


def card(folder: Path, repo_id: str) -> hub.ModelCard:
    """Describe a checkpoint; makes no request.

    A README.md in the folder keeps its text and its metadata; tags and what it does not have are added, and the figures
    of `evaluation/` replace those of its metadata.

    Args:
        folder: a checkpoint folder with, where there are such, evaluation/*.json, recipe.yaml and curves.png.
        repo_id: owner/name under which it is to be found.

    Raises:
        OSError, ValueError, KeyError, TypeError, yaml.YAMLError: files that cannot be read as what they should be.
    """
    settings = _settings(folder)
    reports = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("evaluation/*.json"))}
    metadata: dict[str, Any] = {
        "library_name": "fiftyone-genseg",
        "pipeline_tag": TASK,
        "tags": ["genseg-r1", "referring-segmentation", "reasoning-segmentation", "sam2", "arxiv:2602.09701"],
    }
    base_model = settings.get("base_model")
    if base_model is None or base_model in {known.name for known in KNOWN}:
        metadata["license"] = LICENSE
    if base_model and _is_hub_id(base_model):
        metadata["base_model"] = base_model
    readme = folder / "README.md"
    if readme.is_file():
        made = hub.ModelCard(readme.read_text(encoding="utf-8"))
    else:
        header = hub.ModelCardData(**metadata).to_yaml()
        made = hub.ModelCard(f"---\n{header}\n---\n{_text(folder, repo_id, settings, reports)}")
    for key, value in metadata.items():
        if not made.data.get(key):
            made.data[key] = value
    made.data["tags"] = list(dict.fromkeys([*made.data["tags"], *metadata["tags"]]))
    if reports:
        made.data["model_name"] = repo_id.split("/")[-1]
        made.data["eval_results"] = [result for name, report in reports.items() for result in _results(name, report)]
    return made


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / checkpoints.SETTINGS_FILE
    return json.loads(file.read_text()) if file.is_file() else {}


def _is_hub_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except errors.HFValidationError:
        return False
    return name.count("/") == 1 and not Path(name).exists()


def _results(name: str, report: dict[str, Any]) -> list[hub.EvalResult]:
    """A report as the Hub's model-index wants it; figures that are undefined for the benchmark are left out."""
    return [
        hub.EvalResult(
            task_type=TASK,
            task_name="Referring segmentation",
            dataset_type=re.sub(r"[^a-z0-9.]+", "-", report["benchmark"].lower()).strip("-"),
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


def _text(folder: Path, repo_id: str, settings: dict[str, Any], reports: dict[str, dict[str, Any]]) -> str:
    name = repo_id.split("/")[-1]
    sections = [
        f"# {name}",
        "A checkpoint of fiftyone-genseg, the open implementation of GenSeg-R1 ([arXiv 2602.09701]"
        "(https://arxiv.org/abs/2602.09701)): words and an image become masks. These are not the weights of the "
        "paper's authors, and the figures below are this checkpoint's own.",
        "## Use",
        "With fiftyone-genseg installed (`pip install .` in its repository):",
        "```python\n"
        "from genseg_hub import GenSegR1\n\n"
        f'model = GenSegR1.from_pretrained("{repo_id}")\n'
        'mask = model.segment("photo.jpg", "the person on the left").mask  # bool[H, W]\n'
        "```",
        f"On the command line: `genseg segment photo.jpg 'the person on the left' --model {repo_id}`; in FiftyOne: the "
        "operator *Referring segment*.",
    ]
    if reports:
        sections += ["## Figures", _table(reports), _columns()]
        commands = [f"{report['command']} --model {repo_id}" for report in reports.values() if "command" in report]
        if commands:
            sections.append("```bash\n" + "\n".join(commands) + "\n```")
    sections += ["## Training", *_training(folder, settings)]
    sections += ["## Limits", _limits(settings, reports)]
    sections += [
        "## Citation",
        "The method is that of GenSeg-R1, [arXiv:2602.09701](https://arxiv.org/abs/2602.09701).",
    ]
    return "\n\n".join(sections) + "\n"


def _table(reports: dict[str, dict[str, Any]]) -> str:
    rows = [
        "| benchmark | policy | n | " + " | ".join(NAMES[metric] for metric in METRICS) + " | parse failures |",
        "|---|---|---:|" + "---:|" * (len(METRICS) + 1),
    ]
    for report in reports.values():
        step = f" (step {report['step']})" if "step" in report else ""
        figures = [report.get(metric) for metric in METRICS]
        cells = ["-" if figure is None else f"{figure:.3f}" for figure in figures]
        failures = report.get("parse_failures")
        cells.append("-" if failures is None else f"{failures:.2%}")
        rows.append(f"| {report['benchmark']}{step} | {report['policy']} | {report['n']} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _columns() -> str:
    return (
        "mIoU is over all expressions, target mIoU over those that refer to something; N-acc is the share of no-target "
        "expressions answered with an empty list, T-acc that of the others answered with something; Pr@X the share "
        "with an IoU of at least X. The policy says how expressions without a target count. Files: `evaluation/`."
    )


def _training(folder: Path, settings: dict[str, Any]) -> list[str]:
    sections = []
    base_model = settings.get("base_model")
    if base_model and (base_model in EMBEDDED or _is_hub_id(base_model)):
        sections.append(f"Started from `{base_model}`.")
    recipe = folder / "recipe.yaml"
    if recipe.is_file():
        text = recipe.read_text(encoding="utf-8").strip()
        yaml.safe_load(text)  # a card with a recipe that cannot be read helps nobody
        sections.append(f"Recipe (`recipe.yaml`), for `genseg-train`:\n\n```yaml\n{text}\n```")
    if list(folder.glob("logs/*.jsonl")):
        sections.append("What was logged at each step is in `logs/`.")
    if (folder / "curves.png").is_file():
        sections.append("![training curves](curves.png)")
    if versions := settings.get("versions"):
        sections.append("Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items() if version))
    return sections or ["The folder that was published does not say how it was trained."]


def _limits(settings: dict[str, Any], reports: dict[str, dict[str, Any]]) -> str:
    limits = ["Masks and the reasoning before them can be wrong; no figure above says how it does on other images."]
    if not reports:
        limits = ["It was published without figures: evaluate it before use."]
    if settings.get("base_model") in EMBEDDED or any(
        report["benchmark"].lower().startswith("refscenes") for report in reports.values()
    ):
        limits.append("RefScenes are rendered scenes of simple shapes: figures on them say nothing about photographs.")
    if settings.get("base_model") in EMBEDDED:
        limits.append("The model behind it, `nano`, knows such shapes and nothing else.")
    return " ".join(limits)
