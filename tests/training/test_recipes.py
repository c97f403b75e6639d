"""Every recipe and every configuration of accelerate is one that the libraries take; no weights are loaded."""

import re
from pathlib import Path

import genseg_hub
import pytest
import torch
import transformers
import yaml
from accelerate.commands import launch
from accelerate.commands.config.config_args import load_config_from_file
from genseg_hub.checkpoints.catalog import KNOWN
from genseg_training import cli, grpo, sft
from genseg_training.nano.loop import LoopConfig
from genseg_training.nano.sft import SftConfig
from peft import get_peft_model
from trl import ModelConfig, SFTConfig, TrlParser, get_peft_config

OTHER_STAGES = ("nano_vision", "nano_sft", "nano_segmenter", "genseg_cold_start")
RECIPES = {name: file for name, file in cli.recipes().items() if not name.startswith(OTHER_STAGES)}
RESULTS = {f"{yaml.safe_load(file.read_text())['output_dir']}/{grpo.BEST}" for file in RECIPES.values()}
# Recipes of other commands, and the options of these commands.
STAGES = {name: file for name, file in cli.recipes().items() if name not in RECIPES}
OPTIONS = {
    "nano_vision": (LoopConfig,),
    "nano_segmenter": (LoopConfig,),
    **dict.fromkeys(("nano_sft", "nano_sft_mixed", "nano_sft_more"), (SftConfig,)),
    "genseg_cold_start_8b": (sft.SftArguments, SFTConfig, ModelConfig),
}
COMMANDS = set(re.findall(r"^  ([\w-]+) {2,}", cli.USAGE, re.MULTILINE))
NANO = Path(genseg_hub.__file__).parent / "nano"
CONFIGURATIONS = sorted(Path("training/accelerate").glob("*.yaml"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_one_that_trl_takes(name):
    arguments, config, model = grpo.parse({"config": RECIPES[name], "use_cpu": True})
    assert set(arguments.rewards) <= {*grpo.REWARDS, grpo.MASK}
    assert len(config.reward_weights) == len(arguments.rewards)
    # GRPOConfig has refused incomplete groups of one process; that no number of processes leaves any is checked here.
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps % config.num_generations == 0
    assert model.model_name_or_path in {known.name for known in KNOWN} | RESULTS
    assert arguments.eval_data
    assert not arguments.root, "the user names the folder of the archives"
    assert config.eval_steps % config.save_steps == 0
    assert Path(config.output_dir).name == name


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("nano")])
def test_the_adapters_of_a_recipe_are_on_layers_that_exist(name):
    """Each module that is named is found in a Qwen3-VL, and only in its language model."""
    _, _, model_config = grpo.parse({"config": RECIPES[name], "use_cpu": True})
    peft_config = get_peft_config(model_config)
    assert (peft_config.r, peft_config.lora_alpha) == (model_config.lora_r, model_config.lora_alpha)
    with torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(NANO)
        adapted = get_peft_model(transformers.Qwen3VLForConditionalGeneration(config), peft_config)
    layers = set(adapted.targeted_module_names)
    assert {layer.rpartition(".")[2] for layer in layers} == set(model_config.lora_target_modules)
    assert all("language_model" in layer for layer in layers), "the vision tower is frozen, without adapters"


@pytest.mark.parametrize("name", RECIPES)
def test_the_sources_of_a_recipe_are_commands(root, name):
    """With empty files in the places of the official archives, every source is found."""
    for archive, file in (("refcocog", "refs(umd).p"), ("grefcoco", "grefs(unc).json")):
        for part in (file, "instances.json"):
            (root / archive).mkdir(exist_ok=True)
            (root / archive / part).touch()
    (root / "images/mscoco/images/train2014").mkdir(parents=True)
    arguments, _, _ = grpo.parse({"config": RECIPES[name], "use_cpu": True, "root": root})
    mixture, held_out = grpo.request_of(arguments).check()
    assert held_out.count or name.startswith("nano")
    trained_on = {source.name for source in mixture.parts}
    assert held_out.name not in trained_on
    if not name.startswith("nano"):
        assert held_out.name in {source.name for source in mixture.exclude}


