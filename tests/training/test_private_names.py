"""Names of other libraries that are not documented, and that this project relies on: each is here, and each exists.

A new version that renames one fails here with the name, before a run fails in the middle. `python -m pytest
tests/training/test_private_names.py` also checks another version, if that is installed.
"""

import ast
import inspect
from importlib import import_module, metadata
from pathlib import Path

import pytest
from trl import GRPOTrainer
from trl.generation.vllm_generation import VLLMGeneration

ROOT = Path("training/genseg_training")
LIBRARIES = ("trl", "transformers", "accelerate", "peft", "sam2")
# Documented modules: their names may change only with a notice.
PUBLIC = {
    "trl",
    "trl.data_utils",
    "transformers",
    "transformers.integrations",
    "transformers.trainer_utils",
    "accelerate.utils",
    "peft",
}
# Module, name -> what it is for.
IMPORTED = {
    ("trl.trainer.utils", "RepeatSampler"): "the order of an epoch",
    ("trl.models.utils", "unwrap_model_for_generation"): "an evaluation with divided weights",
    ("transformers.trainer", "TRAINER_STATE_NAME"): "which checkpoints are whole",
    ("transformers.integrations", "deepspeed"): "models that ZeRO-3 must not divide",
    ("peft.tuners.lora", "LoraLayer"): "what rounding takes from an update",
    ("sam2.modeling.sam2_base", "SAM2Base"): "nano's SAM 2",
    ("sam2.utils.transforms", "SAM2Transforms"): "nano's SAM 2",
}
# Members of GRPOTrainer that SegmentationGRPOTrainer overrides or calls -> parameters after self.
OF_TRAINER = {
    "_get_train_sampler": ["dataset"],
    "_generate_and_score_completions": ["inputs"],
    "_generate": ["prompts"],
    "_calculate_rewards": ["inputs", "prompts", "completions", "completion_ids_list"],
}
# What TRL's source must still say, because a member is set and never declared.
IN_TRAINER = (
    'self._metrics = {"train"',
    "self._last_loaded_step = -1",
    "self.vllm_generation = VLLMGeneration(",
    "self.reward_weights = ",
    "return prompt_ids, completion_ids, tool_mask, completions, logprobs, extra_fields, images, tool_images",
    '["completions/clipped_ratio"]',
)
OTHER = [("transformers.integrations.deepspeed", "_hf_deepspeed_config_weak_ref")]


def version(name):
    return f"{name} {metadata.version(name)}"


@pytest.mark.parametrize(("module", "name"), [*IMPORTED, *OTHER])
def test_a_name_that_is_imported_exists(module, name):
    library = module.partition(".")[0]
    found = hasattr(import_module(module), name)
    installed = "SAM 2" if library == "sam2" else version(library)
    assert found, f"{installed} has no {module}.{name} ({IMPORTED.get((module, name), 'models of ZeRO-3')})"


@pytest.mark.parametrize("name", OF_TRAINER)
def test_a_member_of_the_trainer_takes_what_it_did(name):
    member = getattr(GRPOTrainer, name, None)
    assert member is not None, f"{version('trl')}: GRPOTrainer has no {name}"
    _, *parameters = inspect.signature(member).parameters
    assert parameters == OF_TRAINER[name], f"{version('trl')}: GRPOTrainer.{name} takes {parameters}"


@pytest.mark.parametrize("words", IN_TRAINER)
def test_the_trainer_still_has_what_is_read_of_it(words):
    assert words in inspect.getsource(GRPOTrainer), f"{version('trl')}: GRPOTrainer no longer says {words!r}"


def test_vllm_is_asked_as_trl_asks_it():
    parameters = inspect.signature(VLLMGeneration.generate).parameters
    assert {"prompts", "images", "num_generations"} <= {*parameters}
    assert hasattr(VLLMGeneration, "sync_weights")


def test_every_undocumented_import_is_listed():
    found = set()
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in LIBRARIES:
                private = {alias.name for alias in node.names if alias.name.startswith("_")}
                names = {alias.name for alias in node.names} if node.module not in PUBLIC else private
                found |= {(node.module, name) for name in names}
    known = {pair for pair in IMPORTED if pair[0] not in PUBLIC}
    assert found - known == set(), "list these names above, with what they are for"
    assert known - found == set(), "nothing imports these names any more"


def test_every_private_member_of_the_trainer_is_listed():
    """Calls of `super()` and overridden members, in the trainer's module."""
    source = ast.parse((ROOT / "trainer.py").read_text())
    own = next(n for n in source.body if isinstance(n, ast.ClassDef) and n.name == "SegmentationGRPOTrainer")
    defined = {node.name for node in own.body if isinstance(node, ast.FunctionDef)}
    overridden = {name for name in defined if name.startswith("_") and hasattr(GRPOTrainer, name)} - {"__init__"}
    assert overridden == {*OF_TRAINER}
