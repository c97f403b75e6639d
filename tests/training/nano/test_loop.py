"""The stages of nano's training: they learn, resume exactly, and run on two processes."""

import json
import os
import subprocess
import sys

import pytest
import torch
from genseg_training import cli
from genseg_training.nano import loop, segmenter, sft, vision
from safetensors.torch import load_file

TINY = {"batch_images": 2, "log_steps": 1, "eval_steps": 1000, "save_steps": 2, "warmup_steps": 1, "threads": 2}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Evaluation on two questions instead of 192."""
    monkeypatch.setattr(sft, "HELD_OUT_QUESTIONS", 2)
    monkeypatch.setattr(sft, "MAX_NEW_TOKENS", 8)
    yield
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vision")
    vision.pretrain(loop.LoopConfig(str(folder), steps=2, **TINY))
    return folder


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stage", ["sft", "segmenter"])
def test_a_run_that_was_stopped_ends_where_an_uninterrupted_one_does(stage, pretrained, tmp_path, monkeypatch):
    def run(folder):
        if stage == "sft":
            sft.train(sft.SftConfig(str(folder), steps=4, init=str(pretrained / "reasoner"), questions=2, **TINY))
        else:
            segmenter.train(loop.LoopConfig(str(folder), steps=4, **TINY))

    run(tmp_path / "whole")
    schedule = loop._schedule

    def stop(step, config):
        if step == 3:
            raise Stopped
        return schedule(step, config)

    monkeypatch.setattr(loop, "_schedule", stop)
    with pytest.raises(Stopped):
        run(tmp_path / "stopped")
    monkeypatch.setattr(loop, "_schedule", schedule)
    run(tmp_path / "stopped")
    weights = ("reasoner" if stage == "sft" else "segmenter") + "/model.safetensors"
    whole, stopped = (load_file(tmp_path / name / weights) for name in ("whole", "stopped"))
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, stopped[name], rtol=0, atol=0)


def test_the_loss_falls(tmp_path):
    vision.pretrain(loop.LoopConfig(str(tmp_path), steps=30, **(TINY | {"batch_images": 8})))
    losses = [row["loss"] for row in rows(tmp_path) if "loss" in row]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_two_processes_average_their_gradients(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29777"]
    options = [f"--{key}={value}" for key, value in (TINY | {"threads": 1}).items()]
    command += ["-m", "genseg_training.cli", "vision", f"--output_dir={tmp_path}", "--steps=2", *options]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    assert [row["step"] for row in rows(tmp_path) if "loss" in row] == [1, 2]
    assert (tmp_path / "reasoner" / "model.safetensors").is_file()


def test_export_joins_the_parts_into_a_checkpoint(pretrained, tmp_path):
    from genseg_hub import GenSegR1

    segmenter.train(loop.LoopConfig(str(tmp_path / "segmenter"), steps=1, **TINY))
    cli.main(["export", str(pretrained), str(tmp_path / "segmenter"), str(tmp_path / "checkpoint")])
    model = GenSegR1.from_pretrained(str(tmp_path / "checkpoint"), device="cpu")
    assert model.dialect.__name__.endswith("genseg")


def test_a_recipe_and_overrides_make_the_config(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(sft, "train", seen.append)
    cli.main(["sft", "--config", "training/recipes/nano_sft.yaml", "--steps", "7"])
    assert (seen[0].steps, seen[0].questions, seen[0].init) == (7, 5, "runs/nano_vision/reasoner")


def test_what_is_missing_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit, match="run `genseg-train vision` first"):
        cli.main(["sft", "--init", str(tmp_path), "--output_dir", str(tmp_path)])
    with pytest.raises(SystemExit):
        cli.main(["nonsense"])
    assert "commands:" in capsys.readouterr().out
