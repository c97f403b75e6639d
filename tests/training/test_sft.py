"""A cold start teaches the form of answers, resumes after a kill, and gives a checkpoint from which GRPO starts."""

import json
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch
import transformers
import yaml
from genseg_hub import GenSegR1, answers
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.dialects import genseg
from genseg_hub.options import ReasonerOptions
from genseg_hub.referring_dataset import from_dataset
from genseg_training import cli, data, grpo, rewards, sft
from genseg_training.sources import load_source
from trl import ModelConfig, SFTConfig, TrlParser

from tests.helpers.grpo_runs import options as grpo_options
from tests.helpers.kill_at import run_until

TRAIN = """
import transformers
from genseg_training import cli
# die
cli.main({arguments!r})
"""
STEPS, SAVED = 24, 8


def command(folder, **options):
    chosen = {
        "output_dir": folder,
        "model_name_or_path": "nano",
        "data": "refscenes:4",
        "max_steps": STEPS,
        "save_steps": SAVED,
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "learning_rate": 2e-3,
        "lr_scheduler_type": "constant",
        "gradient_checkpointing": "false",
        "use_cpu": "true",
        "bf16": "false",
        "report_to": "none",
    } | options
    return ["sft", *(part for name, value in chosen.items() for part in (f"--{name}", str(value)))]


@pytest.fixture(scope="module")
def processor():
    return transformers.AutoProcessor.from_pretrained(EMBEDDED["nano"])


@pytest.fixture(scope="module")
def rows():
    return data.load(data.Request(["refscenes:24"]), 3).rows


@pytest.fixture
def speechless(tmp_path):
    """Make a nano that never says <answer>, so that no answer can be read."""
    folder = shutil.copytree(EMBEDDED["nano"], tmp_path / "speechless")
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    (token,) = transformers.AutoTokenizer.from_pretrained(folder)("<answer>", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        model.lm_head.weight[token] = 0
    model.save_pretrained(folder)
    return folder


def parsable(folder, examples) -> float:
    """Return the share of answers that are read without an error."""
    model = GenSegR1.from_pretrained(str(folder), device="cpu", max_new_tokens=128)
    results = list(model.segment_many(examples, 4))
    return sum(result.response.error is None for result in results) / len(results)


def test_a_killed_cold_start_goes_on_and_teaches_the_form(speechless, tmp_path):
    folder = tmp_path / "run"
    examples = list(from_dataset(load_source("refscenes:4", 42)))  # the default seed of a run
    assert parsable(speechless, examples) == 0
    arguments = command(folder, model_name_or_path=speechless)
    killed = run_until(TRAIN.format(arguments=arguments), "transformers.Trainer.training_step", SAVED + 3)
    assert killed == -signal.SIGKILL
    assert [path.name for path in folder.glob("checkpoint-*")] == [f"checkpoint-{SAVED}"]

    cli.main(arguments)
    log = [json.loads(line) for line in (folder / sft.FINAL / "logs" / sft.LOG).read_text().splitlines()]
    losses = {entry["step"]: entry["loss"] for entry in log if "loss" in entry}
    assert list(losses) == list(range(1, STEPS + 1)), "no step is done twice or left out"
    assert losses[STEPS] < losses[1] / 10
    assert parsable(folder / sft.FINAL, examples) == 1

    start = ["--model_name_or_path", str(folder / sft.FINAL), "--max_steps", "1", "--eval_data", "refscenes:val:2"]
    cli.main([*grpo_options(tmp_path / "grpo"), *start])
    assert (tmp_path / "grpo" / grpo.BEST / "model.safetensors").is_file()


def test_adapters_are_merged(tmp_path):
    lora = {"use_peft": "true", "lora_r": 4, "max_steps": 1, "save_steps": 1}
    cli.main([*command(tmp_path, **lora), "--lora_target_modules", "q_proj", "v_proj"])
    start = transformers.AutoModelForImageTextToText.from_pretrained(EMBEDDED["nano"], dtype=torch.float32)
    trained = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / sft.FINAL, dtype=torch.float32)
    changed = {
        name
        for (name, before), (_, after) in zip(start.named_parameters(), trained.named_parameters(), strict=True)
        if not torch.allclose(before, after, atol=1e-5)
    }
    assert changed
    assert all("language_model" in name and ("q_proj" in name or "v_proj" in name) for name in changed)


def test_an_answer_is_read_as_its_masks(rows):
    counts = set()
    for row in rows:
        size = tuple(row["image_size"])
        text = sft.answer(row["expression"], row["boxes"], row["masks"], size)
        response = answers.read(genseg, text, size)
        assert response.error is None
        assert not response.repaired
        assert rewards.format_reward([text], whole=True) == [1.0]
        counts.add(len(response.instances))
        assert row["expression"] in response.reasoning, "the thought is about the expression"
        number = {0: "Nothing in the image", 1: "One instance"}.get(len(row["masks"]), f"{len(row['masks'])} instances")
        assert number in response.reasoning, "and says what the masks prove"
        boxes = [instance.box for instance in response.instances]
        assert boxes == [pytest.approx(box, abs=size[0] / 500) for box in sorted(row["boxes"])]
        assert all(instance.points_outside_box == 0 for instance in response.instances)
    assert counts >= {0, 1, 2}


def test_no_expression_ends_the_thought():
    text = sft.answer("a cat</think><answer>[]</answer><|im_end|>", [], [], (10, 10))
    assert text.count("</think>") == text.count("<answer>") == text.count("</answer>") == 1
    assert "<|im_end|>" not in text


@pytest.mark.parametrize("thinking", [False, True])
def test_the_prompt_is_that_of_inference_and_a_thought_opens_once(rows, thinking):
    processor = transformers.AutoProcessor.from_pretrained(EMBEDDED["nano"])
    if thinking:  # as in templates of Thinking models
        processor.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    row = sft.answered(rows, processor, "<|im_end|>", ReasonerOptions())[0]
    chat = genseg.messages(tuple(rows[0]["image_size"]), rows[0]["expression"])
    assert row["prompt"] == processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert row["completion"].startswith("<think>") != thinking
    assert (row["prompt"] + row["completion"]).rpartition("assistant")[2].count("<think>") == 1
    assert row["completion"].endswith("</answer><|im_end|>")
    assert [image.size for image in row["images"]] == [tuple(rows[0]["image_size"])]


def test_an_answer_ends_where_generation_stops(processor, nano):
    assert sft.end_token(processor, nano.reasoner.model) == "<|im_end|>"
    other = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[1]))
    with pytest.raises(ValueError, match="generation does not stop there"):
        sft.end_token(processor, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"save_strategy": "no"}, "save_strategy must be steps"),
        ({"data": "nothing:here"}, "neither"),
        ({"no_target_share": 2}, "between 0 and 1"),
        ({"model_name_or_path": "nanno"}, "no checkpoint 'nanno'"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        cli.main(command(tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


def test_the_recipe_is_one_that_trl_takes():
    classes = (sft.SftArguments, SFTConfig, ModelConfig)
    file = cli.recipes()["genseg_cold_start_8b"]
    arguments, config, model = TrlParser(classes).parse_args_and_config(["--config", str(file), "--use_cpu", "true"])
    after = yaml.safe_load(cli.recipes()["genseg_r1_8b"].read_text())
    assert model.model_name_or_path == after["model_name_or_path"]
    assert arguments.exclude == after["exclude"], "GRPO goes on from it, and must be able to measure itself"
    assert config.max_steps % config.save_steps == 0
    assert config.output_dir == "runs/genseg_cold_start_8b"
