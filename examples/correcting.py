"""Ask, correct, train and compare, without any ground truth.

docs/correcting.md explains each step.

    python examples/correcting.py              # 42 minutes on one thread of a busy machine
    python examples/correcting.py --restart    # removes the dataset and the checkpoint first

A killed script goes on when it is started again with the same options.

The script plays the person: it looks at the truth of the rendered scenes where a person looks at the image. The truth
is never stored in the dataset. The training sees only the answers that this person keeps.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from collections import Counter
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
from genseg_hub.figures import NAMES
from genseg_hub.schema import InstancePrompt, ReferringExample, decode_mask, normalize_expression
from genseg_training.nano import refscenes
from genseg_training.nano.answers import interior_points
from PIL import Image

import fiftyone_genseg
from fiftyone_genseg import labels, plugin, training_runs
from fiftyone_genseg.asking import answering, corrections
from fiftyone_genseg.cards import cards
from fiftyone_genseg.datasets.export import examples
from fiftyone_genseg.demo import rendered_dataset
from fiftyone_genseg.evaluation.slicing import comparison
from fiftyone_genseg.fields import RENDERED
from fiftyone_genseg.segmentation.engines import resident
from fiftyone_genseg.segmentation.request import SegmentRequest

DATASET, HELD_OUT, NAME = "genseg-correcting", "genseg-correcting-held-out", "corrected"
START, FIELD = "nano-sft", "asked"
SEED = 4242  # of the scenes: none of them is in RefScenes, and no training of the package has seen them
RIGHT_IOU = 0.7  # from here on the person says that a mask is right
SEGMENT = "@fiftyone-genseg/genseg/referring_segment"
Truth = dict[tuple[str, str], list[np.ndarray]]  # (image, expression) -> masks; none where nothing is meant


def _drawn(count: int) -> list[ReferringExample]:
    return list(refscenes.training_examples(count, SEED))


def _unlabelled_dataset(folder: Path, drawn: list[ReferringExample]) -> fo.Dataset:
    """Make a dataset of images with the questions to ask, and without any truth."""
    folder.mkdir(parents=True, exist_ok=True)
    images: dict[str, fo.Sample] = {}
    for example in drawn:
        if example.image_id not in images:
            path = folder.resolve() / f"{example.image_id}.png"
            Image.fromarray(np.asarray(example.image)).save(path)
            images[example.image_id] = fo.Sample(str(path), image_id=example.image_id, questions=[])
        questions = images[example.image_id]["questions"]
        if normalize_expression(example.expression) not in questions:
            questions.append(normalize_expression(example.expression))
    dataset = fo.Dataset(DATASET, persistent=True)
    dataset.add_samples(list(images.values()), progress=False)
    return dataset


class _Person:
    """Play a person, who reads the truth of a rendered scene instead of looking at it."""

    def __init__(self, dataset: fo.Dataset, truth: Truth):
        self.dataset, self.truth = dataset, truth
        self.request = SegmentRequest((), checkpoint=START, output_field=FIELD, device="cpu")

    def ask_and_judge(self, sample: fo.Sample, expression: str) -> None:
        """Ask as the panel Ask does, and press a button.

        The buttons are Keep, Nothing is meant, and Wrong and Correct.
        """
        request = SegmentRequest((expression,), checkpoint=START, output_field=FIELD, device="cpu")
        for _ in answering.ask(self.dataset, sample.id, request):
            pass
        meant, answer = self.truth[sample["image_id"], expression], (self.dataset, sample.id, FIELD, expression)
        if self._is_right(sample.id, expression, meant):
            corrections.keep(*answer)
        elif not meant:
            corrections.keep(*answer, nothing=True)
        else:
            corrections.mark_wrong(*answer)
            with answering.warm_model(self.request) as model:
                corrections.segment_again(*answer, [_pointed_at(mask) for mask in meant], model)
            if self._is_right(sample.id, expression, meant):
                corrections.keep(*answer)
            else:
                corrections.mark_wrong(*answer)

    def _is_right(self, sample_id: str, expression: str, meant: list[np.ndarray]) -> bool:
        sample = self.dataset[sample_id]
        (card,) = [card for card in cards(sample, FIELD) if card.expression == expression]
        if not meant:
            return card.outcome == "no-target"
        height, width = meant[0].shape
        mask = labels.union_mask(labels.of_expression(sample[FIELD], expression), (width, height))
        union = np.logical_or.reduce(meant)
        return bool(np.count_nonzero(mask & union) >= RIGHT_IOU * np.count_nonzero(mask | union))


def _pointed_at(mask: np.ndarray) -> InstancePrompt:
    """Return the drawing of a person around a shape: its box, and two points inside."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return InstancePrompt(box, interior_points(mask))


def _ask_all(dataset: fo.Dataset, truth: Truth) -> None:
    """Ask and judge the expressions that were not judged yet."""
    person = _Person(dataset, truth)
    for number, sample in enumerate(dataset.iter_samples(), 1):
        judged = {card.expression for card in cards(sample, FIELD) if card.verdict}
        for expression in sample["questions"]:
            if expression not in judged:
                person.ask_and_judge(sample, expression)
        if number % 20 == 0:
            print(f"  {number} of {len(dataset)} images", flush=True)
    resident.release()


