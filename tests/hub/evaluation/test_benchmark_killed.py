"""A benchmark run that is killed at any moment and started again equals one that nobody interrupted."""

import json
import re
import signal

import datasets
import pytest
from genseg_hub.evaluation import benchmark_run
from genseg_hub.referring_dataset import to_dataset
from genseg_training.nano.refscenes import refscenes

from tests.helpers import costs
from tests.helpers.kill_at import run_until

SETTINGS = {"benchmark": "coco", "split": "data", "model": "nano"}
COUNT = 8
# A run that notes each expression that is asked.
CODE = """
import sys
from pathlib import Path
import datasets
from genseg_hub import GenSegR1
from genseg_hub.evaluation import benchmark_run

folder, saved, asked, settings = Path({folder!r}), {saved!r}, Path({asked!r}), {settings!r}

def load():
    model = GenSegR1.from_pretrained("nano", device="cpu")
    segment_many = model.segment_many

    def noting(examples, batch_size):
        for example, result in zip(copies := list(examples), segment_many(iter(copies), batch_size), strict=True):
            with asked.open("a") as file:
                file.write(example.example_id + "\\n")
            yield result

    model.segment_many = noting
    return model

# die
benchmark_run.run(folder, settings, datasets.load_from_disk(saved), load, "grefcoco", "an archive", "genseg", 2)
"""
PREDICTING = "genseg_hub.evaluation.predictions.to_line"
SCORING = "genseg_hub.evaluation.scores.Scores.add"
WRITING = "genseg_hub.evaluation.benchmark_run._write"
MOMENTS = [
    (PREDICTING, 1, False),
    (PREDICTING, 4, False),
    (PREDICTING, COUNT, True),
    (SCORING, 5, False),
    *((WRITING, call, False) for call in (2, 3, 4)),  # after run.json: figures and two reports
    ("pathlib.Path.replace", 2, False),  # the rows are whole, beside their place
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples") / "saved"
    to_dataset(refscenes("val", COUNT)).save_to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(nano, saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "nano"
    examples = datasets.load_from_disk(saved)
    benchmark_run.run(folder, SETTINGS, examples, lambda: nano, "grefcoco", "an archive", "genseg", 2)
    return contents(folder)


def comparable(text: str) -> str:
    """Return a file without costs, and with rounded scores.

    SAM 2 decodes the instances of an image together, so another grouping adds floats in another order.
    """
    return re.sub(r'(?<="score": )[\d.e-]+', lambda found: f"{float(found[0]):.5f}", costs.without(text))


def contents(folder) -> dict[str, str]:
    return {name: comparable((folder / name).read_text()) for name in benchmark_run.FILES}


def lines(file) -> list[str]:
    return comparable(file.read_text()).splitlines() if file.exists() else []


@pytest.mark.parametrize(("place", "call", "after"), MOMENTS)
def test_a_killed_run_goes_on(uninterrupted, saved, nano, tmp_path, monkeypatch, place, call, after):
    folder, asked = tmp_path / "run", tmp_path / "asked"
    code = CODE.format(folder=str(folder), saved=str(saved), asked=str(asked), settings=SETTINGS)
    assert run_until(code, place, call, after) == -signal.SIGKILL
    stored = [line for line in lines(folder / benchmark_run.PREDICTIONS) if line.endswith("}")]
    assert set(stored) <= set(uninterrupted[benchmark_run.PREDICTIONS].splitlines())
    for name in benchmark_run.FILES[2:]:  # whole or absent
        assert not (folder / name).exists() or comparable((folder / name).read_text()) == uninterrupted[name]
    again = []
    segment_many = nano.segment_many

    def noting(examples, batch_size):
        return segment_many((again.append(example.example_id) or example for example in examples), batch_size)

    monkeypatch.setattr(nano, "segment_many", noting)
    examples = datasets.load_from_disk(saved)
    benchmark_run.run(folder, SETTINGS, examples, lambda: nano, "grefcoco", "an archive", "genseg", 2)
    assert {json.loads(line)["example_id"] for line in stored}.isdisjoint(again), "what is stored is not asked again"
    assert len(stored) + len(again) == COUNT
    assert len(lines(asked)) <= len(stored) + 1, "one answer at most was not yet written"
    assert contents(folder) == uninterrupted
    assert {file.name for file in folder.iterdir()} <= {*benchmark_run.FILES, benchmark_run.LOCK}