@pytest.mark.parametrize("name", STAGES)
def test_a_recipe_of_another_stage_is_one_that_its_command_takes(name):
    flags = [] if name.startswith("nano") else ["--use_cpu", "true"]
    config, *_ = TrlParser(OPTIONS[name]).parse_args_and_config(["--config", str(STAGES[name]), *flags])
    starts = {f"{yaml.safe_load(file.read_text())['output_dir']}/reasoner" for file in STAGES.values()}
    assert getattr(config, "init", None) in {None, *starts}, "a stage starts from what another one leaves"


@pytest.mark.parametrize(
    "file",
    [
        *sorted(Path("training").glob("re*/*.yaml")),
        *map(Path, ("docs/training.md", "docs/training_results.md", "docs/reproducing.md")),
    ],
    ids=str,
)
def test_what_is_written_about_commands_exists(file):
    """Each recipe, command, script, test and configuration that is named is there."""
    text = re.sub(r"\\\n(# *)?", " ", file.read_text())
    named = [Path(found).stem for found in re.findall(r"--config[= ]([\w./-]+)", text)]
    assert set(named) <= set(cli.recipes())
    assert set(re.findall(r"(?:genseg-train|genseg_training\.cli) ([a-z][\w-]*)", text)) <= COMMANDS
    assert set(re.findall(r"genseg reproduce (\w+)(?![\w.])", text)) <= set(cli.shipped("reproductions"))
    for path in re.findall(
        r"\b(?:benchmarks|examples|tests|training/accelerate|docs)/[\w./-]+\.(?:py|md|yaml|sbatch)", text
    ):
        assert Path(path).is_file(), path


def test_the_exclusion_of_a_recipe_belongs_to_its_data():
    """Otherwise a run on one's own data would need the archives that the recipe names."""
    own = {"config": RECIPES["genseg_r1_8b"], "use_cpu": True, "data": "refscenes:8"}
    assert grpo.parse(own)[0].exclude == []
    assert grpo.parse(own | {"exclude": ["refscenes:val"]})[0].exclude == ["refscenes:val"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"lora_rank": 8}, "lora_rank"),
        ({"learning_rate": "fast"}, "invalid float value: 'fast'"),
        ({"num_generations": 7, "eval_strategy": "no"}, "divisible by num_generations"),
    ],
)
def test_what_trl_does_not_take_is_refused(tmp_path, more, message):
    settings = yaml.safe_load(RECIPES["genseg_r1_8b"].read_text())
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings | more))
    with pytest.raises(ValueError, match=message):
        grpo.parse({"config": tmp_path / "recipe.yaml", "use_cpu": True})


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda file: file.stem)
def test_an_accelerate_configuration_is_one_that_accelerate_takes(file):
    config = load_config_from_file(str(file))  # refuses unknown keys
    command = launch.launch_command_parser().parse_args(["--config_file", str(file), "-m", "genseg_training.cli"])
    options = set(vars(command))
    assert options >= {*config.fsdp_config, *config.deepspeed_config}
    taken, *_ = launch._validate_launch_command(command)
    assert taken.num_processes == config.num_processes
    assert taken.use_fsdp == (file.stem == "fsdp2")
    assert taken.use_deepspeed == file.stem.startswith("deepspeed")
    assert taken.multi_gpu == (file.stem in ("cpu_2", "multi_gpu")), "started by torchrun's launcher"


def test_the_configurations_are_there():
    assert {file.stem for file in CONFIGURATIONS} == {
        "cpu_2",
        "multi_gpu",
        "fsdp2",
        "deepspeed_zero2",
        "deepspeed_zero3",
    }
