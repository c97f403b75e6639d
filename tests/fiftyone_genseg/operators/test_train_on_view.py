"""From a view to a trained checkpoint that the other operators take, as a delegated operation of the App."""

import json
import re
import subprocess
import sys
from contextlib import contextmanager

import datasets
import fiftyone as fo
import fiftyone.operators as foo
import pytest
import torch
import yaml
from fiftyone.operators.delegated import DelegatedOperationService
from fiftyone.operators.executor import ExecutionContext, ExecutionError
from genseg_training import grpo

import fiftyone_genseg
from fiftyone_genseg import training_runs
from fiftyone_genseg.asking import corrections
from fiftyone_genseg.datasets import export
from fiftyone_genseg.operators.referring_segment import ReferringSegment
from fiftyone_genseg.operators.train_on_view import TrainOnView
from tests.fiftyone_genseg.panels.test_panels import SLICES, Panel

URI = "@fiftyone-genseg/genseg/train_on_view"
SEGMENT = "@fiftyone-genseg/genseg/referring_segment"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(fo.config, "model_zoo_dir", str(tmp_path / "models"))
    return tmp_path / "models" / "genseg"


@pytest.fixture
def recipe(tmp_path):
    """Write nano_r1 with few completions."""
    settings = yaml.safe_load(training_runs.recipes()["nano_r1"].read_text())
    small = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "num_generations": 4}
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(settings | small))
    return str(file)


def form(operator, uri, dataset, **params) -> dict:
    context = ExecutionContext(
        operator_uri=uri, request_params={"dataset_name": dataset.name, "view": [], "params": params}
    )
    return operator.resolve_input(context).to_json()["type"]["properties"]


def train(view, **params):
    """Queue the run and work through the queue as `fiftyone delegated launch` does."""
    foo.execute_operator(URI, {"view": view.view()}, params=params, request_delegation=True)
    service = DelegatedOperationService()
    service.execute_queued_operations(log=False)
    dataset = view._dataset if isinstance(view, fo.DatasetView) else view
    return max(
        (o for o in service.list_operations() if o.dataset_id == dataset._doc.id and o.operator == URI),
        key=lambda o: o.queued_at,
    )


def test_the_loop_is_closed(dataset, plugin, recipe, home):
    foo.execute_operator(SEGMENT, {"dataset": dataset}, params={"output_field": "before"})
    fiftyone_genseg.evaluate(dataset, "before", "ground_truth", eval_key="before")
    panel = Panel(SLICES, dataset).send("on_load")
    prompt = panel.send("train").asked[0][1]
    assert prompt["operator_uri"] == URI
    assert len(prompt["params"]["pairs"]) == 16

    done = train(dataset, name="better", recipe=recipe, steps=2, **prompt["params"])
    assert done.run_state == "completed", done.result.error
    assert done.status.progress == 1.0
    assert re.fullmatch(r"step 2 of 2, held-out mIoU [\d.]+, reward [\d.]+", done.status.label)
    result = done.result.result
    assert result["checkpoint"] == str(home / "better" / "best")
    assert result["best_step"] in (1, 2)
    held_out = datasets.load_from_disk(home / "better" / "held_out")
    learnt = datasets.load_from_disk(home / "better" / "train")
    assert {*held_out["image_id"]}.isdisjoint(learnt["image_id"])
    assert len({*held_out["image_id"]}) == 1
    assert len(held_out) + len(learnt) == 16
    assert f"on {len(held_out)} examples" in result["before"]
    settings = json.loads((home / "better" / "best" / "genseg.json").read_text())
    assert settings["base_model"] == "nano"

    choices = form(ReferringSegment(), SEGMENT, dataset)["checkpoint"]["view"]["choices"]
    (ours,) = [choice["value"] for choice in choices if choice["label"] == "better (trained here)"]
    foo.execute_operator(SEGMENT, {"dataset": dataset}, params={"output_field": "after", "checkpoint": ours})
    fiftyone_genseg.evaluate(dataset, "after", "ground_truth", eval_key="after")
    panel = Panel(SLICES, dataset).send("on_load").send("choose_run", value="after")
    panel.send("choose_against", value="before")
    assert "against before on 16 expressions" in panel.data["difference"]


def test_what_was_kept_is_trained_on(dataset, plugin, recipe, home):
    foo.execute_operator(SEGMENT, {"dataset": dataset}, params={})
    dataset.delete_sample_field("ground_truth")
    kept = dataset.limit(14)  # the last two are asked, and never judged
    for sample_id, expression in zip(*kept.values(["id", "expression"]), strict=True):
        corrections.keep(dataset, sample_id, "genseg", expression)
    done = train(dataset, name="kept", recipe=recipe, steps=1)
    assert done.run_state == "completed", done.result.error
    saved = [datasets.load_from_disk(home / "kept" / name) for name in ("train", "held_out")]
    assert sorted(e for part in saved for e in part["expression"]) == sorted(kept.values("expression"))


