"""`genseg reproduce`: real stages with nano on small archives, and what tells whether each of them is done."""

import fcntl
import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import datasets
import pandas as pd
import pytest
import typer
import yaml
from accelerate.commands import launch
from genseg_hub import archives
from genseg_hub.checkpoints import fingerprint
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.evaluation import benchmark_run, literature
from genseg_hub.schema import Failure
from genseg_training import cli as training
from genseg_training import data_command, grpo, grpo_arguments
from typer.testing import CliRunner

from fiftyone_genseg.cli import app, reproduce
from fiftyone_genseg.evaluation.slicing import comparison
from fiftyone_genseg.reproduction import request, stages, table
from tests.conftest import ROOT

run = CliRunner().invoke
OPTIONS = {
    "data": ["refcocog:train"],
    "exclude": ["refcocog:val", "refcocog:test", "grefcoco:val"],
    "eval_data": "refcocog:val:2",
    "max_steps": 2,
    "eval_steps": 1,
    "save_steps": 1,
    "warmup_steps": 0,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "num_generations": 2,
    "bf16": False,
}


@pytest.fixture(scope="session")
def archive_folder(tmp_path_factory):
    """Write the small archives; tests only read them."""
    folder = tmp_path_factory.mktemp("archives")
    runpy.run_path(str(ROOT / "examples" / "small_archives.py"))["write"](folder, 240)
    return folder


