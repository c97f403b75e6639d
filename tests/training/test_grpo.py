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

NANO = Path(genseg_hub.__file__).parent / "nano"
RECIPES = Path("training/recipes")
ACCELERATE = Path("training/accelerate")
TINY = {
    "model_name_or_path": "nano",
    "data": "refscenes:12",
    "max_steps": 4,
    "save_steps": 2,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "eval_data": "refscenes:val:8",
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "num_generations": 4,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-4,
    "warmup_steps": 0,
    "report_to": "none",
}


def options(folder, recipe="nano_r1", **more):
    settings = TINY | {"output_dir": folder} | more
    flags = [f"--{name}={value}" for name, value in settings.items() if not isinstance(value, list)]
    lists = [part for name, value in settings.items() if isinstance(value, list) for part in (f"--{name}", *value)]
    return ["grpo", "--config", str(RECIPES / f"{recipe}.yaml"), *flags, *lists]


def history(folder):
    states = sorted(Path(folder).glob("checkpoint-*/trainer_state.json"), key=lambda file: file.stat().st_mtime)
    return json.loads(states[-1].read_text())["log_history"]


def figures(folder):
    """The history without what depends on speed."""
    timed = ("time", "_seconds")
    return [{name: value for name, value in e.items() if not name.endswith(timed)} for e in history(folder)]


def test_a_run_that_is_killed_ends_where_an_uninterrupted_one_does(tmp_path):
    """SIGKILL at two random moments, one of them before anything was saved or while it is, then started again."""
    more = {"max_steps": 6, "eval_steps": 2, "save_steps": 1}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(folder):
        command = [sys.executable, "-m", "genseg_training.cli", *options(folder, "nano_r1_g", **more)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait(300) == 0
    rng = random.Random()
    for wanted in (1, 3):
        process = start(tmp_path / "killed")
        while process.poll() is None and not (tmp_path / "killed" / f"checkpoint-{wanted}").is_dir():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 2))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert start(tmp_path / "killed").wait(300) == 0
    before, whole, killed = (
        load_file(folder / "model.safetensors")
        for folder in (NANO, tmp_path / "whole" / "checkpoint-6", tmp_path / "killed" / "checkpoint-6")
    )
    changed = 0
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, killed[name], rtol=0, atol=0)
        changed += not torch.equal(tensor, before[name].float())
    assert changed > 30
    assert figures(tmp_path / "whole") == figures(tmp_path / "killed")


def test_a_run_that_is_finished_stays_as_it_is(tmp_path):
    cli.main(options(tmp_path, max_steps=2))
    weights = (tmp_path / "best" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "best")
    cli.main(options(tmp_path, max_steps=2))
    assert [folder.name for folder in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    assert (tmp_path / "best" / "model.safetensors").read_bytes() == weights


def test_the_data_of_an_epoch_does_not_depend_on_where_it_was_resumed():
    """Through what accelerate wraps around a sampler in two processes."""
    own = RepeatSampler(range(16), mini_repeat_count=2, batch_size=4, seed=1)

    def batches(epoch, skipped, rank):
        loader = DataLoader(range(16), batch_size=4, sampler=EpochSampler(own, lambda: epoch))
        prepared = prepare_data_loader(loader, num_processes=2, process_index=rank, put_on_device=False)
        return [batch.tolist() for batch in skip_first_batches(prepared, skipped)]

    for rank in (0, 1):
        assert batches(1, 1, rank) == batches(1, 0, rank)[1:]
        assert batches(1, 0, rank) != batches(0, 0, rank)


def test_a_checkpoint_that_was_cut_short_is_not_resumed_from(tmp_path):
    cli.main(options(tmp_path, max_steps=2))
    (tmp_path / "checkpoint-final").mkdir()
    (tmp_path / "checkpoint-9.tar").write_text("mine")
    torn = shutil.copytree(tmp_path / "checkpoint-2", tmp_path / "checkpoint-3")
    (torn / "trainer_state.json").write_text('{"global_step": 3, "best')
    cli.main(options(tmp_path, max_steps=4))
    found = {file.name for file in tmp_path.glob("checkpoint-*")}
    assert found >= {"checkpoint-4", "checkpoint-final", "checkpoint-9.tar"}
    assert "checkpoint-3" not in found


@pytest.mark.parametrize("recipe", ["nano_r1", "nano_r1_g"])
def test_twenty_steps_of_a_variant(tmp_path, recipe):
    cli.main(options(tmp_path, recipe, max_steps=20, save_steps=10, eval_steps=10, data="refscenes:40"))
    entries = history(tmp_path)
    rewards = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())["rewards"]
    assert ("mask" in rewards) == (recipe == "nano_r1_g")
    logged = {name.split("/")[1] for entry in entries for name in entry if name.startswith("rewards/")}
    assert {name.removesuffix("_reward") for name in logged} == set(rewards)
    evaluated = {entry["step"]: entry["eval_miou"] for entry in entries if "eval_miou" in entry}
    assert set(evaluated) == {0, 10, 20}
    for step in evaluated:
        report = json.loads((tmp_path / "evaluations" / f"step-{step:06d}.json").read_text())
        assert report["n"] == 8
        assert report["miou"] == evaluated[step]
        assert Image.open(tmp_path / "samples" / f"step-{step:06d}.png").width > 600

    best = tmp_path / "best"
    winner = max((10, 20), key=lambda step: (evaluated[step], -step))
    assert json.loads((best / "evaluation" / "held_out.json").read_text())["step"] == winner
    trained = load_file(best / "model.safetensors")
    for name, tensor in load_file(tmp_path / f"checkpoint-{winner}" / "model.safetensors").items():
        torch.testing.assert_close(trained[name], tensor, rtol=0, atol=0)
    settings = json.loads((best / "genseg.json").read_text())
    assert settings["dialect"] == "genseg"
    assert settings["base_model"] == "nano"
    assert settings["versions"]["trl"]
    assert len((best / "logs" / "grpo.jsonl").read_text().splitlines()) == len(entries) + 1, "and the run time"
    assert GenSegR1.from_pretrained(str(best), device="cpu").segment(Image.new("RGB", (256, 256)), "the red star")


