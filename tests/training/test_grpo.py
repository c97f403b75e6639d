"""GRPO with TRL's own trainer on nano: it runs, resumes exactly, and refuses what cannot work."""

from pathlib import Path

import genseg_hub
import pytest
import torch
from genseg_training import cli, grpo
from safetensors.torch import load_file
from transformers import TrainerCallback

NANO = str(Path(genseg_hub.__file__).parent / "nano")
RECIPE = "training/recipes/nano_r1.yaml"


def options(folder, **more):
    settings = {
        "model_name_or_path": NANO,
        "output_dir": folder,
        "data": "refscenes:12",
        "max_steps": 4,
        "save_steps": 2,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 0,
    } | more
    return ["grpo", "--config", RECIPE, *(f"--{name}={value}" for name, value in settings.items())]


class Stopped(Exception):
    pass


class StopAt(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise Stopped


def test_a_run_that_was_stopped_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch):
    cli.main(options(tmp_path / "whole"))
    trainer = grpo.GRPOTrainer

    def stopping(*args, **kwargs):
        return trainer(*args, callbacks=[StopAt()], **kwargs)

    monkeypatch.setattr(grpo, "GRPOTrainer", stopping)
    with pytest.raises(Stopped):
        cli.main(options(tmp_path / "stopped"))
    monkeypatch.setattr(grpo, "GRPOTrainer", trainer)
    cli.main(options(tmp_path / "stopped"))
    before, whole, stopped = (
        load_file(Path(folder) / "model.safetensors") for folder in (NANO, tmp_path / "whole", tmp_path / "stopped")
    )
    changed = 0
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, stopped[name], rtol=0, atol=0)
        changed += not torch.equal(tensor, before[name].float())
    assert changed > 50


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rewards": "nope"}, "no reward 'nope'"),
        ({"reward_weights": 1.0}, "6 rewards need as many"),
        ({"data": "nowhere"}, "no folder"),
    ],
)
def test_what_cannot_work_is_refused_before_it_starts(tmp_path, more, message):
    with pytest.raises(SystemExit, match=message):
        cli.main(options(tmp_path, **more))
    assert not list(tmp_path.iterdir())
