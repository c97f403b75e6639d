"""Choose, write and score the weights in the folder `best/` of a GRPO run.

The weights that the run starts from take part in the contest, if `eval_on_start` has scored them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import transformers
import yaml
from accelerate.utils import gather_object
from genseg_hub import GenSegR1, checkpoints
from genseg_hub.checkpoints.fingerprint import identify
from genseg_hub.evaluation import predictions, scores
from genseg_hub.figures import NAMES
from genseg_hub.options import ReasonerOptions
from genseg_hub.publishing.writing import origin, written_checkpoint
from genseg_hub.referring_dataset import from_dataset
from genseg_hub.schema import Failure, Prediction, ReferringExample
from genseg_hub.whole import write_text
from transformers.trainer_utils import get_last_checkpoint

from genseg_training import curves
from genseg_training.export import write
from genseg_training.trainer import EVALUATIONS

BEST = "best"
HELD_OUT, START = "evaluation/held_out.json", "evaluation/start.json"


@dataclass(frozen=True)
class Choice:
    """Weights that a run gives as its best.

    Attributes:
        folder: folder of the weights: `checkpoint-N`, or the start's.
        step: step of the weights; 0 for the start.
        note: message for the user if the start is better than all checkpoints; "" otherwise.
    """

    folder: Path
    step: int
    note: str = ""


@dataclass(frozen=True)
class Writer:
    """Writer of `best/` of a run.

    Attributes:
        output: the run's folder.
        start: checkpoint that the run starts from.
        options: how the result is to be loaded.
        recipe: options of the run that differ from their defaults.
        metric: figure that decides, such as "miou".
        dtype: dtype of the weights and of loading them; None for float32, loaded as the device prefers.
        datasets: Hub ids of the datasets that the run trains on.
        scored_on: the split of a Hub dataset that is scored, as a report states it; empty for other examples.
    """

    output: Path
    start: checkpoints.Checkpoint
    options: ReasonerOptions
    recipe: dict[str, Any]
    metric: str
    dtype: str | None = None
    datasets: tuple[str, ...] = ()
    scored_on: Mapping[str, Any] = field(default_factory=dict)

    def choose(self, state: transformers.TrainerState) -> Choice:
        """Return the best weights so far; without evaluations, the last saved ones.

        Args:
            state: state of the trainer.
        """
        folder = Path(state.best_model_checkpoint or get_last_checkpoint(str(self.output)) or "")
        name = f"eval_{self.metric.removeprefix('eval_')}"
        before = [entry[name] for entry in state.log_history if entry.get("step") == 0 and name in entry]
        if before and state.best_metric is not None and before[0] > state.best_metric:
            label = NAMES.get(name.removeprefix("eval_"), name)
            return Choice(
                self.start.reasoner,
                0,
                f"no checkpoint beats the start: {label} {before[0]:.4f} before the training, "
                f"{state.best_metric:.4f} at best after it ({folder.name}). {BEST}/ holds the start's weights",
            )
        return Choice(folder, int(folder.name.rpartition("-")[2]))

    def write(self, state: transformers.TrainerState) -> Path:
        """Write the best weights so far with recipe, log and figures; return the folder.

        The figures are the policy's during the training, until `evaluate` replaces them.

        Args:
            state: state of the trainer.
        """
        folder, choice = self.output / BEST, self.choose(state)
        with written_checkpoint(folder) as new:
            segmenter = self.start.segmenter_id or self.start.segmenter
            options = replace(self.options, dtype=self.dtype) if self.dtype else self.options
            write(choice.folder, new, segmenter, origin(self.start), self.dtype or "auto", options, self.datasets)
            (new / "recipe.yaml").write_text(yaml.safe_dump(self.recipe, sort_keys=False))
            (new / "logs").mkdir()
            (new / "logs" / "grpo.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in state.log_history))
            curves.draw(state.log_history, new / "curves.png")
            marks = {HELD_OUT: {"start_won": True} if choice.note else {}}
            marks |= {} if choice.note else {START: {"start": True}}
            for name, mark in marks.items():
                report = self.output / EVALUATIONS / f"step-{0 if name == START else choice.step:06d}.json"
                if report.is_file():
                    figures = json.loads(report.read_text()) | mark | dict(self.scored_on)
                    write_text(new / name, json.dumps(figures, indent=2) + "\n")
        return folder


def evaluate(
    folder: Path,
    held_out: datasets.Dataset,
    name: str,
    step: int,
    device: str,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    scored_on: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Score `best/` as `GenSegR1.from_pretrained` loads it, and replace its report.

    The processes divide the examples. Each process appends its answers at once to a file in `evaluations/best-step-N/`
    beside `best/`, so that a killed evaluation goes on after its last answer. If every example has its answer, no model
    is loaded.

    Args:
        folder: folder of the checkpoint.
        held_out: referring examples with masks.
        name: name of the examples, for the report.
        step: step of the weights.
        device: device of this process.
        batch_size: expressions answered at once.
        rank: rank of this process.
        world: number of processes.
        scored_on: see `Writer`.

    Returns:
        The report in the first process, None in the others.
    """
    settings = json.loads((folder / checkpoints.SETTINGS_FILE).read_text())
    stored = settings.get("dtype", "as_the_device_prefers")
    mine = held_out.shard(world, rank, contiguous=True)
    asked = [identify(str(folder))["checksum"], [*mine["example_id"]], [*mine["expression"]]]
    about = hashlib.sha256(json.dumps(asked).encode()).hexdigest()  # other weights and examples have other files
    kept = f"{folder.name}-step-{step:06d}-{stored}"
    answers = folder.parent / EVALUATIONS / kept / f"{rank}_of_{world}-{about[:12]}.jsonl"
    known = _answered(answers)
    open_ = [place for place in range(len(mine)) if "failure" in known.get(place, {"failure": ""})]
    if open_:
        model = GenSegR1.from_pretrained(str(folder), device=device)
        places = iter(open_)
        answers.parent.mkdir(parents=True, exist_ok=True)
        with answers.open("a", encoding="utf-8") as stream:

            def keep(example: ReferringExample, result: Prediction | Failure, row: dict[str, Any]) -> None:
                line = {"place": next(places)} | predictions.to_line(example, result)
                known[line["place"]] = line
                stream.write(predictions.to_json(line) + "\n")
                stream.flush()

            scores.evaluate(model, from_dataset(mine.select(open_)), batch_size, keep)
        del model
    measured = scores.Scores()
    for place, example in enumerate(from_dataset(mine)):
        measured.add(example, predictions.from_line(known[place]))
    first, *others = gather_object([measured])
    for other in others:
        first.merge(other)
    if rank:
        return None
    report = {"benchmark": name, "step": step, "as_loaded": True, "start_won": step == 0} | first.compute()
    report |= scored_on or {}
    write_text(folder / HELD_OUT, json.dumps(report, indent=2) + "\n")
    return report


def _answered(file: Path) -> dict[int, dict[str, Any]]:
    """Return the lines of a file by their place.

    A line that a kill cut short is removed.
    """
    if not file.is_file():
        return {}
    whole, _, torn = file.read_bytes().rpartition(b"\n")
    if torn:
        write_text(file, whole.decode() + "\n" if whole else "")
    return {line["place"]: line for line in map(json.loads, whole.decode().splitlines())}