@pytest.fixture
def small(archive_folder, tmp_path, monkeypatch):
    """Go to an empty folder with the small archives in `small/`, and return that name."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    Path("small").symlink_to(archive_folder)
    return Path("small")


def written(*runs, **more) -> str:
    """Write a reproduction and return its file."""
    Path("mine.yaml").write_text(yaml.safe_dump({"runs": [*runs], **more}))
    return "mine.yaml"


def nano_run(name="r1", **more) -> dict:
    options = OPTIONS | {"output_dir": f"runs/{name}"} | more
    return {"recipe": "nano_r1", "options": options, "benchmarks": ["refcocog:val"]}


@pytest.mark.parametrize("name", request.names())
def test_each_stage_of_a_reproduction_is_a_command_that_exists(name, tmp_path, monkeypatch):
    """Every command is read by the parser of the program that it calls; accelerate needs no GPU for this."""
    monkeypatch.chdir(ROOT)
    asked = request.read(name)
    kinds = []
    for stage in stages.stages(asked, tmp_path, Path("out"), "owner"):
        kinds.append(stage.kind)
        program, *words = stage.command
        if stage.kind == "train":
            if program == "accelerate":
                taken, *_ = launch._validate_launch_command(launch.launch_command_parser().parse_args(words[1:]))
                assert taken.num_processes == asked.processes
                words = taken.training_script_args
            command, _, recipe, *flags = words
            assert (command, recipe) == ("grpo", stage.run.recipe)
            arguments, config, _ = grpo.parse({"config": training.recipes()[recipe], "use_cpu": True, **pairs(flags)})
            assert (Path(config.output_dir), arguments.root) == (stage.run.output, str(tmp_path))
        elif stage.kind == "data":
            options = data_command._parser().parse_args(words[1:])
            assert Path(options.out) == Path("out/data") / stage.run.name
        else:
            group = typer.main.get_command(app)
            context = group.commands[words[0]].make_context(words[0], words[1:])
            assert stage.kind == words[0]
            assert str(context.params.get("model") or context.params.get("folder")) == str(stage.run.result)
    assert kinds[: len(asked.runs)] == ["data"] * len(asked.runs), "no run begins before all archives are checked"
    assert kinds[-len(asked.runs) :] == ["push"] * len(asked.runs)


def pairs(flags):
    """Return options as `grpo.parse` takes them."""
    found = {}
    for word in flags:
        if word.startswith("--"):
            found[word[2:]] = []
        else:
            found[[*found][-1]].append(word)
    return {name: values if len(values) > 1 else values[0] for name, values in found.items()}


@pytest.mark.parametrize("name", ["genseg_r1_8b", "genseg_r1_4b"])
def test_a_reproduction_scores_the_published_rows(name):
    """Every row of the paper is one of the benchmarks of the runs."""
    asked = request.read(name)
    rows = {(row.benchmark, row.split) for row in literature.PUBLISHED if row.source == literature.GENSEG_R1}
    assert {benchmark for run in asked.runs for benchmark in run.benchmarks} <= rows


def test_nothing_is_missing_where_the_archives_are(tmp_path, monkeypatch):
    """With empty files in the places of the archives, every check passes, and without them each says what it needs."""
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    for file in ("refcocog/refs(umd).p", "refcocog/instances.json", "grefcoco/grefs(unc).json"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "grefcoco/instances.json").touch()
    for folder in ("images/mscoco/images/train2014", "ReasonSeg/test"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ReasonSeg/test/a.json").touch()
    for name in request.names():
        assert list(stages.check(request.read(name), tmp_path)) == []
    missing = list(stages.check(request.read("genseg_r1_8b"), tmp_path / "nowhere"))
    assert len(missing) == 4
    assert all("nowhere" in sentence for sentence in missing)
    monkeypatch.delitem(sys.modules, "vllm")
    said = list(stages.check(request.read("genseg_r1_8b"), tmp_path))
    assert len(said) == 2 or importlib.util.find_spec("vllm")
    for sentence in said:
        assert "samples with vLLM (use_vllm), which is not installed here: pip install" in sentence


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"runs": []}, "has no list of runs"),
        ({"runs": [{"recipe": "nano_r2"}]}, "there is no recipe 'nano_r2'; choose one of .*nano_r1"),
        ({"runs": [{"recipe": "nano_r1", "option": {}}]}, "unknown 'option'; choose from benchmarks, options, recipe"),
        ({"runs": [{"recipe": "nano_r1", "benchmarks": ["refcocog"]}]}, "'refcocog' .* is not NAME:SPLIT"),
        ({"runs": [{"recipe": "nano_r1"}, {"recipe": "nano_r1"}]}, "write the same folder, runs/nano_r1"),
        ({"runs": [{"recipe": "nano_r1", "options": ["x"]}]}, "write names with values"),
    ],
)
def test_a_file_of_something_else_is_refused(stated, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(stated))
    with pytest.raises(ValueError, match=message):
        request.read("mine.yaml")


def test_what_would_fail_at_the_end_of_the_night_is_said_at_its_beginning(small, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    file = written(nano_run(rewardz=1), nano_run("r1_g") | {"benchmarks": ["reasonseg:test"]})
    result = run(app, ["reproduce", file, "--root", "small", "--push", "owner"])
    assert result.exit_code == 1
    for sentence in ("nothing was started", "rewardz", "ReasonSeg/test", "no token for the Hub"):
        assert sentence in result.output
    assert not Path("runs").exists()


def test_the_data_of_a_run_hold_no_image_that_it_or_a_later_run_is_scored_on(small, capsys):
    """R1 is not scored on gRefCOCO, but R1-G is, which starts from it."""
    later = nano_run("r1_g", model_name_or_path="runs/r1/best") | {"benchmarks": ["grefcoco:val"]}
    asked = request.read(written(nano_run(), later))
    first, second, *_ = stages.stages(asked, small, Path("out"))
    assert not first.is_done()
    training.main([*first.command[1:]])
    assert first.is_done()
    report = Path("out/data/nano_r1/report.txt").read_text()
    assert "expressions about excluded images left out" in report
    assert re.search(r"grefcoco:val: \d+ expressions about \d+ images, none shared", report)
    assert not second.is_done(), "each run has a folder of its own"
    asked = request.read(written(nano_run(exclude=["refcocog:val", "refcocog:test"]), later))
    leaking = stages.stages(asked, small, Path("out"))[0]
    assert not leaking.is_done(), "the folder is of other data"
    shutil.rmtree("out")
    with pytest.raises(SystemExit, match=r"images of the held-out grefcoco:val are also trained on.*--exclude"):
        training.main([*leaking.command[1:]])


def test_a_training_is_done_when_its_best_checkpoint_is_scored_as_it_loads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = request.read(written(nano_run())).runs[0]
    assert not stages.is_trained(made)
    report = made.result / stages.HELD_OUT
    report.parent.mkdir(parents=True)
    report.write_text('{"as_loaded": true}')
    (made.output / "checkpoint-1").mkdir()
    assert not stages.is_trained(made), "one step of two"
    (made.output / "checkpoint-2").mkdir()
    assert stages.is_trained(made)
    report.write_text('{"miou": 0.5}')
    assert not stages.is_trained(made), "figures of the training, not of best/"


def test_a_run_of_other_options_is_not_taken_for_this_one(small):
    asked = request.read(written(nano_run()))
    made = asked.runs[0]
    arguments = grpo.parse({"config": made.file, **made.options, "use_cpu": True, "root": str(small)})
    made.result.mkdir(parents=True)
    (made.result / stages.RECIPE).write_text(yaml.safe_dump(grpo_recipe(*arguments)))
    assert list(stages.check(asked, small)) == []
    (said,) = stages.check(request.read(written(nano_run(learning_rate=0.5))), small)
    assert "was trained with learning_rate 0.0001, not 0.5; remove runs/r1" in said


def grpo_recipe(*parts):
    """Return the recipe as a run writes it into `best/`."""
    grpo_arguments.check(*parts)
    return grpo_arguments.recipe_of(*parts)


@pytest.fixture
def scored(small, nano):
    """Return a reproduction of one run, and its benchmark, which nano has answered, except for one expression."""
    asked = request.read(written(nano_run() | {"benchmarks": ["grefcoco:val"]}))
    (made,) = asked.runs
    shutil.copytree(EMBEDDED["nano"], made.result)
    (made.result / "README.md").unlink()
    (made.result / "evaluation").mkdir()
    (made.result / stages.HELD_OUT).write_text('{"benchmark": "x", "policy": "grefcoco", "n": 2, "as_loaded": true}')
    stage = next(stage for stage in stages.stages(asked, small, Path("out")) if stage.kind == "benchmark")
    examples, archive = archives.load_archive("grefcoco", small, "val")

    def answer(questions, batch_size):
        asked = [*questions]
        for number, (example, result) in enumerate(zip(asked, nano.segment_many(asked, 32), strict=True)):
            yield example, Failure("lost", OSError("x")) if number == 3 else result

    settings = {"benchmark": "grefcoco", "split": "val", **fingerprint.identify(str(made.result))}
    benchmark_run.run(
        Path(stage.output), settings, examples, lambda: answer, "grefcoco", str(archive), shlex.join(stage.command)
    )
    return asked, stage


def test_a_benchmark_is_done_for_one_command_and_one_set_of_weights(scored):
    _, stage = scored
    assert stage.is_done()
    limited = request.read(written(nano_run() | {"benchmarks": ["grefcoco:val"]}, benchmark_options={"limit": 2}))
    other = next(each for each in stages.stages(limited, Path("small"), Path("out")) if each.kind == "benchmark")
    assert other.command[-2:] == ("--limit", "2")
    assert not other.is_done()
    settings = stage.run.result / "genseg.json"
    settings.write_text(settings.read_text() + "\n")
    assert not stage.is_done(), "other weights, or another dialect"


def test_the_table_has_published_figures_and_ours_with_intervals(scored):
    asked, stage = scored
    text = table.write(asked, Path("out"))
    made = json.loads(Path("out/table.json").read_text())
    ours = next(row for row in made["rows"] if not row["published"])
    metrics = json.loads(Path(stage.output, benchmark_run.METRICS).read_text())
    for name, figure in ours["figures"].items():
        assert figure["value"] == metrics[name]
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    assert set(ours["figures"]) == set(table.COLUMNS)
    published = [row for row in made["rows"] if row["published"]]
    assert {row["system"] for row in published} == {row.system for row in literature.of("grefcoco", "val")}
    assert "| 76.83 |" in text
    assert f"**nano_r1** | {100 * metrics['ciou']:.2f} [" in text
    assert "without a usable answer" in text
    assert Path("out/table.md").read_text() == text


def test_the_card_gets_the_figures_and_no_path_of_this_machine(scored):
    asked, _ = scored
    before = fingerprint.identify(str(asked.runs[0].result))
    reproduce._finish(asked, Path("out"), "OWNER")
    text = Path("out/card_nano_r1.md").read_text()
    assert "grefcoco val" in text
    assert "genseg benchmark grefcoco --split val --root ARCHIVES --model OWNER/nano_r1" in text
    report = (asked.runs[0].result / "evaluation/grefcoco-val.json").read_text()
    for word in ("small", str(Path.cwd()), "runs/"):
        assert word not in report
    assert fingerprint.identify(str(asked.runs[0].result)) == before, "the benchmarks stay those of these weights"


def test_ratios_have_the_intervals_of_a_run(scored):
    _, stage = scored
    rows = pd.read_json(Path(stage.output) / benchmark_run.ROWS, lines=True, dtype={"image_id": str})
    found = table._intervals(Path(stage.output), "grefcoco")
    expected = comparison.intervals(rows.rename(columns={"image_id": "image"}))
    for name, interval in expected.items():
        assert found[name] == pytest.approx({"low": interval.low, "high": interval.high})


def test_a_second_call_waits_for_a_stage_that_outlives_the_first_one(tmp_path, capsys):
    with reproduce._locked(tmp_path) as held:
        stage = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(held,))
    with (tmp_path / ".lock").open("w") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    ended = subprocess.Popen(["sh", "-c", f"sleep 1; kill {stage.pid}"])
    with reproduce._locked(tmp_path):
        assert stage.wait() == -signal.SIGTERM
    ended.wait()
    assert "waiting for it" in capsys.readouterr().err


def test_the_plan_says_hours_disk_and_what_is_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(app, ["reproduce", "genseg_r1_8b", "--root", "nowhere", "--plan"])
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert ["train", "genseg_r1_8b", "6.4", "3.0", "38.6", "no", "runs/genseg_r1_8b/best"] in lines
    assert ["train", "genseg_r1_g_8b", "6.5", "3.1", "38.6", "no", "runs/genseg_r1_g_8b/best"] in lines
    assert "missing: refcocog:val: there is no" in result.output
    assert not any(tmp_path.iterdir())


def test_a_killed_reproduction_goes_on_to_the_table(small):
    """The kill takes the call and its training. The same command ends with the table, and once more does nothing."""
    written(nano_run(), benchmark_options={"limit": 4})
    command = [str(Path(sys.executable).with_name("genseg")), "reproduce", "mine.yaml", "--root", "small"]
    first = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = Path("runs/r1/checkpoint-1/trainer_state.json")
    while not state.is_file() and first.poll() is None:
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    kept = state.stat().st_mtime_ns
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert "data nano_r1: done" in second.stderr
    assert state.stat().st_mtime_ns == kept, "the training went on from its first step"
    assert "**not the whole split**" in second.stdout
    made = json.loads(Path("runs/reproduce/mine/table.json").read_text())
    assert [row["n"] for row in made["rows"] if not row["published"]] == [4]
    weights = Path("runs/r1/best/model.safetensors").stat().st_mtime_ns
    third = subprocess.run(command, capture_output=True, text=True, check=True)
    for stage in ("data nano_r1", "train nano_r1", "benchmark refcocog:val of nano_r1"):
        assert f"{stage}: done" in third.stderr
    assert third.stdout.startswith("# mine")
    assert second.stdout.endswith(third.stdout)
    assert Path("runs/r1/best/model.safetensors").stat().st_mtime_ns == weights
