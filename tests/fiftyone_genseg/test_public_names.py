"""The names that users type, import or store. Each is spelled out here, so that nobody changes one by accident."""

import importlib
import importlib.metadata
import importlib.util
import json
import re

import eta.core.utils as etau
import pytest
import typer
import yaml
from fiftyone.operators.registry import OperatorRegistry
from genseg_hub import archives, checkpoints, dialects
from genseg_hub.checkpoints.catalog import EMBEDDED, KNOWN
from genseg_hub.evaluation.metrics import POLICIES
from genseg_hub.figures import NAMES
from genseg_hub.publishing.card import card
from genseg_training import cli as training

from fiftyone_genseg.cli import app
from tests.conftest import ROOT

IMPORTS = {
    "genseg_hub": "Failure GenSegR1 InstancePrompt Prediction Progress ReferringExample Response ResponseError",
    "fiftyone_genseg": "evaluate",
    "fiftyone_genseg.evaluation": "ReferringEvaluation ReferringEvaluationConfig ReferringResults",
    "fiftyone_genseg.model": "ReferringSegmentationModel",
    "fiftyone_genseg.zoo": "download_model load_model resolve_input",
}
# FiftyOne stores these paths with each evaluation run.
STORED_CLASSES = (
    "fiftyone_genseg.evaluation.ReferringEvaluationConfig",
    "fiftyone_genseg.evaluation.ReferringEvaluation",
    "fiftyone_genseg.evaluation.ReferringResults",
)
OPERATORS = (
    "@fiftyone-genseg/genseg/referring_segment",
    "@fiftyone-genseg/genseg/ask",
    "@fiftyone-genseg/genseg/ask_settings",
    "@fiftyone-genseg/genseg/compare_checkpoints",
    "@fiftyone-genseg/genseg/evaluate_referring_segmentation",
    "@fiftyone-genseg/genseg/export_referring_examples",
    "@fiftyone-genseg/genseg/load_referring_dataset",
    "@fiftyone-genseg/genseg/load_predictions",
    "@fiftyone-genseg/genseg/pull_checkpoint",
    "@fiftyone-genseg/genseg/push_checkpoint",
    "@fiftyone-genseg/genseg/release_model",
    "@fiftyone-genseg/genseg/stop_run",
    "@fiftyone-genseg/genseg/tag_failure_slice",
    "@fiftyone-genseg/genseg/train_on_view",
)
PANELS = (
    "@fiftyone-genseg/genseg/ask_panel",
    "@fiftyone-genseg/genseg/referring_evaluation",
    "@fiftyone-genseg/genseg/failure_slices",
    "@fiftyone-genseg/genseg/past_runs",
    "@fiftyone-genseg/genseg/side_by_side",
)
SCRIPTS = {"genseg": "fiftyone_genseg.cli:app", "genseg-train": "genseg_training.cli:main"}
MODEL_OPTIONS = (
    " --dialect --max-new-tokens --max-pixels --min-pixels --dtype --device-map --attn-implementation --quantization "
    "--backend --token --cache-dir --local-files-only --force-download --concurrency --timeout"
)
COMMANDS = {
    "segment": "image expression --model -m --segmenter --device --revision --server --served-model --json --out"
    + MODEL_OPTIONS,
    "segment-dataset": "dataset --expression --expression-field --group-slice --output-field --model -m --segmenter "
    "--revision --existing --batch-size --device --server --served-model --engine --workers --gpus-per-worker "
    "--address --images --shard" + MODEL_OPTIONS,
    "benchmark": "name --split --model -m --segmenter --against --root --out --predictions --policy --first-expression "
    "--limit --strict --overwrite --workers --gpus-per-worker --address --shard --batch-size --device --revision "
    "--server "
    "--served-model" + MODEL_OPTIONS,
    "reproduce": "name --root --out --plan --push",
    "demo": "--out --headless --scenes --photos --model -m --device --server --served-model --port" + MODEL_OPTIONS,
    "doctor": "--json",
    "models": "",
    "pull": "name --revision --dialect",
    "push": "folder repo_id --private --revision --dry-run",
    "push-dataset refscenes": "repo_id --private --revision --dry-run",
    "serve": "name further --engine --host --port --max-model-len --media-folder --revision --dialect --dry-run",
    "evaluate refscenes": "--split --model -m --segmenter --limit --batch-size --device --revision --server "
    "--served-model --out --rows" + MODEL_OPTIONS,
    "evaluate compare": "base others",
    "plugin install": "",
    "plugin uninstall": "",
}
TRAINING_COMMANDS = ("sft", "grpo", "data", "mine", "vision", "nano-sft", "segmenter", "export")
RECIPES = (
    "genseg_cold_start_8b",
    "genseg_r1_4b",
    "genseg_r1_8b",
    "genseg_r1_g_8b",
    "genseg_smoke_2b",
    "nano_new_kinds",
    "nano_r1",
    "nano_r1_g",
    "nano_segmenter",
    "nano_sft",
    "nano_sft_mixed",
    "nano_sft_more",
    "nano_vision",
)
REPRODUCTIONS = ("genseg_r1_4b", "genseg_r1_8b", "genseg_smoke_2b", "nano")
CHECKPOINTS = (
    "nano",
    "nano-sft",
    "Qwen/Qwen3-VL-2B-Instruct",
    "Qwen/Qwen3-VL-4B-Instruct",
    "Qwen/Qwen3-VL-8B-Instruct",
    "Ricky06662/Seg-Zero-7B",
    "Ricky06662/VisionReasoner-7B",
    "geshang/Seg-R1-7B",
    "facebook/sam3",
)
DIALECTS = (
    "genseg",
    "glm4v",
    "internvl",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_vl",
    "seg_r1",
    "seg_zero",
    "vision_reasoner",
)
BENCHMARKS = ("coco", "grefcoco", "reasonseg", "refcoco", "refcoco+", "refcoco-google", "refcocog", "refcocog-google")
EMPTY_MASK_POLICIES = ("grefcoco", "reasonseg", "refcoco")
METRICS = (
    "ciou",
    "miou",
    "target_miou",
    "box_miou",
    "n_acc",
    "t_acc",
    "pr@0.5",
    "pr@0.6",
    "pr@0.7",
    "pr@0.8",
    "pr@0.9",
)


