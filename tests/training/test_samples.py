"""Pictures of held-out examples: ground truth beside the answer, different images, in the run's trackers."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from genseg_hub.schema import Failure
from genseg_training import cli, samples
from genseg_training.nano.refscenes import refscenes
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers.grpo_runs import options


@pytest.fixture(scope="module")
def answered(nano):
    """Return six examples about two images, with nano's answers."""
    examples = list(refscenes("val", 6))
    assert len({example.image_id for example in examples}) == 2
    return list(zip(examples, nano.segment_many(examples, 6), strict=True))


def test_each_image_is_shown_once_with_truth_and_answer(answered):
    shown = samples.Samples()
    for example, result in answered:
        shown.add(example, result)
    panels = list(shown._panels.values())
    assert len(panels) == 2
    for (truth, about), (answer, said) in panels:
        assert "ground truth: " in about
        assert said.startswith("answer: ")
        assert truth.size == answer.size != (0, 0)
    assert shown.sheet().width > 1200


def test_the_truth_is_drawn_from_the_true_masks(answered):
    example, _ = next(pair for pair in answered if pair[0].masks)
    one, other = samples.Samples(), samples.Samples()
    one.add(example, Failure("no answer", RuntimeError()))
    other.add(type(example)(example.image, example.expression, ()), Failure("no answer", RuntimeError()))
    assert (np.asarray(one.sheet()) != np.asarray(other.sheet())).any()


def test_there_is_a_limit(answered):
    shown = samples.Samples(count=1)
    for pair in answered:
        shown.add(*pair)
    assert len(shown._panels) == 1


class Tracker(SimpleNamespace):
    """A tracker's module, with what `samples` calls of it."""

    def __init__(self, run):
        super().__init__(run=run, logged=[], Image=lambda file: Image.open(file).size)

    def log(self, values):
        self.logged.append(values)


@pytest.mark.parametrize(("name", "run", "count"), [("wandb", 1, 1), ("wandb", None, 0), ("trackio", None, 1)])
def test_trackers_that_the_run_reports_to_get_the_picture(tmp_path, monkeypatch, name, run, count):
    tracker = Tracker(run)
    monkeypatch.setitem(sys.modules, name, tracker)
    Image.new("RGB", (30, 20)).save(tmp_path / "step.png")
    samples.show(tmp_path / "step.png", 7, [name], [])
    assert tracker.logged == [{samples.TAG: (30, 20), "train/global_step": 7}] * count
    samples.show(tmp_path / "step.png", 7, ["none"], [])
    assert len(tracker.logged) == count


def test_tensorboard_gets_the_pictures_of_a_run(tmp_path):
    cli.main(options(tmp_path, max_steps=1, report_to="tensorboard"))
    files = list(tmp_path.rglob("events.out.tfevents.*"))
    found = []
    for file in files:
        events = EventAccumulator(str(file)).Reload()
        found += [event.step for tag in events.Tags()["images"] if tag == samples.TAG for event in events.Images(tag)]
    assert 1 in found
