"""Workers on Ray: the results of one process, whatever dies on the way."""

import collections
import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets as hf_datasets
import fiftyone.operators as foo
import pytest
from genseg_hub import checkpoints
from genseg_hub.ray_cluster import RayError
from genseg_hub.schema import Failure, ReferringExample
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fiftyone_genseg.cli import app
from fiftyone_genseg.demo import refscenes_dataset
from fiftyone_genseg.segmentation.engines import opened
from fiftyone_genseg.segmentation.engines import ray as ray_engine
from fiftyone_genseg.segmentation.engines.local import local_engine
from fiftyone_genseg.segmentation.request import SegmentRequest
from fiftyone_genseg.segmentation.run import segment_view
from tests.conftest import ROOT
from tests.fiftyone_genseg.segmentation.test_run import snapshot
from tests.helpers.clusters import cluster_of_two
from tests.helpers.image_stores import web
from tests.helpers.vllm_installed import SIMULATED

# A run that is killed while it puts its eleventh result on a sample, with two batches of four written.
KILLED = """
import os, signal
from fiftyone_genseg import cli
from fiftyone_genseg.segmentation import run

store, stored = run.store, []

def counted(*arguments):
    if len(stored) == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    stored.append(store(*arguments))

run.store = counted
cli.app()
"""
COMMAND = ["--expression-field", "expression", "--batch-size", "4", "--engine", "ray", "--workers", "2"]


@pytest.fixture(scope="module")
def cluster():
    with cluster_of_two() as address:
        yield address


@pytest.fixture
def datasets(tmp_path):
    """Return two datasets with the same 40 expressions on 10 images."""
    made = [refscenes_dataset(f"ray-{name}", tmp_path / name, 10) for name in ("here", "there")]
    yield made
    for dataset in made:
        dataset.delete()


def dies_of(poison: str, weak: str):
    """Return a worker that its machine kills: always of one image, once of another."""

    class Worker(ray_engine.Worker):
        def __call__(self, unit):
            assert "fiftyone" not in sys.modules
            paths = {asked["image"] for asked in unit["examples"]}
            died = Path(f"{weak}.died")
            if poison in paths or (weak in paths and not died.exists()):
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(unit)

    return Worker


def test_whatever_dies_the_results_are_those_of_one_process(cluster, datasets, nano, monkeypatch):
    here, there = datasets
    images = sorted({Path(path).name for path in here.values("filepath")})
    damaged, poison, weak = images[4], images[6], images[8]
    for dataset in datasets:
        Path(dataset.first().filepath).with_name(damaged).write_bytes(b"no image")
    folder = Path(there.first().filepath).parent

    # The whole run is killed in its third batch,
    run = ["segment-dataset", there.name, *COMMAND]
    killed = subprocess.run([sys.executable, "-c", KILLED, *run, "--address", cluster], check=False)
    assert killed.returncode == -signal.SIGKILL
    stored = len(there.exists("genseg_responses"))
    assert stored == 8

    # and goes on, with workers that die.
    monkeypatch.setattr(ray_engine, "Worker", dies_of(str(folder / poison), str(folder / weak)))
    result = CliRunner().invoke(app, run)
    assert result.exit_code == 0, result.output
    assert f"8 failed, {stored} skipped" in result.stdout
    assert (folder / f"{weak}.died").is_file()

    for _ in segment_view(here, SegmentRequest(expression_field="expression"), local_engine(nano)):
        pass
    there.reload()
    compared = zip(here, snapshot(here).values(), there, snapshot(there).values(), strict=True)
    for sample, expected, other, found in compared:
        ((response, *more), _) = found
        assert not more
        assert response[0] == other["expression"] == sample["expression"]
        if Path(other.filepath).name == poison:
            assert response[1] == "failed"
            assert "the worker died of this image" in response[2]
        elif Path(other.filepath).name == damaged:
            assert response[1] == "failed"
            assert "not an image that Pillow can read" in response[2]
        else:
            assert_equal_but_for_rounding(found, expected)


