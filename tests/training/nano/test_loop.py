"""The loop of nano's stages: it trains, resumes exactly, and averages gradients between processes."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from genseg_training.nano import loop

TINY = {"steps": 6, "log_steps": 1, "eval_steps": 6, "save_steps": 2, "warmup_steps": 1}


@pytest.fixture(autouse=True)
def torch_as_before():
    """Undo the process-wide settings of the loop."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


class Stopped(Exception):
    pass


def train(folder, stop_at=None, **settings):
    """Fit two linear layers to a linear map, and return their weights; raise Stopped at a step."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Linear(16, 16))
    seen = []

    def make_batch(seed, progress):
        return torch.randn(32, 16, generator=torch.Generator().manual_seed(int(seed.replace("-", ""))))

    def loss_of(batch):
        if len(seen) + 1 == stop_at:
            raise Stopped
        seen.append(batch)
        return (module(batch) - batch).square().mean(), {}

    config = loop.LoopConfig(str(folder), **(TINY | settings))
    loop.train(module, loop.muon_and_adamw(module, config), config, make_batch, loss_of, dict, lambda folder: None)
    return module.state_dict()


def test_the_loss_falls(tmp_path):
    train(tmp_path, steps=40)
    losses = [row["loss"] for row in rows(tmp_path) if "loss" in row]
    assert len(losses) == 40
    assert losses[-1] < 0.6 * losses[0]


def test_a_run_that_was_stopped_ends_where_an_uninterrupted_one_does(tmp_path):
    whole = train(tmp_path / "whole")
    with pytest.raises(Stopped):
        train(tmp_path / "stopped", stop_at=4)
    stopped = train(tmp_path / "stopped")
    assert [row["step"] for row in rows(tmp_path / "stopped") if "loss" in row] == [1, 2, 3, 3, 4, 5, 6]
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, stopped[name], rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match="resume with a lower learning rate"):
        train(tmp_path, learning_rate=1e30, muon_learning_rate=1e30)


AVERAGE = """
import sys
from pathlib import Path
import torch
from genseg_training.nano import loop

folder = Path(sys.argv[1])
weight = torch.nn.Linear(1, 1, bias=False)
torch.nn.init.zeros_(weight.weight)
optimizer = torch.optim.SGD([{"params": weight.parameters(), "peak": 1.0}], lr=1.0)

def make_batch(seed, progress):
    return float(seed.rpartition("-")[2])  # the rank is the gradient

def loss_of(rank):
    return weight.weight.sum() * rank, {}

config = loop.LoopConfig(str(folder), steps=1, warmup_steps=1)
loop.train(weight, [optimizer], config, make_batch, loss_of, dict, lambda folder: None)
(folder / str(torch.distributed.get_rank())).write_text(str(weight.weight.item()))
"""


def test_two_processes_average_their_gradients(tmp_path):
    (tmp_path / "average.py").write_text(AVERAGE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # as torchrun sets them
    processes = [
        subprocess.Popen(
            [sys.executable, tmp_path / "average.py", tmp_path],
            env=os.environ | group | {"RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    for process in processes:
        _, problem = process.communicate(timeout=300)
        assert process.returncode == 0, problem
    assert [float((tmp_path / rank).read_text()) for rank in ("0", "1")] == [-0.5, -0.5]
    assert len([row for row in rows(tmp_path) if "hours" in row]) == 1, "one process writes the log"
