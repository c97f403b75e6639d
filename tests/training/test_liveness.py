"""A run that learns nothing stops with the reason, on every process, and never ends as a success."""

import json
import os
import subprocess
import sys

import pytest
import torch
import transformers
from genseg_hub import GenSegR1
from genseg_training import cli, grpo_arguments, liveness
from genseg_training.liveness import CUT, SAME, ZERO, Watch

from tests.helpers.grpo_runs import history, options

NAN = float("nan")


def test_groups_and_answers_by_hand():
    rewards = torch.tensor([[1, NAN], [1, NAN], [1, 0], [0, 1], [NAN, NAN], [NAN, NAN], [0, 0], [0, 0]])
    total = liveness.totals(rewards, torch.tensor([2.0, 1.0]))
    assert total[:4].tolist() == [2, 2, 2, 1]
    assert torch.isnan(total[4:6]).all()
    assert liveness.without_variance(total, 2).tolist() == [True, False, True, True]
    assert liveness.figures(total, 2) == {SAME: 0.75, ZERO: pytest.approx(2 / 6)}
    assert liveness.figures(torch.full((2,), NAN), 2) == {SAME: 1, ZERO: 1}


def step(same=0.0, zero=0.0, cut=0.0, **more):
    return {SAME: same, ZERO: zero, CUT: cut, "reward": 1.0, "rewards/format_reward/mean": 0.5} | more


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (step(same=1, zero=1, **{"rewards/format_reward/mean": 0.0}), "no answer had the format: .*genseg-train sft"),
        (step(same=1, reward=4.9), "nearly all answers are right: .*genseg-train mine"),
        (step(cut=0.96), "answers do not end within max_completion_length 1,024"),
        (step(zero=1), "have the format and are all wrong"),
        (step(same=0.95), "all answers to an expression earn the same: raise temperature"),
    ],
)
def test_the_reason_says_what_to_try(last, words):
    watch = Watch(3, 0.95, largest=5.0, limit=1024)
    control, state = transformers.TrainerControl(), transformers.TrainerState()
    state.log_history = [step(), last, {"eval_miou": 0.5}, last]
    watch.on_log(None, state, control)
    assert not control.should_training_stop
    assert watch.check(state.log_history) is None
    state.log_history.append(last)
    watch.on_log(None, state, control)
    assert control.should_training_stop
    with pytest.raises(AssertionError, match=rf"stopped, because in the last 3 logged steps .*{words}"):
        raise AssertionError(watch.check(state.log_history))
    assert Watch(0, 0.95, 5.0, 1024).check(state.log_history[:1] + state.log_history) is None, "0 stops no run"


def test_one_step_that_teaches_keeps_a_run_alive():
    dead = step(same=1)
    assert Watch(3, 0.95, 5.0, 1024).check([dead, dead, step(same=0.9), dead, dead]) is None


def test_a_run_whose_every_reward_is_zero_is_no_success_without_a_bar():
    zero = step(same=1, zero=1)
    assert "no answer of the run earned a reward" in Watch(0, 1, 5.0, 64).check([zero, zero])
    assert Watch(0, 1, 5.0, 64).check([zero, step(same=1, zero=0.99)]) is None
    assert Watch(0, 1, 5.0, 64).check([]) is None


def dead(folder, **more):
    """Return the options of a run whose answers are all cut before their end."""
    return options(folder, max_steps=4, eval_steps=1, max_completion_length=3, dead_steps=2, **more)


def test_a_dead_run_ends_with_an_error_and_keeps_what_is_whole(tmp_path):
    with pytest.raises(SystemExit, match=r"error: the run was stopped, because in the last 2 logged steps .*were cut"):
        cli.main(dead(tmp_path))
    assert {folder.name for folder in tmp_path.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
    assert GenSegR1.from_pretrained(str(tmp_path / "best"), device="cpu"), "a checkpoint was scored"
    assert json.loads((tmp_path / "best" / "evaluation" / "held_out.json").read_text())["as_loaded"]
    with pytest.raises(SystemExit, match="error: the run was stopped"):
        cli.main(dead(tmp_path))
    assert len([entry for entry in history(tmp_path) if ZERO in entry]) <= 3, "a resumed run counts on"


def test_a_run_without_a_reward_fails_and_leaves_no_best_that_nobody_scored(tmp_path):
    run = options(tmp_path, max_steps=1, max_completion_length=3, dead_steps=0, eval_strategy="no", eval_data="")
    with pytest.raises(SystemExit, match=r"error: no answer of the run earned a reward: .*max_completion_length 3"):
        cli.main(run)
    assert (tmp_path / "checkpoint-1").is_dir()
    assert not (tmp_path / "best").exists()


def test_all_processes_of_a_dead_run_fail(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--tee=3"]
    command += ["-m", "genseg_training.cli", *dead(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_TORCH_DEVICE": "cpu"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode != 0
    said = run.stdout + run.stderr
    assert said.count("error: the run was stopped") >= 2, said[-3000:]
    assert (tmp_path / "best" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"dead_share": 0}, "dead_share must lie above 0"),
        ({"dead_steps": -1}, "dead_steps must be 0 or more"),
        ({"dynamic_sampling": -1}, "dynamic_sampling must be 0 or more"),
        ({"best_dtype": "float8"}, "no best_dtype 'float8'"),
    ],
)
def test_bars_that_cannot_be_are_refused(more, message):
    arguments = grpo_arguments.parse({"config": cli.recipes()["nano_r1"]} | more)
    with pytest.raises(ValueError, match=message):
        grpo_arguments.check(*arguments)