@pytest.mark.parametrize("module", IMPORTS)
def test_names_can_be_imported(module):
    for name in IMPORTS[module].split():
        assert getattr(importlib.import_module(module), name).__name__ == name


def test_the_hub_package_exports_these_names():
    assert sorted(importlib.import_module("genseg_hub").__all__) == IMPORTS["genseg_hub"].split()


def test_the_entry_of_the_model_zoo_has_the_names_that_fiftyone_calls():
    spec = importlib.util.spec_from_file_location("zoo_entry", ROOT / "zoo" / "__init__.py")
    entry = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(entry)
    for name in ("download_model", "load_model", "resolve_input"):
        assert callable(getattr(entry, name))


@pytest.mark.parametrize("path", STORED_CLASSES)
def test_stored_runs_find_their_classes(path):
    assert etau.get_class_name(etau.get_class(path)) == path


def test_the_plugin_registers_its_operators_and_panels(plugin):
    registry = OperatorRegistry()
    assert registry.list_errors() == []
    for kind, expected in (("operator", OPERATORS), ("panel", PANELS)):
        found = [made.uri for made in registry.list_operators(builtin=False, type=kind)]
        assert sorted(found) == sorted(expected)
    listed = yaml.safe_load((ROOT / "fiftyone.yml").read_text())
    assert listed["secrets"] == ["HF_TOKEN", "OPENAI_API_KEY"]
    for kind, expected in (("operators", OPERATORS), ("panels", PANELS)):
        assert [f"{listed['name']}/{name}" for name in listed[kind]] == list(expected)


def test_the_scripts():
    scripts = importlib.metadata.distribution("fiftyone-genseg").entry_points.select(group="console_scripts")
    assert {script.name: script.value for script in scripts} == SCRIPTS


def commands(group, prefix=""):
    """Yield the name of each command, with its group, and the command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def test_each_command_of_genseg_has_its_arguments_and_options():
    found = {
        name: " ".join(text for param in command.params for text in param.opts)
        for name, command in commands(typer.main.get_command(app))
    }
    assert found == COMMANDS


def test_genseg_train_has_its_commands(capsys):
    with pytest.raises(SystemExit) as ended:
        training.main(["--help"])
    assert ended.value.code == 0
    assert tuple(re.findall(r"^  ([\w-]+) {2,}", capsys.readouterr().out, re.MULTILINE)) == TRAINING_COMMANDS


@pytest.mark.parametrize("command", [name for name in TRAINING_COMMANDS if name != "export"])
def test_a_command_of_genseg_train_says_its_options(command, capsys):
    with pytest.raises(SystemExit) as ended:
        training.main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: genseg-train {command} " in capsys.readouterr().out


def test_what_is_chosen_by_name():
    assert tuple(sorted(training.recipes())) == RECIPES
    assert tuple(training.shipped("reproductions")) == REPRODUCTIONS
    assert tuple(known.name for known in KNOWN) == CHECKPOINTS
    assert tuple(EMBEDDED) == ("nano", "nano-sft")
    assert tuple(sorted(dialects.names())) == DIALECTS
    assert tuple(sorted(archives.by_name())) == BENCHMARKS
    assert tuple(sorted(POLICIES)) == EMPTY_MASK_POLICIES
    assert tuple(NAMES) == METRICS


def test_the_keys_of_genseg_json(folder):
    made = json.loads((folder / "genseg.json").read_text())
    assert sorted(made) == ["base_model", "dialect", "dtype", "segmenter", "versions"]
    settings = {"dialect": "seg_zero", "segmenter": "facebook/sam2-hiera-tiny"}
    (folder / "genseg.json").write_text(json.dumps(settings | {"base_model": "nano-sft", "versions": {"trl": "9.8.7"}}))
    assert checkpoints.check_folder(folder, "me/mine") == settings
    (folder / "README.md").unlink()
    text = str(card(folder, "me/mine"))
    assert "`nano-sft`" in text
    assert "trl 9.8.7" in text
