"""Hard example mining: collect the examples that a checkpoint gets wrong, to train it on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from genseg_hub import GenSegR1, referring_dataset
from genseg_hub.evaluation.metrics import ReferringMetrics, measure
from genseg_hub.referring_dataset import from_dataset
from genseg_hub.schema import Failure
from genseg_hub.whole import written_folder
from tqdm.auto import tqdm

from genseg_training import data


@dataclass
class MiningArguments:
    """Options of `genseg-train mine`."""

    output_dir: str = field(metadata={"help": "New folder for the hard examples; training reads it as a source."})
    model: str = field(default="nano", metadata={"help": "Checkpoint whose failures are collected."})
    data: str = field(default="refscenes:3000", metadata={"help": "A source, as for training."})
    root: str | None = field(default=None, metadata={"help": "Folder of the official archives."})
    below: float = field(default=0.5, metadata={"help": "Mask IoU below which an example is hard."})
    batch_size: int = field(default=32, metadata={"help": "Expressions answered at once."})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:0 or mps."})
    seed: int = field(default=1, metadata={"help": "Seed of rendered scenes."})
    model_options: str = field(
        default="{}",
        metadata={"help": 'Other options of GenSegR1.from_pretrained, as JSON: {"quantization": "4bit"}.'},
    )


def mine(arguments: MiningArguments) -> None:
    """Write the hard examples of a source.

    Args:
        arguments: options of the command.

    Raises:
        ValueError: for a source or threshold that cannot be used, a folder that is not empty, or no hard example.
    """
    folder = Path(arguments.output_dir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder")
    examples = data.load_source(arguments.data, arguments.seed, arguments.root)
    model = GenSegR1.from_pretrained(arguments.model, arguments.device, **_options(arguments.model_options))
    with tqdm(total=len(examples), desc=f"failures of {arguments.model}") as progress:
        hard = hard_examples(model, examples, arguments.below, arguments.batch_size, progress.update)
    if not len(hard):
        raise ValueError(
            f"none of the {len(examples)} examples is hard for {arguments.model}: take more, or a higher --below"
        )
    with written_folder(folder) as new:
        referring_dataset.save(hard, new)
    print(f"{len(hard)} of {len(examples)} examples are hard; wrote {folder}")


def _options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except ValueError as error:
        raise ValueError(f"model_options must be a JSON object, not {text!r}: {error}") from error
    if not isinstance(options, dict):
        raise ValueError(f"model_options must be a JSON object, not {text!r}")
    return options


def hard_examples(
    model: GenSegR1,
    examples: datasets.Dataset,
    below: float = 0.5,
    batch_size: int = 32,
    on_example: Callable[[], Any] = lambda: None,
) -> datasets.Dataset:
    """Select the examples whose predicted mask has an IoU below a threshold with the true mask.

    The prediction is the model's greedy answer. Pixels of `ignore` do not count, as in evaluations. A no-target example
    is hard when anything is segmented. An example whose answer has an error, or that fails, is hard.

    Args:
        model: whose failures are collected.
        examples: with `referring_dataset.FEATURES`, and perhaps `ignore`.
        below: threshold in (0, 1].
        batch_size: expressions answered at once.
        on_example: called after each example, for a progress bar.

    Raises:
        ValueError: for a threshold outside (0, 1].
    """
    if not 0 < below <= 1:
        raise ValueError(f"the IoU below which an example is hard must lie in (0, 1], got {below}")
    metrics = ReferringMetrics()
    hard = []
    for index, (example, result) in enumerate(
        zip(from_dataset(examples), model.segment_many(from_dataset(examples), batch_size), strict=True)
    ):
        if isinstance(result, Failure) or result.response.error:
            overlap = measure(example.masks, None, answered=False, ignore=example.ignore)
        else:
            overlap = measure(example.masks, result.mask if result.masks else None, ignore=example.ignore)
        if metrics.ious(overlap).item() < below:
            hard.append(index)
        on_example()
    return examples.select(hard)
