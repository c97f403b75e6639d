"""Shards of a run, killed or not, together make the run of one process."""

import json
import signal

import datasets
import pytest
from genseg_hub import GenSegR1
from genseg_hub.errors import RunError
from genseg_hub.evaluation import benchmark_run, prediction_files, predictions, shards
from genseg_hub.evaluation.shards import Shard
from genseg_hub.referring_dataset import to_dataset
from genseg_hub.schema import Failure, ReferringExample
from genseg_training.nano.refscenes import refscenes
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import costs
from tests.helpers.kill_at import run_until

SETTINGS = {"benchmark": "coco", "split": "data", "model": "nano"}
COUNT = 8
CODE = """
from pathlib import Path
import datasets
from genseg_hub import GenSegR1
from genseg_hub.evaluation import benchmark_run
from genseg_hub.evaluation.shards import Shard

# die
benchmark_run.run(
    Path({folder!r}), {settings!r}, datasets.load_from_disk({saved!r}),
    lambda: GenSegR1.from_pretrained("nano", device="cpu"),
    "grefcoco", "an archive", "genseg", 2, shard=Shard.parse({shard!r}),
)
"""


@pytest.fixture(scope="module")
def scenes():
    return to_dataset(refscenes("val", COUNT))


@pytest.fixture(scope="module")
def whole(nano, scenes, tmp_path_factory):
    """Return the files of a run of one process."""
    folder = tmp_path_factory.mktemp("run") / "nano"
    run(folder, scenes, nano)
    return contents(folder)


def run(folder, examples, model, shard=None, **options):
    source = (lambda: model) if isinstance(model, GenSegR1) else model
    shard = Shard.parse(shard) if shard else None
    return benchmark_run.run(
        folder, SETTINGS, examples, source, "grefcoco", "an archive", "genseg", 2, shard=shard, **options
    )


def contents(folder) -> dict[str, str]:
    """Return the files of a run, its predictions sorted and without the predicted IoUs.

    Shards divide the expressions of an image, and other batches change the last bits of a sum.
    """
    files = {name: (folder / name).read_text() for name in benchmark_run.FILES}
    lines = map(json.loads, files[benchmark_run.PREDICTIONS].splitlines())
    files = {name: costs.without(text) for name, text in files.items()}
    kept = {
        json.dumps(line | {"cost": None, "instances": [{**one, "score": None} for one in line.get("instances", ())]})
        for line in lines
    }
    files[benchmark_run.PREDICTIONS] = "\n".join(sorted(kept))
    return files


def never():
    raise AssertionError("the model was loaded")


