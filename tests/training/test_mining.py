"""Mining keeps the expressions that a checkpoint answers right sometimes, or never, by the metric of evaluations."""

import json
import signal

import datasets
import numpy as np
import pytest
from genseg_hub.evaluation import scores
from genseg_hub.evaluation.metrics import ReferringMetrics
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_hub.referring_dataset import FEATURES, from_dataset, to_dataset
from genseg_hub.schema import encode_mask
from genseg_training import cli, data, mining
from genseg_training.nano import refscenes

from tests.helpers.kill_at import run_until

MINE = """
from genseg_training import cli
import genseg_hub.evaluation.metrics
# die
cli.main({arguments!r})
"""
WITH_RATE = datasets.Features(FEATURES | {mining.PASS_RATE: datasets.Value("float32")})


def command(folder, **options):
    chosen = {"output_dir": folder, "model": "nano", "data": "refscenes:8", "seed": 21, "device": "cpu"} | options
    return ["mine", *(part for name, value in chosen.items() for part in (f"--{name}", str(value)))]


def rates(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / mining.RATES).read_text().splitlines()]


def lines(folder) -> list[str]:
    return (folder / mining.ANSWERS).read_text().splitlines()


def test_one_greedy_answer_keeps_the_failures(nano, tmp_path, monkeypatch):
    examples = data.load_source("refscenes:8", 21)
    ious = []

    def look(example, result, row):
        ious.append(ReferringMetrics().update(example.masks, result.mask if result.masks else None))

    scores.evaluate(nano, from_dataset(examples), on_result=look)
    for below in (0.95, 0.9):  # the second time asks nothing
        cli.main(command(tmp_path / "hard", below=below))
        kept = datasets.load_from_disk(tmp_path / "hard")
        expected = [name for name, iou in zip(examples["example_id"], ious, strict=True) if iou < below]
        assert expected
        assert kept["example_id"] == expected
        assert kept.features == WITH_RATE
        assert set(kept[mining.PASS_RATE]) == {0.0}
        monkeypatch.setattr(mining.GenSegR1, "from_pretrained", None)
    assert [entry["ious"] for entry in rates(tmp_path / "hard")] == [[pytest.approx(iou, abs=1e-3)] for iou in ious]
    assert data.load_source(str(tmp_path / "hard")).features == FEATURES, "training reads it as a source"


def test_ignored_pixels_make_no_example_hard(nano, tmp_path):
    """Where all pixels of an image are ignored, an answer misses nothing; see `metrics.measure`."""
    (drawn,) = to_dataset(refscenes.training_examples(1, seed=21))
    assert drawn["masks"]
    height, width = drawn["masks"][0]["size"]
    everything, nothing = (encode_mask(np.full((height, width), value)) for value in (True, False))
    examples = datasets.Dataset.from_list(
        [drawn | {"ignore": [rle]} for rle in (everything, nothing)],
        features=datasets.Features(FEATURES | {"ignore": FEATURES["masks"]}),
    )
    pairs = list(mining.answers(nano, examples, [0, 1], 2))
    of_all, of_none = (mining.iou(ReferringMetrics(), example, result) for example, result in pairs)
    assert of_all > of_none


def test_sampled_answers_give_a_pass_rate_and_a_killed_run_goes_on(tmp_path):
    folder = tmp_path / "mined"
    options = command(folder, model="nano-sft", samples=4, temperature=1.5, below=0.7)
    killed = run_until(MINE.format(arguments=options), "genseg_training.mining.iou", 13)
    assert killed == -signal.SIGKILL
    before = lines(folder)
    assert len(before) == 12, "every answer is written when it is there"
    with (folder / mining.ANSWERS).open("a") as file:
        file.write('{"row": 5, "sam')  # torn by the kill

    cli.main(options)
    assert lines(folder)[:12] == before
    assert len(lines(folder)) == 8 * 4
    found = rates(folder)
    assert all(entry[mining.PASS_RATE] == np.mean([iou >= 0.7 for iou in entry["ious"]]) for entry in found)
    assert any(len(set(entry["ious"])) > 1 for entry in found), "sampled answers differ"
    kept = datasets.load_from_disk(folder)
    assert kept["example_id"] == [e["example_id"] for e in found if 0 < e[mining.PASS_RATE] < 1]
    assert 0 < len(kept) < 8

    cli.main([*options, "--min_rate", "0", "--max_rate", "1"])
    assert len(datasets.load_from_disk(folder)) == 8
    assert len(lines(folder)) == 8 * 4, "other bounds ask nothing again"


def test_shards_together_mine_as_one_process(tmp_path, nano, monkeypatch, capsys):
    monkeypatch.setattr(mining.GenSegR1, "from_pretrained", lambda *_, **__: nano)
    cli.main(command(tmp_path / "one", below=0.95))
    cli.main(command(tmp_path / "two", below=0.95, shard="2/2"))
    assert "the last shard to finish" in capsys.readouterr().out
    assert not (tmp_path / "two" / mining.RATES).exists()
    cli.main(command(tmp_path / "two", below=0.95, shard="1/2"))
    assert rates(tmp_path / "two") == rates(tmp_path / "one")
    one, two = (datasets.load_from_disk(tmp_path / name) for name in ("one", "two"))
    assert one["example_id"] == two["example_id"]


def test_samples_that_are_all_the_same_are_told(tmp_path, nano, monkeypatch, caplog):
    """A server may ignore the temperature, as `transformers serve` does for a checkpoint that does not sample."""
    monkeypatch.setattr(mining.GenSegR1, "from_pretrained", lambda *_, **__: nano)
    monkeypatch.setattr(type(nano.reasoner), "temperature", property(lambda _: 0.0, lambda *_: None))
    cli.main(command(tmp_path / "out", data="refscenes:2", samples=2, min_rate=0, max_rate=1))
    assert "as if the model were not sampled" in caplog.text


def test_generate_samples_too(nano):
    """Weights that are divided among processes, and families that were not compared, take Transformers' `generate`."""
    (scene,) = to_dataset(refscenes.training_examples(1, seed=21))
    reasoner = TransformersReasoner(nano.reasoner.model, nano.reasoner.processor, 64)
    model = mining.GenSegR1(reasoner, nano.segmenter, nano.dialect)
    examples = datasets.Dataset.from_list([scene], features=FEATURES)

    def texts():
        return {result.response.text for _, result in mining.answers(model, examples, [0] * 4, 4)}

    assert len(texts()) == 1
    reasoner.temperature = 3.0
    assert len(texts()) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"below": 0}, r"\(0, 1\]"),
        ({"samples": 0}, "at least 1"),
        ({"samples": 2, "temperature": 0}, "a temperature above 0"),
        ({"min_rate": 0.5, "max_rate": 0.2}, "min_rate at most at max_rate"),
        ({"shard": "3/2"}, "is no shard"),
        ({"model_options": "[]"}, "must be a JSON object"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        cli.main(command(tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SystemExit, match="holds something else"):
        cli.main(command(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    (other / mining.SETTINGS).write_text(json.dumps({"data": "refscenes:9"}))
    with pytest.raises(SystemExit, match="answers with the data 'refscenes:9', not 'refscenes:8'"):
        cli.main(command(other))
