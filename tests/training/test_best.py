"""What a run publishes is what was scored: the merged weights as they load, beside the figures of the start."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from genseg_hub import GenSegR1, checkpoints
from genseg_hub.publishing import card, publish
from genseg_hub.referring_dataset import to_dataset
from genseg_training import best, cli, export
from genseg_training.nano.refscenes import refscenes
from peft import PeftModel
from safetensors.torch import load_file, save_file

from tests.helpers.grpo_runs import options

LORA = {"use_peft": "true", "lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def of_lora(tmp_path_factory):
    """Finish a run that trains adapters; tests only read it."""
    folder = tmp_path_factory.mktemp("lora")
    cli.main(options(folder, max_steps=1, **LORA))
    return folder


def test_a_run_of_lora_gives_adapter_and_merged_weights(of_lora):
    folder = of_lora / "best"
    settings = json.loads((folder / "genseg.json").read_text())
    start = checkpoints.pull("nano").reasoner
    load = transformers.AutoModelForImageTextToText.from_pretrained
    merged, base = (load(its, dtype=torch.float32) for its in (folder, start))
    adapted = PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload()
    for (name, ours), theirs in zip(merged.state_dict().items(), adapted.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, msg=name)
    adapter = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "nano", "no folder of this machine"
    assert all(publish.is_published(file.relative_to(folder)) for file in (folder / "adapter").iterdir())
    assert settings["lora_update"]["stored_in"] == "float32"
    assert "dtype" not in settings or settings["dtype"] == checkpoints.pull("nano").options.dtype


def test_rounding_takes_a_small_update_away_and_the_card_says_so(of_lora):
    update = json.loads((of_lora / "best" / "genseg.json").read_text())["lora_update"]
    assert update["lost_in_float32"] < 0.01 < update["lost_in_float16"] < update["lost_in_bfloat16"]
    text = card.card(of_lora / "best", "me/r1").text
    assert f"{update['lost_in_bfloat16']:.1%} in bfloat16" in text


def test_the_lost_share_by_hand(of_lora, tmp_path):
    """The norm of the rounding error over the norm of the update, measured on the written files."""
    trained = of_lora / "checkpoint-1"
    whole, rounded = tmp_path / "whole", tmp_path / "rounded"
    for folder, dtype in ((whole, "auto"), (rounded, "bfloat16")):
        export.export(trained, folder, "facebook/sam2.1-hiera-tiny", dtype=dtype)
    weights, cut = (load_file(folder / "model.safetensors") for folder in (whole, rounded))
    base = load_file(checkpoints.pull("nano").reasoner / "model.safetensors")
    assert {tensor.dtype for tensor in cut.values()} == {torch.bfloat16}
    error = update = 0.0
    for name, tensor in weights.items():
        if not torch.equal(tensor, base[name].float()):
            error += (cut[name].float() - tensor).double().square().sum().item()
            update += (tensor - base[name].float()).double().square().sum().item()
    stated = json.loads((rounded / "genseg.json").read_text())["lora_update"]
    assert stated["stored_in"] == "bfloat16"
    assert stated["lost_in_bfloat16"] == pytest.approx((error / update) ** 0.5, rel=0.01)


def test_a_named_precision_is_stored_and_loaded(tmp_path):
    cli.main(options(tmp_path, max_steps=1, best_dtype="float16", eval_on_start="false", **LORA))
    folder = tmp_path / "best"
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float16}
    assert GenSegR1.from_pretrained(str(folder), device="cpu").reasoner.model.dtype == torch.float16
    assert not (folder / "evaluation" / "start.json").exists(), "it was not scored"


def test_the_figures_are_of_the_weights_as_they_load(finished_r1):
    folder = finished_r1 / "best"
    report = json.loads((folder / "evaluation" / "held_out.json").read_text())
    assert report["as_loaded"]
    model = GenSegR1.from_pretrained(str(folder), device="cpu")
    measured = best.scores.evaluate(model, refscenes("val", 4), 4).compute()
    assert measured["miou"] == report["miou"]
    start = json.loads((folder / "evaluation" / "start.json").read_text())
    assert (start["start"], start["step"]) == (True, 0)
    made = card.card(folder, "me/r1")
    assert "(before the training)" in made.text
    assert "as `GenSegR1.from_pretrained` loads them" in made.text
    assert {result.dataset_config for result in made.data.eval_results} == {"held_out"}, "none of the start's figures"


def test_a_killed_evaluation_goes_on_and_a_whole_one_asks_nothing(copy_of_r1, monkeypatch):
    folder = copy_of_r1 / "best"
    (done,) = copy_of_r1.glob("evaluations/best-step-*/*.jsonl")
    lines = done.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    asked = []

    def counted(model, examples, batch_size, keep):
        return measure(model, examples, batch_size, lambda example, *rest: (asked.append(1), keep(example, *rest)))

    measure = best.scores.evaluate
    monkeypatch.setattr(best.scores, "evaluate", counted)
    file = done.with_name(done.name)
    step = json.loads((folder / "evaluation" / "held_out.json").read_text())["step"]
    held_out = to_dataset(refscenes("val", 4))
    whole = best.evaluate(folder, held_out, "refscenes:val:4", step, "cpu", 2)
    assert not asked
    file.write_text("".join(lines[:2]) + lines[2][: len(lines[2]) // 2])
    again = best.evaluate(folder, held_out, "refscenes:val:4", step, "cpu", 2)
    assert len(asked) == 2
    assert again | {"cost": None} == whole | {"cost": None}
    assert again["cost"]["tokens"] == whole["cost"]["tokens"]
    assert sorted(json.loads(line)["place"] for line in file.read_text().splitlines()) == [0, 1, 2, 3]


@pytest.fixture
def beaten(copy_of_r1):
    """Return a finished run whose start had the highest mIoU, with checkpoints that tell."""
    for file in copy_of_r1.glob("checkpoint-*/trainer_state.json"):
        state = json.loads(file.read_text())
        for entry in state["log_history"]:
            if entry.get("step") == 0 and "eval_miou" in entry:
                entry["eval_miou"] = state["best_metric"] + 0.01
        file.write_text(json.dumps(state))
    weights = load_file(copy_of_r1 / "checkpoint-2" / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, copy_of_r1 / "checkpoint-2" / "model.safetensors")
    shutil.rmtree(copy_of_r1 / "best")
    return copy_of_r1


def test_a_start_that_no_checkpoint_beats_wins(beaten, capsys):
    cli.main(options(beaten))
    assert "no checkpoint beats the start: mIoU" in capsys.readouterr().out
    start = load_file(checkpoints.pull("nano").reasoner / "model.safetensors")
    for name, tensor in load_file(beaten / "best" / "model.safetensors").items():
        assert np.array_equal(tensor.float(), start[name].float())
    report = json.loads((beaten / "best" / "evaluation" / "held_out.json").read_text())
    assert (report["step"], report["start_won"]) == (0, True)
    assert "No checkpoint of the run was better" in card.card(beaten / "best", "me/r1").text


def test_the_weights_of_the_start_are_not_published_as_a_result(hub, beaten):
    with pytest.raises(SystemExit, match="error: nothing was published, because no checkpoint beats the start"):
        cli.main(options(beaten, push_to_hub="true", hub_model_id="me/nano", hub_strategy="end"))
    assert (beaten / "best" / "model.safetensors").is_file()