@given(st.integers(0, 50), st.integers(1, 12))
def test_shards_divide_the_examples(total, count):
    parts = [Shard(number, count).part(total) for number in range(1, count + 1)]
    assert [index for part in parts for index in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "1/3/5", "-1/3"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(ValueError, match="is no shard; write 1/8 to 8/8"):
        Shard.parse(text)


def test_the_last_shard_writes_the_report_of_one_process(whole, scenes, nano, tmp_path):
    folder = tmp_path / "run"
    assert run(folder, scenes, nano, "2/3") is None
    assert run(folder, scenes, nano, "1/3") is None
    assert not (folder / benchmark_run.METRICS).exists()
    assert run(folder, scenes, never, "1/3") is None, "a part that is answered loads no model"
    assert run(folder, scenes, nano, "3/3") == (folder / benchmark_run.REPORT).read_text()
    assert contents(folder) == whole
    assert {file.name for file in folder.iterdir()} == {*benchmark_run.FILES, shards.LOCK}
    assert run(folder, scenes, never, "3/3") == (folder / benchmark_run.REPORT).read_text()
    assert run(folder, scenes, never) == (folder / benchmark_run.REPORT).read_text()


@pytest.mark.parametrize(
    ("place", "call"),
    [
        ("genseg_hub.evaluation.predictions.to_line", 2),
        ("genseg_hub.evaluation.shards.copy_lines", 2),  # the lines of one shard are in both places
        ("genseg_hub.evaluation.shards.remove", 1),  # the lines of all shards are in both places
        ("genseg_hub.evaluation.scores.Scores.add", 3),
    ],
)
def test_a_killed_shard_costs_its_own_answers_alone(whole, scenes, nano, tmp_path, place, call):
    folder, saved = tmp_path / "run", tmp_path / "saved"
    scenes.save_to_disk(saved)
    run(folder, scenes, nano, "2/2")
    kept = (folder / shards.FOLDER / "2-of-2.jsonl").read_text()
    code = CODE.format(folder=str(folder), settings=SETTINGS, saved=str(saved), shard="1/2")
    assert run_until(code, place, call) == -signal.SIGKILL
    stored = "".join(
        file.read_text() for file in (folder / benchmark_run.PREDICTIONS, *shards.files(folder)) if file.exists()
    )
    assert set(kept.splitlines()) <= set(stored.splitlines())
    again = []

    def asked(examples, batch_size):
        for example in (copies := list(examples)):
            again.append(example.example_id)
        yield from zip(copies, nano.segment_many(copies, batch_size), strict=True)

    # Without --shard, or with other shards, the run goes on with what all shards have answered.
    assert run(folder, datasets.load_from_disk(saved), lambda: asked) == (folder / benchmark_run.REPORT).read_text()
    assert len(again) == (3 if place.endswith("to_line") else 0)
    assert contents(folder) == whole
    assert not (folder / shards.FOLDER).exists()


def test_processes_wait_for_each_other(scenes, nano, tmp_path):
    folder = tmp_path / "run"
    met = []

    def meets(examples, batch_size):
        for call in (lambda: run(folder, scenes, never), lambda: run(folder, scenes, never, "1/2")):
            with pytest.raises(RunError, match=r"shard 1/2 of .* wait for it"):
                call()
            met.append(call)
        assert run(folder, scenes, nano, "2/2") is None, "shard 1/2 is at work, so another one is the last"
        copies = list(examples)
        yield from zip(copies, nano.segment_many(copies, batch_size), strict=True)

    assert run(folder, scenes, lambda: meets, "1/2")
    assert len(met) == 2


def test_a_shard_neither_overwrites_nor_imports(scenes, nano, tmp_path):
    file = tmp_path / "predictions.jsonl"
    file.touch()
    for arguments in ((never, {"overwrite": True}), (file, {})):
        with pytest.raises(RunError, match="a shard predicts missing expressions"):
            run(tmp_path / "run", scenes, arguments[0], "1/2", **arguments[1])
    run(tmp_path / "run", scenes, nano, "1/2")
    assert run(tmp_path / "run", scenes, nano, overwrite=True)
    assert not (tmp_path / "run" / shards.FOLDER).exists()


def test_an_answer_counts_before_a_failure_of_the_same_question(tmp_path, nano, scenes):
    scene = scenes[0]
    asked = ReferringExample(scene["image"], scene["expression"], (), scene["example_id"], scene["image_id"])
    answer = predictions.to_line(asked, nano.segment(asked.image, asked.expression))
    failure = predictions.to_line(asked, Failure("out of memory", MemoryError()))
    question = asked.example_id, asked.image_id, asked.expression
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    one.write_text(json.dumps(answer) + "\n")
    other.write_text(json.dumps(failure) + "\n")
    for files in ((one, other), (other, one)):
        index = prediction_files.Index(*files)
        assert index.has_answer(*question)
        assert index.find(asked) == answer
    assert prediction_files.Index(other).has_line(*question)
    assert not prediction_files.Index(other).has_answer(*question)
    assert not prediction_files.Index(other, tmp_path / "none.jsonl").has_line("other", *question[1:])
    changed = failure | {"expression": "another one"}
    other.write_text(json.dumps(changed) + "\n")
    assert not prediction_files.Index(one, other).has_line(*question), "the table has changed since the answer"