def test_workers_answer_with_vllm_as_one_process_does(cluster, datasets, nano, monkeypatch):
    """Simulate vLLM. One worker is killed, and the engine of another dies."""
    here, there = datasets
    paths = sorted(set(there.values("filepath")))

    class Worker(dies_of("none", paths[2])):
        def __init__(self, *arguments):
            sys.path.insert(0, str(SIMULATED))
            super().__init__(*arguments)
            assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0", "the engine ends with the worker"

        def __call__(self, unit):
            died = Path(f"{paths[5]}.died")
            if paths[5] in {asked["image"] for asked in unit["examples"]} and not died.exists():
                died.touch()
                self.model.reasoner._llm.llm_engine.dead = True
            return super().__call__(unit)

    monkeypatch.setattr(ray_engine, "Worker", Worker)
    result = CliRunner().invoke(app, ["segment-dataset", there.name, *COMMAND, "--backend", "vllm"])
    assert result.exit_code == 0, result.output
    assert all(Path(f"{paths[place]}.died").is_file() for place in (2, 5))

    for _ in segment_view(here, SegmentRequest(expression_field="expression"), local_engine(nano)):
        pass
    there.reload()
    assert {response.options for sample in there for response in sample["genseg_responses"]} == {"backend=vllm"}
    for found, expected in zip(snapshot(there).values(), snapshot(here).values(), strict=True):
        assert_equal_but_for_rounding(found, expected)


def test_workers_with_a_gpu_take_vllm_where_it_is_there(monkeypatch):
    asked = []
    remote = SimpleNamespace(remote=lambda architectures: asked.append(architectures) or "0.33.0")
    ray = SimpleNamespace(remote=lambda **resources: lambda work: remote, get=lambda answer: answer)
    nano = checkpoints.pull("nano")
    assert ray_engine._vllm(ray, nano, {}) == "0.33.0"
    assert asked == [["Qwen3VLForConditionalGeneration"]]
    for options in ({"backend": "transformers"}, {"quantization": "4bit"}, {"device_map": "auto"}):
        assert ray_engine._vllm(ray, nano, options) is None
    assert len(asked) == 1


def test_workers_read_images_of_a_url(cluster, datasets, nano):
    here, there = datasets
    names = sorted({Path(path).name for path in there.values("filepath")})
    folder = Path(there.first().filepath).parent
    elsewhere = folder.rename(folder.with_name("elsewhere"))
    (elsewhere / names[3]).unlink()
    with web(elsewhere) as url:
        result = CliRunner().invoke(app, ["segment-dataset", there.name, *COMMAND, "--images", f"{folder}={url}"])
    assert result.exit_code == 0, result.output
    assert "4 failed" in result.stdout

    for _ in segment_view(here, SegmentRequest(expression_field="expression"), local_engine(nano)):
        pass
    there.reload()
    for sample, expected, found in zip(there, snapshot(here).values(), snapshot(there).values(), strict=True):
        if Path(sample.filepath).name == names[3]:
            ((response,), _) = found
            assert response[1] == "failed"
            assert response[2].startswith(f"{url}/{names[3]} cannot be read: FileNotFoundError")
        else:
            assert_equal_but_for_rounding(found, expected)


def assert_equal_but_for_rounding(found, expected):
    """Compare two entries of `snapshot`.

    A worker has one thread and this process may have more. Sums of many numbers then differ in their last bits, and
    with them the predicted IoU and a pixel whose logit is next to zero.
    """
    (responses, detections), (other_responses, other_detections) = found, expected
    assert responses == other_responses
    for one, other in zip(detections, other_detections, strict=True):
        expression, confidence, box, points, prompt_box, mask = one
        assert (expression, points, prompt_box) == (other[0], other[3], other[4])
        assert confidence == pytest.approx(other[1], abs=1e-4)
        assert box == pytest.approx(other[2], abs=0.01)
        if len(mask) == len(other[5]):
            assert sum(a != b for a, b in zip(mask, other[5], strict=True)) <= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "at least one worker, got 0"),
        ({"workers": 3}, "3 workers with 1 CPU each do not fit, because the cluster has 2"),
        ({"gpus_per_worker": 0.5}, "2 workers with 0.5 GPU each do not fit, because the cluster has 0"),
        ({"images": "/data=s3://bucket/?key=x"}, "must have no user, password, query"),
    ],
)
def test_workers_that_cannot_be_had_are_refused(cluster, options, message):
    with (
        pytest.raises((RayError, ValueError), match=message),
        opened(SegmentRequest("a star", engine="ray", **options)),
    ):
        pass


