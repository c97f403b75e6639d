"""The operator "Compare checkpoints": nano against where it came from, and the other families on photographs."""

import json

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionContext, ExecutionError
from genseg_hub.checkpoints.catalog import KNOWN

from fiftyone_genseg import proposals
from fiftyone_genseg.asking import corrections
from fiftyone_genseg.datasets.photos import photos_dataset
from fiftyone_genseg.evaluation.results import ReferringResults
from fiftyone_genseg.operators import _served_models
from fiftyone_genseg.operators.compare_checkpoints import CompareCheckpoints, ComparisonRequest
from fiftyone_genseg.panels import _figures
from tests.conftest import PHOTOS
from tests.fiftyone_genseg.operators.test_pull_checkpoint import messages, progress
from tests.helpers import sam3_words
from tests.helpers.families import save_qwen2_5_vl
from tests.helpers.simulated_servers import KEY, LISTS, simulated

TWO = {"checkpoints": ["nano", "nano-sft"]}
URI = "@fiftyone-genseg/genseg/compare_checkpoints"


def context(dataset, **params) -> ExecutionContext:
    request = {"dataset_name": dataset.name, "dataset_id": str(dataset._doc.id), "params": params}
    return ExecutionContext(operator_uri=URI, request_params=request)


def form(dataset, **params) -> dict:
    return CompareCheckpoints().resolve_input(context(dataset, **params)).to_json()["type"]["properties"]


def test_two_checkpoints_are_segmented_evaluated_and_opened(dataset, plugin):
    told = messages(URI, dataset, checkpoints=["nano", "nano-sft"], device="cpu")
    dataset.reload()
    assert dataset.list_evaluations() == ["nano", "nano_sft"]
    figures = {key: dataset.load_evaluation_results(key).figures() for key in ("nano", "nano_sft")}
    assert figures["nano"]["n"] == figures["nano_sft"]["n"] == 16
    assert figures["nano"]["miou"] > figures["nano_sft"]["miou"]
    (opened,) = [params for name, params in told if name == "open_panel"]
    assert opened["name"] == "referring_evaluation"
    assert proposals.taken(context(dataset)) == ["nano", "nano_sft"]
    assert proposals.taken(context(dataset)) is None
    shares = [share for share, _ in progress(told)]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    ((_, last),) = [t for t in told if t[0] == "notify"]
    assert f"nano: cIoU {figures['nano']['ciou']:.3f}" in last["message"]
    # Again: nothing is asked twice, and another checkpoint joins.
    stored = dataset.values("nano.detections.id")
    foo.execute_operator(URI, {"dataset": dataset}, params={"checkpoints": ["nano", "nano-sft"], "device": "cpu"})
    dataset.reload()
    assert dataset.values("nano.detections.id") == stored


def test_a_checkpoint_that_cannot_be_loaded_does_not_stop_the_others(dataset, plugin, tmp_path):
    broken = save_qwen2_5_vl(tmp_path / "broken", "seg_zero")
    (broken / "model.safetensors").write_bytes(b"not weights")
    told = messages(URI, dataset, checkpoints=[str(broken), "nano"], device="cpu")
    dataset.reload()
    assert dataset.list_evaluations() == ["nano"]
    ((_, last),) = [t for t in told if t[0] == "notify"]
    assert last["variant"] == "warning"
    assert "cannot be loaded" in last["message"]
    params = {"checkpoints": [str(broken), str(broken) + "/"], "device": "cpu", "raise_errors": True}
    with pytest.raises(ExecutionError, match="cannot be loaded"):
        foo.execute_operator(URI, {"dataset": dataset}, params=params)


