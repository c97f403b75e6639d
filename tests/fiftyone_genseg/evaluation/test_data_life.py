"""An evaluation run goes along through FiftyOne's own operations: export, import, clone, merge, rename, views, Hub."""

import json
import subprocess
import sys

import fiftyone as fo
import fiftyone.utils.huggingface as fouh
import huggingface_hub
import pandas as pd
import pytest

import fiftyone_genseg
from fiftyone_genseg import outputs, statuses
from fiftyone_genseg.evaluation import ReferringResults
from fiftyone_genseg.evaluation.measuring import measure
from fiftyone_genseg.evaluation.request import EvaluationRequest
from fiftyone_genseg.evaluation.slicing import kinds
from fiftyone_genseg.evaluation.writing import write
from tests.helpers.squares import KINDS, one, one_of_each, square


@pytest.fixture
def dataset(make):
    return make(*one_of_each())


@pytest.fixture
def keep():
    """Return a function that deletes a dataset at the end of the test."""
    kept = []
    yield lambda dataset: kept.append(dataset) or dataset
    for dataset in kept:
        if not dataset.deleted:
            dataset.delete()


def check_run(dataset, results, key="ev", kinds_found=KINDS):
    """Assert that a dataset has the run, with its results, its fields, its view and its samples."""
    assert dataset.list_evaluations(method="referring") == [key]
    loaded = dataset.load_evaluation_results(key, cache=False)
    assert isinstance(loaded, ReferringResults)
    assert loaded.figures() == results.figures()
    assert loaded.custom_metrics == results.custom_metrics
    assert loaded.table.drop(columns="sample_id").equals(results.table.drop(columns="sample_id"))
    pd.testing.assert_frame_equal(loaded.matches, results.matches)
    assert dataset.values(f"{key}_failure") == kinds_found
    assert len(dataset.load_evaluation_view(key, select_fields=True)) == len(kinds_found)
    assert dataset.get_evaluation_info(key).config.fields_written
    return loaded


@pytest.mark.parametrize("kind", [fo.types.FiftyOneDataset, fo.types.LegacyFiftyOneDataset])
@pytest.mark.parametrize("export_media", [True, False])
def test_an_export_takes_the_run_along(dataset, keep, tmp_path, kind, export_media):
    results = fiftyone_genseg.evaluate(dataset, eval_key="ev")
    if kind is fo.types.LegacyFiftyOneDataset:  # it has no lists of embedded documents
        dataset.delete_sample_field("genseg_responses")
    folder = tmp_path / "exported"
    dataset.export(str(folder), dataset_type=kind, export_media=export_media, progress=False)
    imported = keep(fo.Dataset.from_dir(str(folder), dataset_type=kind, progress=False))
    loaded = check_run(imported, results)
    if kind is fo.types.FiftyOneDataset:  # the other one gives samples new ids
        hits = imported.match(fo.ViewField("ev_failure") == kinds.CORRECT)
        assert loaded.in_view(hits).sum() == len(hits) == 2
        with loaded.use_subset({"type": "field", "field": "expression", "value": "hit"}):
            assert loaded.metrics()["ciou"] == 1
    assert imported.to_evaluation_patches("ev").count() == dataset.to_evaluation_patches("ev").count() > 0
    imported.rename_evaluation("ev", "renamed")
    check_run(imported, results, "renamed")
    if kind is fo.types.FiftyOneDataset:
        fiftyone_genseg.evaluate(imported, eval_key="renamed")
        check_run(imported, results, "renamed")
    imported.delete_evaluation("renamed")
    assert not [name for name in imported.get_field_schema(flat=True) if "renamed" in name]


def test_a_run_that_is_loaded_from_the_database_is_exported(dataset, keep, tmp_path):
    results = fiftyone_genseg.evaluate(dataset.limit(3), eval_key="ev")
    dataset.clear_cache()
    dataset.export(str(tmp_path / "out"), dataset_type=fo.types.FiftyOneDataset, export_media=False, progress=False)
    imported = keep(fo.Dataset.from_dir(str(tmp_path / "out"), dataset_type=fo.types.FiftyOneDataset, progress=False))
    assert imported.load_evaluation_results("ev").figures() == results.figures()
    assert imported.load_evaluation_view("ev").values("id") == dataset.limit(3).values("id")