def _print_verdicts(dataset: fo.Dataset) -> None:
    counts: Counter[str] = Counter()
    for sample in dataset.iter_samples():
        for card in cards(sample, FIELD):
            kept = corrections.is_kept(sample, card.expression)
            if not kept:
                counts["given up"] += 1
            elif card.corrected:
                counts["corrected by boxes and points"] += 1
            elif card.verdict == corrections.WRONG:
                counts["corrected to nothing is meant"] += 1
            else:
                counts["kept as answered"] += 1
    print(f"{counts.total()} expressions asked: " + ", ".join(f"{n} {what}" for what, n in counts.most_common()))


def _train(dataset: fo.Dataset, steps: int) -> Path:
    """Train on the kept answers, on the road of the operator "Train on this view"."""
    folder = training_runs.home() / NAME
    if NAME not in training_runs.trained():
        if not training_runs.begun(NAME):
            kept = list(examples(dataset, corrections.MASKS, corrections.EXPRESSIONS))
            training_runs.prepare(training_runs.Plan(NAME, START, "nano_r1", steps), kept)
        training_runs.run(folder, lambda share, label: print(f"  {label}", flush=True))
    outcome = json.loads((folder / training_runs.OUTCOME).read_text())
    for when in ("before", "after"):
        print(f"{when}, on {outcome[when]['n']} kept expressions that were held out: {_figures(outcome[when])}")
    print(f"best step: {outcome['best_step']} of {steps}")
    return training_runs.trained()[NAME]


def _compare(dataset: fo.Dataset, checkpoint: Path) -> None:
    """Evaluate both checkpoints on the held-out split; print 95 % intervals."""
    tables = {}
    for key, name in (("before", START), ("after", str(checkpoint))):
        options = {"expression_field": "expression", "checkpoint": name, "output_field": key, "batch_size": 32}
        foo.get_operator(SEGMENT)(dataset, device="cpu", **options)
        dataset.reload()
        results = fiftyone_genseg.evaluate(dataset, key, "ground_truth", eval_key=f"eval_{key}", progress=False)
        tables[key] = results.table
        said = _with_intervals(comparison.intervals(results.table), "{:.3f}", 1)
        print(f"{key} ({name}): {said}, {NAMES['n_acc']} {results.figures()['n_acc']:.3f}")
    change = comparison.compare(tables["before"], tables["after"])
    said = _with_intervals(change.figures, "{:+.1f}", 100)
    print(f"difference on {change.n} expressions, in points: {said}; {change.wins} better, {change.losses} worse")


def _with_intervals(figures: dict[str, comparison.Interval], form: str, scale: float) -> str:
    said = []
    for name, found in figures.items():
        if found.value is None or found.low is None or found.high is None:
            said.append(f"{NAMES[name]} undefined")
        else:
            value, low, high = (form.format(scale * number) for number in (found.value, found.low, found.high))
            said.append(f"{NAMES[name]} {value} [{low}, {high}]")
    return ", ".join(said)


def _figures(figures: dict) -> str:
    known = [name for name in ("ciou", "miou", "n_acc") if figures[name] is not None]
    return ", ".join(f"{NAMES[name]} {figures[name]:.3f}" for name in known)


def _restart() -> None:
    for name in (DATASET, HELD_OUT):
        if fo.dataset_exists(name):
            fo.delete_dataset(name)
    shutil.rmtree(training_runs.home() / NAME, ignore_errors=True)


def _begun(arguments: argparse.Namespace, drawn: list[ReferringExample]) -> tuple[fo.Dataset, fo.Dataset]:
    """Return the dataset without ground truth, and the held-out dataset.

    The datasets of an earlier start with the same options are loaded. Otherwise both are made.
    """
    options = {name: getattr(arguments, name) for name in ("expressions", "held_out", "steps")}
    if fo.dataset_exists(DATASET) and fo.dataset_exists(HELD_OUT):
        dataset = fo.load_dataset(DATASET)
        if dataset.info.get("options") != options:
            raise SystemExit(f"{DATASET} was begun with {dataset.info.get('options')}: give these, or --restart")
        return dataset, fo.load_dataset(HELD_OUT)
    _restart()
    dataset = _unlabelled_dataset(arguments.images, drawn)
    dataset.info = {RENDERED: True, "options": options}
    return dataset, rendered_dataset(HELD_OUT, arguments.images, refscenes.refscenes("test", arguments.held_out))


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expressions", type=int, default=320, help="expressions, 4 per image (default: 320)")
    parser.add_argument("--steps", type=int, default=30, help="steps of the training (default: 30)")
    parser.add_argument("--held-out", type=int, default=400, help="expressions of RefScenes test (default: 400)")
    parser.add_argument("--images", type=Path, default=Path("correcting_images"), help="folder for the images")
    parser.add_argument("--restart", action="store_true", help="remove the datasets and the checkpoint first")
    arguments = parser.parse_args()
    logging.getLogger("fiftyone").setLevel(logging.WARNING)
    plugin.install()
    if arguments.restart:
        _restart()
    drawn = _drawn(arguments.expressions)
    dataset, held_out = _begun(arguments, drawn)
    truth: Truth = {
        (example.image_id, normalize_expression(example.expression)): [
            decode_mask(mask) for mask in example.masks or ()
        ]
        for example in drawn
    }
    started = time.monotonic()

    def stage(name: str) -> None:
        print(f"[{(time.monotonic() - started) / 60:.1f} min] {name}", flush=True)

    stage(f"ask {START}, judge and correct")
    _ask_all(dataset, truth)
    _print_verdicts(dataset)
    stage("train on what was kept")
    checkpoint = _train(dataset, arguments.steps)
    stage(f"compare on the first {len(held_out)} expressions of RefScenes test")
    _compare(held_out, checkpoint)
    stage("done")


if __name__ == "__main__":
    _main()
