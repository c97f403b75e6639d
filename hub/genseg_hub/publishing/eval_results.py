"""Write figures as the Hub's `.eval_results/*.yaml`.

A benchmark's leaderboard on the Hub collects these files. The Hub takes results on its own datasets only. Figures of
other examples than a split of a Hub dataset stay in the card. Format: https://huggingface.co/docs/hub/eval-results
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import huggingface_hub as hub
import yaml

from genseg_hub.checkpoints.names import is_hub_id
from genseg_hub.figures import NAMES

FOLDER = ".eval_results"
METRIC = "miou"  # the Hub takes one value per task
# Key of a report: the split of a Hub dataset whose examples were all scored, {"id": "owner/name", "task_id": "test"}.
# `eval.yaml` of a benchmark's repository names its splits as tasks.
DATASET = "dataset"


def dataset_id(report: Mapping[str, Any]) -> str | None:
    """Return the Hub dataset of a report; None for examples from elsewhere.

    Raises:
        ValueError: the report names no split of a dataset that can be on the Hub.
    """
    stated = report.get(DATASET)
    if stated is None:
        return None
    if not isinstance(stated, dict) or not is_hub_id(str(stated.get("id"))) or not stated.get("task_id"):
        raise ValueError(
            f"the report on {report['benchmark']} has {DATASET!r}: {stated!r}; expected a Hub id and a split, "
            '{"id": "owner/name", "task_id": "test"}'
        )
    return str(stated["id"])


def files(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    """Return path in the repository -> content, for reports on Hub datasets.

    Args:
        reports: reports of `card.reports`. A report of the weights before the training is left out.
    """
    made = {}
    for name, report in reports.items():
        hub_id = dataset_id(report)
        if hub_id is None or report.get("start") or report.get(METRIC) is None:
            continue
        entry = hub.EvalResultEntry(
            dataset_id=hub_id,
            task_id=str(report[DATASET]["task_id"]),
            value=round(report[METRIC], 4),
            notes=f"{NAMES[METRIC]} of {report['n']} expressions, policy {report['policy']}",
        )
        content = yaml.safe_dump(hub.eval_result_entries_to_yaml([entry]), sort_keys=False)
        made[f"{FOLDER}/{name}.yaml"] = content.encode()
    return made
