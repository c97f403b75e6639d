"""A run publishes its best checkpoint, and a failure of the Hub ends no run."""

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from genseg_hub import GenSegR1, checkpoints
from genseg_training import cli, curves
from genseg_training.nano.refscenes import refscenes
from PIL import Image

from tests.helpers.checkpoints import weights
from tests.helpers.grpo_runs import options
from tests.helpers.hub_server import COMMIT, READER, REPO, WRITER

PUSH = {"push_to_hub": "true", "hub_model_id": REPO}


def test_what_was_trained_comes_back_from_the_hub_the_same(hub, tmp_path, caplog):
    with hub.fault(COMMIT, 503, times=1):
        cli.main(options(tmp_path, **PUSH))
    assert "step 1 was not published: the Hub has a problem" in caplog.text
    best = tmp_path / "best"
    repository = hub.repositories[REPO]
    assert list(repository.titles.values())[-2:] == ["Best checkpoint after step 2", "Best checkpoint of the run"]
    assert hub.paths(REPO) >= {"curves.png", "recipe.yaml", "logs/grpo.jsonl", "evaluation/held_out.json", "README.md"}
    assert not any("hub" in option for option in yaml.safe_load((best / "recipe.yaml").read_text()))
    pulled = checkpoints.pull(REPO)
    assert pulled.commit == hub.heads()[REPO]["main"]
    assert weights(pulled.reasoner) == weights(best)
    ours, theirs = (GenSegR1.from_pretrained(name, device="cpu") for name in (str(best), REPO))
    for example in refscenes("val", 3):
        a, b = ours.segment(example.image, example.expression), theirs.segment(example.image, example.expression)
        assert a.response == b.response
        assert all(map(np.array_equal, a.masks, b.masks))
        assert len(a.masks) == len(b.masks)


def test_only_the_end_is_published_where_that_is_asked_for(hub, tmp_path):
    private = {"hub_strategy": "end", "hub_private_repo": "true", "hub_revision": "run-1", "hub_token": WRITER}
    cli.main(options(tmp_path, **PUSH, **private, max_steps=1))
    assert hub.repositories[REPO].private
    assert hub.repositories[REPO].titles[hub.heads()[REPO]["run-1"]] == "Best checkpoint of the run"
    assert "Best checkpoint after step 1" not in hub.repositories[REPO].titles.values()
    assert hub.paths(REPO) == {".gitattributes"}, "main is left alone"
    saved = torch.load(tmp_path / "checkpoint-1" / "training_args.bin", weights_only=False)
    assert saved.hub_token is None, "the token is not saved"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".best")]


def test_a_push_that_fails_at_the_end_leaves_the_checkpoint_here(hub, copy_of_r1, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(SystemExit, match="error: the token may not write to me/nano, nothing was published"):
        cli.main(options(copy_of_r1, **PUSH))
    assert f"the best checkpoint is in {copy_of_r1 / 'best'}" in capsys.readouterr().out
    assert GenSegR1.from_pretrained(str(copy_of_r1 / "best"), device="cpu")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "needs hub_model_id|not a Hub id"),
        ({"hub_model_id": "name"}, "needs hub_model_id as owner/name, got 'name'"),
        ({"hub_model_id": "me/na me"}, "'me/na me' is not a Hub id"),
        ({"hub_model_id": REPO, "hub_strategy": "all_checkpoints"}, "hub_strategy is end or every_save"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_training(hub, tmp_path, more, message):
    with pytest.raises(SystemExit, match=message):
        cli.main(options(tmp_path, push_to_hub="true", **more))
    assert not list(tmp_path.iterdir())
    assert hub.requests == []


def test_a_push_without_a_token_is_refused_before_training(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(SystemExit, match="needs a token of the Hub"):
        cli.main(options(tmp_path, **PUSH))
    assert not list(tmp_path.iterdir())


def test_curves_show_what_a_log_has(tmp_path):
    log = [
        {"step": 1, "rewards/box_iou_reward/mean": 0.4, "entropy": 0.9},
        {"step": 2, "rewards/box_iou_reward/mean": 0.5, "entropy": 0.8},
        {"step": 2, "eval_miou": 0.5, "eval_ciou": 0.4},
        {"train_runtime": 3.0},
    ]
    curves.draw(log, tmp_path / "with.png")
    curves.draw([], tmp_path / "without.png")
    with_lines, empty = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("with", "without"))
    assert with_lines.shape == empty.shape
    assert (with_lines != empty).any(-1).mean() > 0.01