def test_the_operator_takes_the_engine(cluster, dataset, plugin):
    with pytest.raises(Exception, match="3 workers with 1 CPU each do not fit, because the cluster has 2"):
        foo.get_operator("@fiftyone-genseg/genseg/referring_segment")(
            dataset, expression_field="expression", engine="ray", workers=3
        )


def test_a_worker_without_a_model_says_why(monkeypatch):
    rows = ray_engine.Worker("nano", "cuda:99", 8, {})({"examples": []})
    monkeypatch.setattr(ray_engine, "_ask", lambda *_: rows)
    with pytest.raises(RayError, match="a worker has no model: "):
        next(ray_engine._answer("nano", "cuda:99", {}, None, 1, 1, iter([ReferringExample("a", "b")]), 8))


@given(
    images=st.lists(st.sampled_from("abcde"), max_size=40),
    answered=st.sets(st.integers(0, 39)),
    size=st.integers(1, 12),
)
def test_an_image_is_in_one_unit_only(images, answered, size):
    asked = [ReferringExample(image, str(i)) for i, image in enumerate(images)]
    there = bytearray(i in answered for i in range(len(images)))
    units = list(ray_engine._units(asked, there, size))
    places = [row["place"] for unit in units for row in unit]
    assert sorted(places) == [i for i in range(len(images)) if i not in answered]
    assert all(len(unit) >= size for unit in units[:-1])
    homes = collections.defaultdict(set)
    for number, unit in enumerate(units):
        for row in unit:
            assert row == {"place": row["place"], "image": images[row["place"]], "expression": str(row["place"])}
            homes[row["image"]].add(number)
    assert all(len(numbers) == 1 for numbers in homes.values())


def test_an_answer_that_comes_twice_counts_once_and_one_that_never_comes_is_a_failure(monkeypatch):
    def ask(units, *_):
        for unit in units:
            for row in unit["examples"].to_pylist()[0] * 2:
                if row["image"] != "lost":
                    failure = {"example_id": "", "failure": row["expression"]}
                    yield {"place": row["place"], "line": json.dumps(failure)}

    monkeypatch.setattr(ray_engine, "_ask", ask)
    monkeypatch.setattr(ray_engine, "ROUND", 3)
    asked = [ReferringExample("lost" if i == 4 else f"{i % 3}", f"{i}", example_id=f"{i}") for i in range(8)]
    answers = list(ray_engine._answer("nano", "cpu", {}, None, 2, 0, iter(asked), 2))
    assert sorted(example.example_id for example, _ in answers) == [f"{i}" for i in range(8)]
    for example, result in answers:
        assert isinstance(result, Failure)
        assert (result.message == example.expression) == (example.image != "lost")


def test_a_benchmark_on_workers_has_the_figures_of_one_process(cluster, tmp_path, monkeypatch):
    """One worker is killed; it costs its unit, which is asked again."""
    monkeypatch.setattr(hf_datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    runpy.run_path(str(ROOT / "examples" / "own_benchmark.py"))["write"](tmp_path / "scenes", 16)
    weak = tmp_path / "scenes" / "images" / "refscenes-val-002.png"
    monkeypatch.setattr(ray_engine, "Worker", dies_of("none", str(weak)))
    command = ["benchmark", "coco", "--split", "data", "--root", str(tmp_path / "scenes"), "--device", "cpu"]
    figures = []
    for more in ([], ["--workers", "2"]):
        out = tmp_path / f"run-{len(figures)}"
        result = CliRunner().invoke(app, [*command, "--batch-size", "4", "--out", str(out), *more])
        assert result.exit_code == 0, result.output
        figures.append(json.loads((out / "metrics.json").read_text()))
    assert weak.with_name(f"{weak.name}.died").is_file()
    assert figures[0]["failures"] == figures[1]["failures"] == 0
    # As in `assert_equal_but_for_rounding`, a pixel next to the border may change sides.
    for name in ("ciou", "miou", "target_miou", "box_miou", "n_acc", "t_acc"):
        assert figures[1][name] == pytest.approx(figures[0][name], abs=1e-3)
    assert figures[0]["n"] == figures[1]["n"] == 16
