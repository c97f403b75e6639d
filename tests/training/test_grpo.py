"""GRPO with TRL's own trainer on nano: it runs, evaluates, resumes exactly, and refuses what cannot work."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import genseg_hub
import pytest
import torch
import yaml
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from genseg_hub import GenSegR1
from genseg_training import cli
from genseg_training.trainer import EpochSampler
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from trl.trainer.utils import RepeatSampler

from tests.helpers import archive_files
from tests.helpers.grpo_runs import RECIPES, history, options

NANO = Path(genseg_hub.__file__).parent / "nano"
ACCELERATE = Path("training/accelerate")


def figures(folder):
    """Return the history without figures that depend on speed."""
    timed = ("time", "_seconds")
    return [{name: value for name, value in e.items() if not name.endswith(timed)} for e in history(folder)]


def test_a_run_that_is_killed_ends_where_an_uninterrupted_one_does(finished_r1_g, tmp_path):
    """SIGKILL it at two random moments, the first of them while or after the first checkpoint is written."""
    arguments = options(tmp_path, "nano_r1_g", max_steps=4, eval_steps=2)
    rng = random.Random()
    for wanted in (1, 3):
        process = subprocess.Popen(
            [sys.executable, "-m", "genseg_training.cli", *arguments],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not (tmp_path / f"checkpoint-{wanted}").is_dir():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cli.main(arguments)
    finally:
        torch.set_num_threads(threads)
    before, whole, killed = (
        load_file(folder / "model.safetensors")
        for folder in (NANO, finished_r1_g / "checkpoint-4", tmp_path / "checkpoint-4")
    )
    changed = 0
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, killed[name], rtol=0, atol=0)
        changed += not torch.equal(tensor, before[name].float())
    assert changed > 30
    assert figures(finished_r1_g) == figures(tmp_path)


def test_a_run_that_is_finished_stays_as_it_is(copy_of_r1):
    weights = (copy_of_r1 / "best" / "model.safetensors").read_bytes()
    shutil.rmtree(copy_of_r1 / "best")
    cli.main(options(copy_of_r1))
    assert {folder.name for folder in copy_of_r1.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
    assert (copy_of_r1 / "best" / "model.safetensors").read_bytes() == weights


def test_the_data_of_an_epoch_does_not_depend_on_where_it_was_resumed():
    """Read through the wrappers that accelerate puts around a sampler in two processes."""
    own = RepeatSampler(range(16), mini_repeat_count=2, batch_size=4, seed=1)

    def batches(epoch, skipped, rank):
        loader = DataLoader(range(16), batch_size=4, sampler=EpochSampler(own, lambda: epoch))
        prepared = prepare_data_loader(loader, num_processes=2, process_index=rank, put_on_device=False)
        return [batch.tolist() for batch in skip_first_batches(prepared, skipped)]

    for rank in (0, 1):
        assert batches(1, 1, rank) == batches(1, 0, rank)[1:]
        assert batches(1, 0, rank) != batches(0, 0, rank)


def test_a_checkpoint_that_was_cut_short_is_not_resumed_from(copy_of_r1):
    (copy_of_r1 / "checkpoint-final").mkdir()
    (copy_of_r1 / "checkpoint-9.tar").write_text("mine")
    torn = shutil.copytree(copy_of_r1 / "checkpoint-2", copy_of_r1 / "checkpoint-9")
    (torn / "trainer_state.json").write_text('{"global_step": 9, "best')
    cli.main(options(copy_of_r1, max_steps=3))
    found = {file.name for file in copy_of_r1.glob("checkpoint-*")}
    assert found >= {"checkpoint-3", "checkpoint-final", "checkpoint-9.tar"}
    assert "checkpoint-9" not in found


@pytest.mark.parametrize(("recipe", "steps"), [("nano_r1", (1, 2)), ("nano_r1_g", (2, 4))])
def test_a_run_leaves_figures_pictures_and_its_best_checkpoint(request, recipe, steps):
    folder = request.getfixturevalue(f"finished_{recipe.removeprefix('nano_')}")
    entries = history(folder)
    rewards = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())["rewards"]
    assert ("mask" in rewards) == (recipe == "nano_r1_g")
    logged = {name.split("/")[1] for entry in entries for name in entry if name.startswith("rewards/")}
    assert {name.removesuffix("_reward") for name in logged} == set(rewards)
    evaluated = {entry["step"]: entry["eval_miou"] for entry in entries if "eval_miou" in entry}
    assert set(evaluated) == {0, *steps}
    for step in evaluated:
        report = json.loads((folder / "evaluations" / f"step-{step:06d}.json").read_text())
        assert report["n"] == 4
        assert report["miou"] == evaluated[step]
        assert Image.open(folder / "samples" / f"step-{step:06d}.png").width > 600

    best = folder / "best"
    winner = max(steps, key=lambda step: (evaluated[step], -step))
    winner = 0 if evaluated[0] > evaluated[winner] else winner
    assert json.loads((best / "evaluation" / "held_out.json").read_text())["step"] == winner
    trained = load_file(best / "model.safetensors")
    of_winner = folder / f"checkpoint-{winner}" if winner else NANO
    for name, tensor in load_file(of_winner / "model.safetensors").items():
        torch.testing.assert_close(trained[name], tensor, rtol=0, atol=0)
    settings = json.loads((best / "genseg.json").read_text())
    assert settings["dialect"] == "genseg"
    assert settings["base_model"] == "nano"
    assert settings["versions"]["trl"]
    assert len((best / "logs" / "grpo.jsonl").read_text().splitlines()) == len(entries) + 1, "and the run time"
    assert GenSegR1.from_pretrained(str(best), device="cpu").segment(Image.new("RGB", (256, 256)), "the red star")


def test_the_written_recipe_repeats_the_run(finished_r1, tmp_path):
    recipe = str(finished_r1 / "best" / "recipe.yaml")
    cli.main(["grpo", "--config", recipe, "--output_dir", str(tmp_path), "--report_to", "tensorboard"])
    assert list(tmp_path.rglob("events.out.tfevents.*"))
    first, second = (load_file(run / "best" / "model.safetensors") for run in (finished_r1, tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_lora_trains_adapters_and_leaves_a_whole_checkpoint(tmp_path):
    cli.main(options(tmp_path, max_steps=1, use_peft="true", lora_target_modules=["q_proj", "v_proj"]))
    assert (tmp_path / "checkpoint-1" / "adapter_model.safetensors").is_file()
    before, after = load_file(NANO / "model.safetensors"), load_file(tmp_path / "best" / "model.safetensors")
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name].float())}
    assert changed
    assert all("q_proj" in name or "v_proj" in name for name in changed)
    GenSegR1.from_pretrained(str(tmp_path / "best"), device="cpu")


def launch(folder, configuration, *program, **more):
    """Start two processes of one step, in float32, with accelerate."""
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        f"{ACCELERATE}/{configuration}.yaml",
    ]
    command += ["--num_processes=2", "--mixed_precision=no", *program]
    command += options(folder, max_steps=1, **more)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_TORCH_DEVICE": "cpu"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    launch(folder, "cpu_2", "-m", "genseg_training.cli")
    return folder


def test_two_processes_divide_the_work(two_processes):
    report = json.loads((two_processes / "evaluations" / "step-000001.json").read_text())
    assert report["n"] == 4, "each process scored its half"
    assert GenSegR1.from_pretrained(str(two_processes / "best"), device="cpu")


def test_divided_weights_are_trained_as_whole_ones(two_processes, tmp_path):
    launch(tmp_path, "fsdp2", "tests/helpers/fsdp_on_cpu.py")
    assert (tmp_path / "checkpoint-1" / "pytorch_model_fsdp.bin").is_file(), "weights were divided"
    whole, divided = (load_file(folder / "best" / "model.safetensors") for folder in (two_processes, tmp_path))
    assert whole.keys() == divided.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(divided[name], tensor, rtol=0, atol=1e-5)


def of_archives(root, **more):
    """Return options of a run on official archives."""
    return {
        "data": ["grefcoco:train", "refcocog:train"],
        "data_weights": ["3", "1"],
        "root": root,
        "exclude": ["refcocog:val"],
        "eval_data": "refcocog:val:2",
        "no_target_share": 0.25,
        "max_pixels": 200 * 200,
    } | more


def test_official_archives_are_trained_on_and_resumed(root, tmp_path, capsys):
    archive_files.divided(root)
    run = tmp_path / "run"
    cli.main(options(run, "nano_r1_g", **of_archives(root, max_steps=1)))
    report = (run / "data.txt").read_text()
    assert report in capsys.readouterr().out
    assert "(25.0%) without a target, drawn with seed 1: grefcoco:train" in report
    first = load_file(run / "checkpoint-1" / "model.safetensors")
    cli.main(options(run, "nano_r1_g", **of_archives(root)))
    assert (run / "data.txt").read_text() == report
    second = load_file(run / "checkpoint-2" / "model.safetensors")
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert {entry["step"] for entry in history(run) if "eval_miou" in entry} == {0, 1, 2}
    best = run / "best"
    assert json.loads((best / "genseg.json").read_text())["max_pixels"] == 200 * 200
    written = yaml.safe_load((best / "recipe.yaml").read_text())
    assert written["data"] == ["grefcoco:train", "refcocog:train"]
    assert written["exclude"] == ["refcocog:val"]
    assert "root" not in written


def test_two_processes_train_on_the_rows_of_one(root, tmp_path, monkeypatch):
    archive_files.divided(root)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    launch(tmp_path / "run", "cpu_2", "-m", "genseg_training.cli", **of_archives(root))
    assert "refcocog:val:2: no image is trained on" in (tmp_path / "run" / "data.txt").read_text()
    assert json.loads((tmp_path / "run" / "evaluations" / "step-000001.json").read_text())["n"] == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"data": "grefcoco:val", "exclude": []}, r"2 images of the held-out refcocog:val are also trained on"),
        ({"data": "grefcoco:none"}, "no split 'none'; choose one of train, val, testA, testB"),
        ({"exclude": ["refcoco:val"]}, r"there is no .*refcoco/refs\(unc\).p"),
        ({"max_completion_length": 4000}, r"expressions need up to .* tokens .* there is room for 96 \(the model's"),
    ],
)
def test_data_of_archives_that_cannot_work_are_refused_before_the_start(root, tmp_path, more, message):
    archive_files.divided(root)
    run = tmp_path / "run"
    chosen = of_archives(root) | {"data": "refcocog:train", "eval_data": "refcocog:val"} | more
    del chosen["data_weights"], chosen["no_target_share"]
    with pytest.raises(SystemExit, match=message):
        cli.main(options(run, **{name: value for name, value in chosen.items() if value}))
    assert not run.exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rewards": "nope"}, "no reward 'nope'"),
        ({"reward_weights": 1.0}, "5 rewards need as many"),
        ({"data": "nowhere"}, "neither rendered scenes"),
        ({"data": "refscenes:test"}, "final figures alone"),
        ({"data": "refscenes:8", "gradient_accumulation_steps": 8}, "8 examples to train on, and 16 prompts"),
        ({"eval_strategy": "no"}, "needs both eval_data"),
        ({"save_steps": 3}, "must be a multiple"),
        ({"save_strategy": "no"}, "save_strategy must be steps"),
        ({"model_name_or_path": "nowhere"}, "no checkpoint 'nowhere'"),
    ],
)
def test_what_cannot_work_is_refused_before_it_starts(tmp_path, more, message):
    with pytest.raises(SystemExit, match=message):
        cli.main(options(tmp_path, **more))
    assert not list(tmp_path.iterdir())
