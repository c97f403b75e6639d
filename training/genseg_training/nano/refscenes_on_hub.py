"""Publish RefScenes on the Hub: its files, its card, and the push.

data/val-*.parquet, data/test-*.parquet    the examples, with their images
README.md                                  the card
eval.yaml                                  the splits as tasks of a benchmark, for `.eval_results` of checkpoints
"""

from __future__ import annotations

import io
from pathlib import Path, PurePosixPath

import datasets
import huggingface_hub as hub
import yaml
from genseg_hub.publishing import commits
from genseg_hub.referring_dataset import to_dataset

from genseg_training.nano.expressions import EXPRESSION_KINDS
from genseg_training.nano.refscenes import SPLITS, VERSION, refscenes
from genseg_training.nano.scenes import COLORS, HELD_OUT, KINDS

ATTRIBUTES = datasets.Features({"kind": datasets.Value("string"), "held_out": datasets.Value("bool")})
_DATA = "data"
_TEMPLATE = Path(__file__).with_name("refscenes_card.md.jinja")


def push(
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    dry_run: bool = False,
    token: str | None = None,
) -> commits.Push:
    """Publish RefScenes as a dataset on the Hub, in one commit with its card.

    The scenes are rendered first, in this process. The same RefScenes gives the same files and then no new commit.

    Args:
        repo_id: owner/name; a missing repository is created.
        private: whether the repository is private. An existing public repository is refused.
        revision: branch; a missing branch is created. The main branch by default.
        dry_run: only return the files that would be sent. Make no request; no token is needed.
        token: token for the Hub; by default the token of `hf auth login` or HF_TOKEN.

    Raises:
        PublishError: the name, the rights, the network, the Hub or a concurrent push does not allow it.
    """
    commits.check_id(repo_id)
    if not dry_run:
        commits.find_token(token)
    target = commits.Target(repo_id, "dataset", private, revision)
    return commits.push(target, files(repo_id), _is_data, f"RefScenes {VERSION}", token, dry_run)


def files(repo_id: str) -> dict[str, Path | bytes]:
    """Return path in the repository -> content.

    Args:
        repo_id: owner/name, which the card names.
    """
    made: dict[str, Path | bytes] = {}
    counts: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        examples = to_dataset(refscenes(split), ATTRIBUTES)
        stream = io.BytesIO()
        examples.to_parquet(stream)
        made[f"{_DATA}/{split}-00000-of-00001.parquet"] = stream.getvalue()
        counts[split] = {"expressions": len(examples), "images": len(set(examples["image_id"]))}
    made["README.md"] = str(_card(repo_id, counts)).encode()
    made["eval.yaml"] = yaml.safe_dump(_benchmark(), sort_keys=False).encode()
    return made


def _card(repo_id: str, counts: dict[str, dict[str, int]]) -> hub.DatasetCard:
    metadata = hub.DatasetCardData(
        pretty_name=f"RefScenes {VERSION}",
        license="apache-2.0",
        language="en",
        task_categories=["image-segmentation"],
        size_categories="1K<n<10K",
        tags=["referring-segmentation", "synthetic", "genseg-r1"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"{_DATA}/{split}-*.parquet"} for split in SPLITS],
            }
        ],
    )
    return hub.DatasetCard.from_template(
        metadata,
        template_path=str(_TEMPLATE),
        repo_id=repo_id,
        version=VERSION,
        counts=counts,
        kinds=EXPRESSION_KINDS,
        shapes=KINDS,
        colors=list(COLORS),
        held_out=sorted(" ".join(pair) for pair in HELD_OUT),
    )


def _benchmark() -> dict[str, object]:
    """Return `eval.yaml`, by which the Hub collects results on these splits."""
    return {
        "name": f"RefScenes {VERSION}",
        "description": "Referring segmentation of rendered scenes with exact masks: mIoU of the masks.",
        "evaluation_framework": "fiftyone-genseg",
        "tasks": [{"id": split, "config": "default", "split": split} for split in SPLITS],
    }


def _is_data(path: PurePosixPath) -> bool:
    return path.parts[0] == _DATA and path.suffix == ".parquet"
