"""The stages of nano's training: they learn, resume exactly, and end in a checkpoint."""

import contextlib
import itertools
import json

import pytest
import torch
import transformers
from genseg_hub import GenSegR1
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_training import cli
from genseg_training.nano import architecture, loop, segmenter, sft
from safetensors.torch import load_file

TINY = {"batch_images": 2, "log_steps": 1, "save_steps": 1, "warmup_steps": 1}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Replace what takes seconds a step on a CPU without bfloat16, and evaluate on two queries instead of 192."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())
    monkeypatch.setattr(torch.optim, "Muon", lambda groups, **kwargs: torch.optim.AdamW(groups))
    monkeypatch.setattr(sft, "HELD_OUT_QUERIES", 2)
    monkeypatch.setattr(sft, "MAX_NEW_TOKENS", 8)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def processor():
    return transformers.AutoProcessor.from_pretrained(EMBEDDED["nano"])


@pytest.fixture(scope="module")
def untrained(processor, tmp_path_factory):
    """Write a run with an untrained reasoner, as stage 1 would."""
    folder = tmp_path_factory.mktemp("untrained")
    architecture.build_reasoner(processor.tokenizer).save_pretrained(folder / "reasoner")
    processor.save_pretrained(folder / "reasoner")
    return folder


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stage", ["sft", "segmenter"])
def test_a_stage_that_was_stopped_ends_where_an_uninterrupted_one_does(stage, untrained, tmp_path, monkeypatch):
    def run(folder):
        if stage == "sft":
            init = str(untrained / "reasoner")
            sft.train(sft.SftConfig(str(folder), steps=2, init=init, questions=2, threads=2, **TINY))
        else:
            segmenter.train(loop.LoopConfig(str(folder), steps=2, **TINY))

    clip, calls = torch.nn.utils.clip_grad_norm_, itertools.count(1)

    def stop(*args):
        if next(calls) == 2:
            raise Stopped
        return clip(*args)

    run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", stop)
        with pytest.raises(Stopped):
            run(tmp_path / "stopped")
    run(tmp_path / "stopped")
    weights = ("reasoner" if stage == "sft" else "segmenter") + "/model.safetensors"
    whole, stopped = (load_file(tmp_path / name / weights) for name in ("whole", "stopped"))
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, stopped[name], rtol=0, atol=0)


def test_the_vision_tower_learns(processor, tmp_path, monkeypatch):
    monkeypatch.setattr(architecture, "build_processor", lambda: processor)
    settings = TINY | {"batch_images": 4, "steps": 24, "save_steps": 24, "muon_learning_rate": 1e-3}
    cli.main(["vision", f"--output_dir={tmp_path}", *(f"--{name}={value}" for name, value in settings.items())])
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert rows[-1]["eval_color"] > 0.3, "by chance it is a seventh"
    assert (tmp_path / "reasoner" / "model.safetensors").is_file()


def test_export_joins_the_parts_into_a_checkpoint(untrained, tmp_path):
    cli.main(["export", str(untrained), str(EMBEDDED["nano"]), str(tmp_path)])
    trained, written = (load_file(folder / "model.safetensors") for folder in (untrained / "reasoner", tmp_path))
    assert all(torch.equal(written[name], tensor.half()) for name, tensor in trained.items())
    model = GenSegR1.from_pretrained(str(tmp_path), device="cpu")
    assert model.dialect.__name__.endswith("genseg")


def test_a_recipe_and_overrides_make_the_config(monkeypatch):
    seen = []
    monkeypatch.setattr(sft, "train", seen.append)
    cli.main(["nano-sft", "--config", "nano_sft", "--steps", "7"])
    assert (seen[0].steps, seen[0].questions, seen[0].init) == (7, 5, "runs/nano_vision/reasoner")


def test_a_stage_and_a_command_that_are_missing_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit, match="run `genseg-train vision` first"):
        cli.main(["nano-sft", "--init", str(tmp_path), "--output_dir", str(tmp_path)])
    with pytest.raises(SystemExit):
        cli.main(["nonsense"])
    assert "commands:" in capsys.readouterr().out