def test_four_families_run_on_photographs_to_the_panel(plugin, tmp_path):
    dataset = photos_dataset(tmp_path.name, PHOTOS)
    try:
        families = [str(save_qwen2_5_vl(tmp_path / name, name)) for name in ("seg_zero", "vision_reasoner", "seg_r1")]
        params = {"checkpoints": ["nano", *families], "device": "cpu", "batch_size": 16, "raise_errors": True}
        foo.execute_operator(URI, {"view": dataset.limit(12)}, params=params)
        dataset.reload()
        keys = dataset.list_evaluations()
        assert sorted(keys) == ["nano", "seg_r1", "seg_zero", "vision_reasoner"]
        assert set(dataset.list_evaluations(method="referring")) == set(keys)
        for key in keys:
            results = dataset.load_evaluation_results(key)
            assert results.figures()["n"] == 12
            assert sum(dataset.count_values(f"{key}_responses.status").values()) == 12
        # Random weights answer nothing that can be read, and that is what is stored.
        assert dataset.count_values("seg_zero_responses.status") == {"unparsable": 12}
    finally:
        dataset.delete()


def test_fields_are_named_after_the_checkpoints():
    names = ("nano", "Qwen/Qwen3-VL-8B-Instruct", "me/Nano@v1", "/models/genseg/loop/best", "7b")
    assert ComparisonRequest(names).fields == {
        "nano": "nano",
        "Qwen/Qwen3-VL-8B-Instruct": "qwen3_vl_8b_instruct",
        "me/Nano@v1": "nano_2",
        "/models/genseg/loop/best": "loop",
        "7b": "checkpoint_7b",
    }
    names = ("nano+me/Sam-3@v1", "/models/genseg/loop/best+./sam")
    assert list(ComparisonRequest(names).fields.values()) == ["nano_sam_3", "loop_sam"]


def test_the_form_says_what_is_wrong(dataset):
    assert "Name two checkpoints" in form(dataset)["problem"]["error_message"]
    assert "Name two checkpoints" in form(dataset, checkpoints=["nano"])["problem"]["error_message"]
    properties = form(dataset, checkpoints=["nano", "Qwen/Qwen3-VL-8B-Instruct"])
    assert "problem" not in properties
    assert "`qwen3_vl_8b_instruct`: Qwen/Qwen3-VL-8B-Instruct" in json.dumps(properties["fields"])
    for name in [known.name for known in KNOWN]:
        assert name in json.dumps(properties["checkpoints"])

    def problem(**params):
        return form(dataset, checkpoints=["nano", "nano-sft"], **params)["problem"]["error_message"]

    assert "holds no Detections" in problem(gt_field="kind")
    assert "must be a field of strings" in problem(expression_field="ground_truth")
    assert "is not a Hub id" in form(dataset, checkpoints=["nano", "a b/c"])["problem"]["error_message"]
    dataset.add_sample_field("several", fo.ListField, subfield=fo.StringField)
    assert "each detection in 'ground_truth' needs an attribute 'expression'" in problem(expression_field="several")
    dataset.add_sample_field("nano", fo.StringField)
    assert "already holds something else" in problem()


def test_kept_answers_are_compared_by_their_own_expressions(dataset):
    corrections.declare(dataset)
    assert "are in 'kept_expressions'" in form(dataset, **TWO, gt_field="kept")["problem"]["error_message"]
    assert "problem" not in form(dataset, **TWO, gt_field="kept", expression_field="kept_expressions")