def test_results_are_text(dataset, tmp_path, capsys):
    results = fiftyone_genseg.evaluate(dataset, eval_key="ev")
    file = tmp_path / "results.json"
    for pretty in (False, True):
        results.write_json(str(file), pretty_print=pretty)
        assert (
            json.loads(file.read_text()) == json.loads(results.to_str()) == json.loads(json.dumps(results.serialize()))
        )
    again = ReferringResults.from_dict(json.loads(file.read_text()), dataset, results.config, "ev")
    assert again.figures() == results.figures()
    print(results)
    assert capsys.readouterr().out.startswith("ev: cIoU 0.")
    results.print_report()
    results.print_metrics()
    results.save()
    check_run(dataset, results)


def test_clones_and_merges(dataset, keep):
    results = fiftyone_genseg.evaluate(dataset, eval_key="ev")
    clone = keep(dataset.clone())
    check_run(clone, results)
    clone.delete_evaluation("ev")
    check_run(dataset, results)
    merged = keep(fo.Dataset())
    merged.merge_samples(dataset)
    assert merged.values("ev_failure") == KINDS
    added = keep(fo.Dataset())
    added.add_collection(dataset)
    assert added.values("ev_failure") == KINDS
    part = keep(dataset.limit(4).clone())
    assert part.values("ev_failure") == KINDS[:4]
    dataset.name = f"{dataset.name}-renamed"
    check_run(fo.load_dataset(dataset.name), results)


def test_fields_that_are_renamed_and_deleted(dataset):
    fiftyone_genseg.evaluate(dataset, eval_key="ev")
    dataset.rename_sample_field("genseg", "other")
    dataset.rename_evaluation("ev", "renamed")
    assert dataset.values("renamed_failure") == KINDS
    results = fiftyone_genseg.evaluate(dataset, "other", eval_key="mine")
    assert results.table["kind"].tolist() != []
    dataset.delete_sample_field("ground_truth")
    dataset.rename_evaluation("mine", "yours")
    for key in dataset.list_evaluations():
        dataset.delete_evaluation(key)
    assert dataset.list_evaluations() == []
    assert not [name for name in dataset.get_field_schema() if name.startswith(("renamed_", "yours_", "ev_", "mine_"))]


@pytest.mark.parametrize("how", ["clear", "delete"])
def test_a_segmented_expression_without_its_masks_is_missing(dataset, how):
    view = dataset.match(fo.ViewField("expression") == "hit")
    getattr(dataset, f"{how}_sample_field")("genseg")
    if how == "delete":
        outputs.declare_fields(dataset, "genseg")
    results = fiftyone_genseg.evaluate(view)
    assert results.table["status"].tolist() == results.table["kind"].tolist() == ["missing"]


def test_masks_that_a_view_hides_are_not_missing(dataset):
    view = dataset.match(fo.ViewField("expression") == "hit")
    view = view.filter_labels("genseg", fo.ViewField("label") == "none", only_matches=False)
    assert fiftyone_genseg.evaluate(view).table["status"].tolist() == ["segmented"]


def test_a_clone_without_responses_is_said_to_have_none(make):
    failure = one("nothing", [], [], statuses.FAILED)
    dataset = make(one("hit", [square(0, 0, checkpoint="nano")], [square(0, 0, checkpoint="nano")]), failure)
    right = fiftyone_genseg.evaluate(dataset)
    assert right.table["kind"].tolist() == ["correct", "failed"]
    assert "without response" not in right.describe()
    dataset.clone_sample_field("genseg", "first")
    results = fiftyone_genseg.evaluate(dataset, "first", eval_key="ev")
    config = dataset.get_evaluation_info("ev").config
    for counts in (results.config.counts, config.counts):
        assert counts["expressions_without_response"] == 2
    remedy = "dataset.clone_sample_field('<original>_responses', 'first_responses')"
    assert remedy in config.notes["expressions_without_response"]
    assert "2 expressions without response, first 'hit' on sample " in results.describe()
    assert remedy in str(results)
    dataset.clone_sample_field("genseg_responses", "first_responses")
    results = fiftyone_genseg.evaluate(dataset, "first", eval_key="ev")
    assert "expressions_without_response" not in results.config.counts
    assert results.table["kind"].tolist() == ["correct", "failed"]
    with pytest.raises(ValueError, match=r"clone it, and name the clone .*clone_sample_field\('genseg', 'truth'\)"):
        fiftyone_genseg.evaluate(dataset, "genseg", "genseg")
    dataset.clone_sample_field("genseg", "truth")
    assert fiftyone_genseg.evaluate(dataset, "genseg", "truth").table["kind"].tolist() == ["correct", "failed"]