PAUSED = """
import sys, time
from pathlib import Path
from fiftyone_genseg import training_runs

def pause(share, label):
    if share == 1:
        print("paused", flush=True)
        time.sleep(600)

training_runs.run(Path(sys.argv[1]), pause)
"""


@contextmanager
def paused_in_another_process(folder):
    """Train in another process until its last step, and kill the process at the end."""
    process = subprocess.Popen([sys.executable, "-c", PAUSED, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert "paused\n" in process.stdout
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_run_that_was_killed_goes_on_as_it_was_begun(dataset, plugin, recipe, home):
    from fiftyone_genseg.datasets.export import examples

    found = list(examples(dataset, "ground_truth", "expression"))
    plan = training_runs.Plan("begun", "nano", recipe, 2, mix="refscenes:8", held_out="refscenes:val:8")
    folder = training_runs.prepare(plan, found)
    assert not (folder / "held_out").exists()
    properties = form(TrainOnView(), URI, dataset, name="begun")
    assert "goes on from nano" in json.dumps(properties["begun"])
    assert set(properties) == {"name", "begun"}
    done = train(dataset, name="begun", steps=50)
    assert done.run_state == "failed"
    assert "was begun with steps 2, not 50" in done.result.error
    with paused_in_another_process(folder):
        done = train(dataset, name="begun")
        assert "'begun' is being trained already" in done.result.error
    (first,) = folder.glob("checkpoint-*")
    written_at = (first / "trainer_state.json").stat().st_mtime_ns
    done = train(dataset, name="begun")
    assert done.run_state == "completed", done.result.error
    assert (folder / "checkpoint-1" / "trainer_state.json").stat().st_mtime_ns == written_at, "it was trained again"
    assert "step 2 of 2" in done.status.label
    written = yaml.safe_load((folder / "best" / "recipe.yaml").read_text())
    assert written["data"] == ["train", "refscenes:8"], "no path of this machine"
    assert written["eval_data"] == "refscenes:val:8"
    assert training_runs.trained() == {"begun": folder / "best"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"name": "../up"}, "'../up' is no name"),
        ({"name": "done"}, "There is a run 'done'"),
        ({"expression_field": "words"}, "There is no field 'words'"),
        ({"recipe": "nano_sft"}, "no recipe 'nano_sft'; choose a file or one of"),
        ({"steps": 0}, "must be 1 or more, got 0"),
        ({"gt_field": "nothing"}, "field 'nothing' holds no Detections"),
        ({"checkpoint": "nowhere"}, "There is no checkpoint 'nowhere'"),
        ({"mix": "refscene:8"}, "is neither rendered scenes (refscenes:COUNT)"),
        ({"mix": "refscenes:none"}, "is none of refscenes:10000"),
        ({"held_out": "refscenes:test"}, "final figures alone"),
    ],
)
def test_what_cannot_work_is_refused_before_it_is_queued(dataset, plugin, home, params, message):
    (home / "done").mkdir(parents=True)
    (home / "done" / "outcome.json").write_text("{}")
    given = {"name": "new"} | params
    problem = form(TrainOnView(), URI, dataset, **given)["problem"]
    assert problem["invalid"]
    assert message in problem["error_message"]
    with pytest.raises(ExecutionError, match=f"{re.escape(message)}|must be greater"):
        train(dataset, **given)
    assert {file.name for file in home.iterdir()} == {"done"}


@pytest.mark.parametrize(("capability", "bf16"), [("AVX2", False), ("AVX512", True)])
def test_a_cpu_without_bfloat16_trains_in_float32(dataset, recipe, capability, bf16, monkeypatch):
    asked = []

    def starts(arguments, config, model_config, callbacks):
        asked.append(config)
        raise ValueError("it starts")

    monkeypatch.setattr(grpo, "train", starts)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    found = list(export.examples(dataset, "ground_truth", "expression"))
    folder = training_runs.prepare(training_runs.Plan("fast", "nano", recipe=recipe, steps=7), found)
    with pytest.raises(ValueError, match="it starts"):
        training_runs.run(folder)
    assert [(config.bf16, config.max_steps) for config in asked] == [(bf16, 7)]


def test_a_run_that_cannot_start_leaves_its_name_free(dataset, plugin, home):
    done = train(dataset.limit(12), name="new")
    assert done.run_state == "failed"
    assert "examples to train on, and 16 prompts are answered at once" in done.result.error
    assert not (home / "new").exists()


def test_without_a_way_to_delegate_the_form_says_how(dataset, plugin, monkeypatch):
    assert "orchestrator" not in form(TrainOnView(), URI, dataset)
    monkeypatch.setattr(fo.config, "allow_legacy_orchestrators", False)
    assert "FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS" in json.dumps(form(TrainOnView(), URI, dataset)["orchestrator"])


def test_too_little_is_refused(dataset, plugin, home):
    done = train(dataset.limit(1), name="new")
    assert done.run_state == "failed"
    assert "one image is too few" in done.result.error
    with pytest.raises(ExecutionError, match="There are no samples in this view"):
        train(dataset.exclude(dataset), name="new")
    assert not (home / "new").exists()