@pytest.mark.parametrize("kind", ["ollama"])
def test_a_model_that_only_the_server_knows_is_compared_with_a_checkpoint(kind, dataset, plugin, nano, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    _served_models._lists.clear()
    served = LISTS[kind]["data"][0]["id"]
    with simulated(kind, nano.reasoner) as server:
        params = {"checkpoints": ["nano-sft"], "server": server.url, "device": "cpu", "segmenter": "nano"}
        shown = form(dataset, **params)
        assert served in [choice["value"] for choice in shown["served_models"]["view"]["choices"]]
        assert "Models of the server count" in shown["problem"]["error_message"]
        assert "segmenter" not in shown
        shown = form(dataset, **params, served_models=[served])
        assert "problem" not in shown
        assert "segmenter" in shown
        told = messages(URI, dataset, **params, served_models=[served])
    dataset.reload()
    field = ComparisonRequest(served_models=(served,)).fields[served]
    assert dataset.list_evaluations() == ["nano_sft", field]
    assert dataset.distinct(f"{field}_responses.checkpoint") == [f"{served}+nano"]
    assert {request["model"] for request in server.requests} == {served}
    ((_, last),) = [t for t in told if t[0] == "notify"]
    assert f"{field}: cIoU" in last["message"]
    assert last["message"].count("(asked on the server)") == 1


def test_served_models_belong_to_a_server():
    request = ComparisonRequest.from_params({"served_models": [" qwen3-vl:4b ", ""], "server": " ", "segmenter": "x"})
    assert request == ComparisonRequest()
    request = ComparisonRequest(("nano",), served_models=("qwen3-vl:4b", "Org/Model@q4"), server="http://x/v1")
    assert list(request.fields.values()) == ["nano", "qwen3_vl_4b", "model_q4"]


def test_a_name_is_a_checkpoint_or_a_model_of_the_server(dataset):
    params = {"checkpoints": ["nano"], "served_models": ["nano"], "server": "http://127.0.0.1:1/v1"}
    assert "'nano' is named as a checkpoint and as a model" in form(dataset, **params)["problem"]["error_message"]


def test_sam3_by_words_is_compared_with_a_checkpoint(dataset, plugin, tmp_path):
    sam3 = sam3_words.save(tmp_path / "tiny" / "sam3")
    params = {"checkpoints": ["nano", str(sam3)], "device": "cpu", "max_pixels": 40_000, "raise_errors": True}
    assert "problem" not in form(dataset, **params)
    foo.execute_operator(URI, {"view": dataset.limit(6)}, params=params)
    dataset.reload()
    assert sorted(dataset.list_evaluations()) == ["nano", "sam3"]
    view = dataset.limit(6)
    assert set(view.distinct("sam3_responses.status")) <= {"segmented", "no_target"}
    assert set(view.distinct("nano_responses.options")) == {"max_pixels=40000"}
    assert view.distinct("sam3_responses.options") == []  # SAM 3 has no reasoner, to which they belong
    assert set(view.distinct("sam3_responses.tokens")) == {0}
    results = {key: dataset.load_evaluation_results(key) for key in ("nano", "sam3")}
    for key, found in results.items():
        assert (found.table["seconds"] > 0).all()
        assert (found.table["memory_bytes"] > 1e8).all()
        assert found.table["tokens"].tolist() == [its[0] for its in view.values(f"{key}_responses.tokens")]
    rows = {key: np.ones(len(found.table), bool) for key, found in results.items()}
    shown = {row["figure"]: row for row in _figures.figure_rows(results, rows)}
    assert shown["tokens per expression"]["run_1"] == "0.0"
    assert shown["tokens per expression"]["run_0"] == f"{results['nano'].table['tokens'].mean():.1f}"
    assert float(shown["seconds per expression"]["run_0"]) >= 0
    assert float(shown["memory, GB"]["run_0"]) > 0.1
    # A run of an earlier version has no costs.
    found = results["nano"]
    old = found.table.drop(columns=["seconds", "tokens", "memory_bytes"])
    earlier = ReferringResults(view, found.config, "old", old, found.matches)
    shown = {row["figure"]: row["run_0"] for row in _figures.figure_rows({"old": earlier}, {"old": rows["nano"]})}
    assert [shown[name] for name in ("seconds per expression", "tokens per expression", "memory, GB")] == ["-"] * 3


def test_fields_of_agents_are_named_apart():
    names = ("nano", "nano+sam3-agent", "nano+facebook/sam3", "nano+sam3-agent:./tiny/sam3")
    assert list(ComparisonRequest(names).fields.values()) == [
        "nano",
        "nano_agent_sam3",
        "nano_sam3",
        "nano_agent_sam3_2",
    ]