ELSEWHERE = """
import sys
import fiftyone as fo
dataset = fo.load_dataset(sys.argv[1])
"""


def elsewhere(dataset, code):
    """Run code on a dataset in another process."""
    subprocess.run([sys.executable, "-c", ELSEWHERE + code, dataset.name], check=True)


@pytest.mark.parametrize(
    ("code", "field"),
    [
        ("dataset.rename_sample_field('genseg', 'renamed')", "genseg"),
        ("dataset.clone_sample_field('genseg_responses', 'other_responses')", "other_responses"),
    ],
)
def test_fields_that_another_process_changed_are_not_evaluated(dataset, code, field):
    dataset.clone_sample_field("genseg", "other")
    pred_field = field.partition("_")[0]
    before = fiftyone_genseg.evaluate(dataset, pred_field, eval_key="ev")
    measured = measuring(dataset, pred_field)
    dataset.info["unsaved"] = True
    elsewhere(dataset, code)
    stored = dataset._sample_collection.find_one()
    message = f"changed or removed the field '{field}' .* call dataset.reload()"
    with pytest.raises(ValueError, match=message):
        fiftyone_genseg.evaluate(dataset, pred_field, eval_key="ev")
    with pytest.raises(ValueError, match=message):  # the field changed while it was measured
        list(write(measured, "ev"))
    assert dataset._sample_collection.find_one() == stored
    assert dataset.info["unsaved"]
    dataset.reload()
    loaded = dataset.load_evaluation_results("ev", cache=False)
    assert loaded.figures() == before.figures()
    pred_field = pred_field if dataset.has_field(pred_field) else "renamed"
    assert fiftyone_genseg.evaluate(dataset, pred_field, eval_key="ev2").figures()["n"] == len(KINDS)


def measuring(dataset, pred_field):
    """Return a measurement that is not written."""
    steps = measure(dataset, EvaluationRequest(pred_field, eval_key="ev").config(dataset))
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def test_saved_views_and_subsets(dataset):
    results = fiftyone_genseg.evaluate(dataset, eval_key="ev")
    dataset.save_view("bad", dataset.match(fo.ViewField("ev_mask_iou") < 0.5))
    bad = dataset.load_saved_view("bad")
    assert results.in_view(bad).sum() == len(bad) == 7
    of_bad = fiftyone_genseg.evaluate(bad, eval_key="of_bad")
    assert dataset.load_evaluation_view("of_bad").values("id") == bad.values("id") == of_bad.table["sample_id"].tolist()
    patches = dataset.to_evaluation_patches("ev")
    assert results.in_view(patches).sum() == len(set(patches.values("sample_id")))
    dataset.delete_samples(dataset.limit(2))
    assert len(dataset.load_evaluation_results("ev", cache=False).table) == len(KINDS)


def test_a_dataset_is_pushed_to_the_hub_with_its_run(dataset, keep, hub, monkeypatch, tmp_path):
    results = fiftyone_genseg.evaluate(dataset, eval_key="ev")
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.endpoint)
    monkeypatch.setattr(huggingface_hub, "whoami", lambda token=None: {"name": "me"})
    monkeypatch.setattr(fouh, "_is_already_uploaded", lambda *_: False)
    fouh.push_to_hub(dataset, "scenes", private=False)
    assert "evaluations/ev.json" in hub.paths("datasets/me/scenes")
    huggingface_hub.HfApi(hub.endpoint).snapshot_download("me/scenes", repo_type="dataset", local_dir=tmp_path / "got")
    pulled = keep(fo.Dataset.from_dir(str(tmp_path / "got"), dataset_type=fo.types.FiftyOneDataset, progress=False))
    check_run(pulled, results)
