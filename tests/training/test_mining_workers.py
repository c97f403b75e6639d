"""Mining on Ray: the pass rates of one process, whatever dies on the way."""

import json
import os
import threading
import time

import datasets
import pytest
import ray
from genseg_hub import ray_cluster, referring_dataset
from genseg_hub.ray_cluster import RayError
from genseg_hub.referring_dataset import FEATURES
from genseg_training import cli, data, mining, mining_workers

from tests.helpers.clusters import cluster_of_two
from tests.training.test_mining import command, rates

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with cluster_of_two() as address:
        yield address


def test_two_workers_have_the_rates_of_one_process(tmp_path, capsys):
    cli.main(command(tmp_path / "one", below=0.95))
    cli.main(command(tmp_path / "two", below=0.95, workers=2))
    assert rates(tmp_path / "one") == rates(tmp_path / "two")
    assert "share of right answers" in capsys.readouterr().out.rpartition("wrote")[0]
    assert not (tmp_path / "two" / "shards").exists()


def test_a_worker_that_is_killed_goes_on_with_what_is_missing(tmp_path):
    """SIGKILL a worker when it has written an answer; the run ends whole, and nothing is answered twice."""
    import psutil

    killed = []

    def kill():
        while not killed:
            time.sleep(0.02)
            for file in (tmp_path / "mined" / "shards").glob("*.jsonl"):
                try:
                    (line, *_) = file.read_text().splitlines()
                except (OSError, ValueError):
                    continue
                for process in psutil.Process(os.getpid()).children(recursive=True):
                    if "_part" in process.name() and str(file) in {entry.path for entry in process.open_files()}:
                        process.kill()
                        killed.append(line)
                        return

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    cli.main(command(tmp_path / "mined", data="refscenes:60", below=0.95, workers=2, batch_size=2))
    assert killed
    assert len(rates(tmp_path / "mined")) == 60
    answered = [json.loads(line) for line in (tmp_path / "mined" / mining.ANSWERS).read_text().splitlines()]
    assert sorted(line["row"] for line in answered) == list(range(60))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "at least one worker"),
        ({"workers": 2, "shard": "1/2"}, "leave --workers out"),
        ({"workers": 2, "server": "http://localhost:1"}, "leave --workers out"),
        ({"address": "auto"}, "belong to workers"),
        ({"workers": 1, "device": "cuda:1"}, "leave --device out"),
        (
            {"workers": 1, "device": "auto", "model_options": '{"token": "hf_secret",}'},
            "must be a JSON object: (?!.*secret)",
        ),
        ({"workers": 1, "device": "auto", "gpus_per_worker": 1}, "1 workers with 1 GPU each do not fit"),
        (
            {"workers": 1, "model": "there/is-none-of-this", "model_options": '{"local_files_only": true}'},
            "there/is-none",
        ),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, options, message):
    with pytest.raises((SystemExit, RayError), match=message):
        cli.main(command(tmp_path / "mined", **options))


def test_a_failed_answer_is_not_asked_again_in_this_process(tmp_path, monkeypatch):
    """The workers' own process answers; this one may have neither GPU nor memory for the model."""
    source = tmp_path / "source"
    source.mkdir()
    rows = list(data.load_source("refscenes:4", 21).cast_column("image", datasets.Image(decode=False)))
    for number, row in enumerate(rows):
        file = tmp_path / f"{number}.png"
        file.write_bytes(row["image"]["bytes"][: 200 if number == 2 else None])
        row |= {"image": {"path": str(file), "bytes": None}, "image_id": str(number)}
    referring_dataset.save(datasets.Dataset.from_list(rows, features=datasets.Features(FEATURES)), source)
    monkeypatch.setattr(mining.GenSegR1, "from_pretrained", None)
    cli.main(command(tmp_path / "mined", data=source, below=0.95, workers=1))
    answered = [json.loads(line) for line in (tmp_path / "mined" / mining.ANSWERS).read_text().splitlines()]
    assert any("failure" in line for line in answered)
    assert sorted(line["row"] for line in answered) == list(range(4))


def test_answers_that_do_not_arrive_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(mining_workers, "_part", lambda *_: None)  # as if it wrote to a disk of its own
    cancelled = []  # Ray may abort this process if a task is cancelled while it ends
    monkeypatch.setattr(ray, "cancel", lambda task, **_: cancelled.append(task))
    with pytest.raises(SystemExit, match="lacks 8 answers that workers have given: all machines must see this folder"):
        cli.main(command(tmp_path / "mined", workers=1))
    assert not cancelled


def test_a_worker_that_dies_for_ever_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(mining_workers, "_part", lambda *_: os._exit(1))
    monkeypatch.setattr(ray_cluster, "RETRIES", 1)
    with pytest.raises(SystemExit, match="the worker of shard 1/1 died 2 times, and its answers are kept; start again"):
        cli.main(command(tmp_path / "mined", workers=1))
