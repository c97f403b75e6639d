"""The operator through FiftyOne: form, SDK, delegation, and the one copy of the package."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionContext, ExecutionError

from fiftyone_genseg.operators.referring_segment import ReferringSegment

URI = "@fiftyone-genseg/genseg/referring_segment"
ROOT = Path(__file__).resolve().parents[3]


def context(dataset, **params):
    return ExecutionContext(
        operator_uri=URI,
        request_params={"dataset_name": dataset.name, "params": params, "view": [], "dataset_id": str(dataset._doc.id)},
    )


def form(dataset, **params) -> dict:
    return ReferringSegment().resolve_input(context(dataset, **params)).to_json()["type"]["properties"]


def test_the_plugin_registers_without_errors(plugin):
    from fiftyone.operators.registry import OperatorRegistry

    registry = OperatorRegistry()
    assert registry.list_errors() == []
    assert URI in [operator.uri for operator in registry.list_operators()]


def test_the_form_offers_what_is_there(dataset):
    properties = form(dataset)
    assert properties["source"]["default"] == "field"
    assert properties["expression_field"]["default"] == "expression"
    assert properties["checkpoint"]["default"] == "nano"
    choices = [choice["label"] for choice in properties["checkpoint"]["view"]["choices"]]
    assert "on this disk" in choices[0]
    assert any("Qwen3-VL-8B" in label and "will be downloaded" in label for label in choices)
    assert "problem" not in properties
    assert "expressions" in form(dataset, source="typed")
    assert properties["engine"]["default"] == "local"
    assert ("device" in properties, "workers" in properties) == (True, False)
    properties = form(dataset, engine="ray")
    assert ("device" in properties, "workers" in properties) == (False, True)


def test_no_engine_is_offered_without_ray(dataset, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find(name, *rest))
    assert "engine" not in form(dataset)


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"source": "typed", "expressions": "  \n"}, "Give either expressions"),
        ({"output_field": "9 lives"}, "'9 lives' is not a field name"),
        ({"output_field": "expression"}, "already holds something else"),
        ({"checkpoint": "nanno"}, "There is no checkpoint 'nanno'"),
        ({"batch_size": 0}, "batch size must be between 1 and 512"),
        ({"engine": "spark"}, "There is no engine 'spark'; choose 'local' or 'ray'"),
        ({"engine": "ray", "workers": 0}, "at least one worker, not 0"),
        ({"source": "field", "expression_field": "held_out"}, "must be a field of strings"),
    ],
)
def test_invalid_input_is_refused_in_the_form_and_by_the_sdk(dataset, plugin, params, problem):
    shown = form(dataset, **params)["problem"]
    assert problem in shown["error_message"]
    assert shown["invalid"]
    # FiftyOne's own validation refuses some values before the operator sees them.
    with pytest.raises(ExecutionError, match=f"{re.escape(problem)}|Validation error"):
        foo.execute_operator(URI, {"dataset": dataset}, params=params)
    assert "genseg" not in dataset.get_field_schema()


def test_the_defaults_do_something_useful(dataset, plugin):
    foo.execute_operator(URI, {"dataset": dataset}, params={})
    dataset.reload()
    assert dataset.count("genseg_responses") == 16


def test_the_operator_can_be_called_from_python(dataset, plugin):
    segment = foo.get_operator(URI)
    segment(dataset[:2], expressions=["the red shape", "all shapes"], output_field="typed")
    dataset.reload()
    assert dataset.count("typed_responses") == 4


def test_python_gets_the_error_that_the_app_shows(dataset, plugin, tmp_path):
    with pytest.raises(Exception, match=r"no config\.json"):
        foo.get_operator(URI)(dataset, "the star", checkpoint=str(tmp_path))


def test_expressions_that_are_given_win_over_the_default_field(dataset, plugin):
    foo.execute_operator(URI, {"dataset": dataset}, params={"expressions": "all shapes"})
    dataset.reload()
    assert dataset.distinct("genseg_responses.expression") == ["all shapes"]


def test_only_the_selected_samples(dataset, plugin):
    selected = dataset.values("id")[:2]
    foo.execute_operator(URI, {"dataset": dataset, "selected": selected}, params={"view_target": "SELECTED_SAMPLES"})
    dataset.reload()
    assert set(dataset.exists("genseg_responses").values("id")) == set(selected)


def test_delegated(dataset, plugin):
    from fiftyone.operators.delegated import DelegatedOperationService

    foo.execute_operator(URI, {"dataset": dataset}, params={}, request_delegation=True)
    service = DelegatedOperationService()
    service.execute_queued_operations(log=False)
    (operation,) = [o for o in service.list_operations() if o.dataset_id == dataset._doc.id]
    assert operation.run_state == "completed"
    assert operation.status.progress == 1.0
    assert "segmented" in operation.status.label
    dataset.reload()
    assert dataset.count("genseg_responses") == 16
    evaluate = "@fiftyone-genseg/genseg/evaluate_referring_segmentation"
    foo.execute_operator(evaluate, {"dataset": dataset}, params={}, request_delegation=True)
    service.execute_queued_operations(log=False)
    (operation,) = service.list_operations(operator=evaluate, dataset_id=dataset._doc.id)
    assert operation.run_state == "completed"
    assert "on 16 expressions" in operation.status.label


def test_a_delegated_run_that_cannot_load_its_checkpoint_is_failed(dataset, plugin, folder):
    from fiftyone.operators.delegated import DelegatedOperationService

    (folder / "model.safetensors").write_bytes(b"not weights")
    foo.execute_operator(URI, {"dataset": dataset}, params={"checkpoint": str(folder)}, request_delegation=True)
    service = DelegatedOperationService()
    service.execute_queued_operations(log=False)
    (operation,) = [o for o in service.list_operations() if o.dataset_id == dataset._doc.id]
    assert operation.run_state == "failed"
    assert "cannot be loaded" in operation.result.error


ONE_COPY = """
import os, sys
hidden = {hidden!r}
sys.path[:] = [p for p in sys.path if os.path.realpath(p or ".") not in hidden]
import fiftyone.operators as foo
operator = foo.get_operator("{uri}")
import fiftyone_genseg.operators.referring_segment as imported
assert type(operator) is imported.ReferringSegment, type(operator)
copies = {{m.__file__ for name, m in list(sys.modules.items()) if name.endswith("referring_segment")}}
assert len(copies) == 1, copies
print(imported.__file__)
"""


@pytest.mark.parametrize(("how", "installed"), [("linked", True), ("downloaded", True), ("downloaded", False)])
def test_exactly_one_copy_is_imported(how, installed, tmp_path, plugin):
    """Where FiftyOne has copied the repository and the package is installed, too, the package runs."""
    folder = tmp_path / "plugins" / "genseg"
    folder.parent.mkdir()
    if how == "linked":
        folder.symlink_to(plugin.resolve())
    else:
        for name in ("fiftyone.yml", "requirements.txt", "fiftyone_genseg", "hub", "training"):
            _copy(ROOT / name, folder / name)
    hidden = [] if installed else [str(ROOT / path) for path in ("", "hub", "training")]
    result = subprocess.run(
        [sys.executable, "-c", ONE_COPY.format(hidden=[os.path.realpath(h) for h in hidden], uri=URI)],
        env=os.environ | {"FIFTYONE_PLUGINS_DIR": str(folder.parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).is_relative_to(ROOT if installed else folder.resolve())


def _copy(source: Path, target: Path) -> None:
    import shutil

    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def test_registering_is_cheap():
    """FiftyOne executes the entry file at every operator call: nothing heavy may hang on it."""
    code = (
        "import sys, types, fiftyone_genseg; "
        "fiftyone_genseg.register(types.SimpleNamespace(register=print)); "
        "print([m for m in ('torch', 'transformers', 'sam2', 'genseg_training') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *registered, heavy = result.stdout.splitlines()
    assert len(registered) == 19
    assert heavy == "[]"


def test_classes_are_labels(dataset, plugin):
    segment = foo.get_operator(URI)
    segment(dataset[:1], ["all shapes", "all -> circles"], classes={"all shapes": "shape"}, checkpoint="nano")
    dataset.reload()
    found = dataset.first()["genseg"].detections
    assert {(d.label, d["expression"]) for d in found} <= {
        ("shape", "all shapes"),
        ("all -> circles", "all -> circles"),
    }
    assert ("shape", "all shapes") in {(d.label, d["expression"]) for d in found}
    assert "the red car -> car" in form(dataset, source="typed")["expressions"]["view"]["description"]