def test_the_written_recipe_repeats_the_run(tmp_path):
    cli.main(options(tmp_path / "first", max_steps=2, report_to="tensorboard"))
    assert list((tmp_path / "first").rglob("events.out.tfevents.*"))
    recipe = tmp_path / "first" / "best" / "recipe.yaml"
    cli.main(["grpo", "--config", str(recipe), "--output_dir", str(tmp_path / "second")])
    first, second = (load_file(tmp_path / run / "best" / "model.safetensors") for run in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_lora_trains_adapters_and_leaves_a_whole_checkpoint(tmp_path):
    cli.main(options(tmp_path, max_steps=2, use_peft="true", lora_target_modules=["q_proj", "v_proj"]))
    assert (tmp_path / "checkpoint-2" / "adapter_model.safetensors").is_file()
    before, after = load_file(NANO / "model.safetensors"), load_file(tmp_path / "best" / "model.safetensors")
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name].float())}
    assert changed
    assert all("q_proj" in name or "v_proj" in name for name in changed)
    GenSegR1.from_pretrained(str(tmp_path / "best"), device="cpu")


def launch(folder, configuration, *program):
    """Two processes of two steps, in float32, started by accelerate."""
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        f"{ACCELERATE}/{configuration}.yaml",
    ]
    command += ["--num_processes=2", "--mixed_precision=no", *program]
    command += options(folder, max_steps=2, per_device_train_batch_size=4, bf16="false")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_TORCH_DEVICE": "cpu"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    launch(folder, "cpu_2", "-m", "genseg_training.cli")
    return folder


def test_two_processes_divide_the_work(two_processes):
    report = json.loads((two_processes / "evaluations" / "step-000002.json").read_text())
    assert report["n"] == 8, "each process scored its half"
    assert GenSegR1.from_pretrained(str(two_processes / "best"), device="cpu")


def test_divided_weights_are_trained_as_whole_ones(two_processes, tmp_path):
    launch(tmp_path, "fsdp2", "tests/helpers/fsdp_on_cpu.py")
    assert (tmp_path / "checkpoint-2" / "pytorch_model_fsdp.bin").is_file(), "weights were divided"
    whole, divided = (load_file(folder / "best" / "model.safetensors") for folder in (two_processes, tmp_path))
    assert whole.keys() == divided.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(divided[name], tensor, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rewards": "nope"}, "no reward 'nope'"),
        ({"reward_weights": 1.0}, "5 rewards need as many"),
        ({"data": "nowhere"}, "neither a folder"),
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
