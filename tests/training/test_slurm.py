"""The scripts for Slurm start commands that exist, with the parts of a run on the right tasks; Slurm is not needed."""

import os
import shlex
import subprocess

import pytest
from accelerate.commands import launch
from genseg_hub.evaluation.shards import Shard
from genseg_training import grpo, mining
from trl import TrlParser

from tests.conftest import ROOT

SCRIPTS = sorted((ROOT / "examples" / "slurm").glob("*.sbatch"))
# Programs of the cluster and of this project that write down how they are called.
STUBS = {
    "scontrol": 'printf "node-1\\nnode-2\\n"',
    "srun": 'for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done',
    **{name: f'echo "{name} ${{*@Q}}" >> "$CALLS"' for name in ("genseg", "genseg-train", "accelerate")},
}


@pytest.fixture
def calls(tmp_path):
    """Return a function that runs a script with such programs, and gives the words of their calls."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, code in STUBS.items():
        (programs / name).write_text(f"#!/bin/bash\n{code}\n")
        (programs / name).chmod(0o755)

    def run(script, *arguments, **environment):
        path = f"{programs}:{os.environ['PATH']}"
        variables = os.environ | {"PATH": path, "CALLS": str(tmp_path / "calls"), **environment}
        file = ROOT / "examples" / "slurm" / f"{script}.sbatch"
        subprocess.run(["bash", str(file), *arguments], env=variables, check=True)
        return [shlex.split(line) for line in (tmp_path / "calls").read_text().splitlines()]

    return run


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.stem)
def test_a_script_says_what_was_not_run(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "Not run on Slurm" in script.read_text()


def test_a_benchmark_is_divided_among_the_tasks(calls):
    arguments = ["refcocog", "val", "owner/name", "my archives", "--limit", "9"]
    ((program, command, *words),) = calls("benchmark", *arguments, SLURM_ARRAY_TASK_ID="8")
    assert (program, command, words[0]) == ("genseg", "benchmark", "refcocog")
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options == {
        "--split": "val",
        "--model": "owner/name",
        "--root": "my archives",
        "--shard": "8/8",
        "--limit": "9",
    }
    assert str(Shard.parse(options["--shard"])) == "8/8"


def test_a_dataset_is_divided_among_the_tasks(calls):
    arguments = ["my photos", "expression", "owner/name", "--backend", "vllm"]
    ((program, command, *words),) = calls("segment", *arguments, SLURM_ARRAY_TASK_ID="1")
    assert (program, command, words[0]) == ("genseg", "segment-dataset", "my photos")
    options = dict(zip(words[1::2], words[2::2], strict=True))
    expected = {"--expression-field": "expression", "--model": "owner/name", "--shard": "1/8", "--backend": "vllm"}
    assert options == expected


def test_mining_is_divided_among_the_tasks(calls):
    ((program, command, *words),) = calls(
        "mine", "nano", "refcocog:train", "archives", "runs/mined", SLURM_ARRAY_TASK_ID="2", SHARDS="4"
    )
    assert (program, command) == ("genseg-train", "mine")
    (arguments,) = TrlParser((mining.MiningArguments,)).parse_args_and_config(words)
    assert (arguments.samples, arguments.shard, arguments.output_dir) == (8, "2/4", "runs/mined")


def test_each_node_starts_one_launcher(calls):
    ranks = []
    for program, *words in calls(
        "train", "genseg_r1_8b", "my archives", "--seed", "3", SLURM_NNODES="2", SLURM_JOB_NODELIST="node-[1-2]"
    ):
        assert program == "accelerate"
        assert words.pop(0) == "launch"
        words[1] = str(ROOT / words[1])
        taken, *_ = launch._validate_launch_command(launch.launch_command_parser().parse_args(words))
        ranks.append(taken.machine_rank)
        assert (taken.num_machines, taken.num_processes, taken.main_process_ip) == (2, 8, "node-1")
        assert (taken.module, taken.training_script, taken.main_process_port) == (True, "genseg_training.cli", 29500)
        command, *options = taken.training_script_args
        assert command == "grpo"
        pairs = dict(zip((name.removeprefix("--") for name in options[::2]), options[1::2], strict=True))
        assert pairs.pop("root") == "my archives"
        pairs["config"] = ROOT / "training" / "recipes" / f"{pairs['config']}.yaml"
        _, config, _ = grpo.parse(pairs | {"use_cpu": True})
        answers = config.per_device_train_batch_size * config.gradient_accumulation_steps * taken.num_processes
        assert (answers, config.seed) == (128, 3), "as many as the recipe has on four GPUs"
    assert ranks == [0, 1]
