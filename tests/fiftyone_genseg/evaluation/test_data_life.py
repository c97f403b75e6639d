"""An evaluation run goes along through FiftyOne's own operations: export, import, clone, merge, rename, views, Hub."""

import json

import fiftyone as fo
import fiftyone.utils.huggingface as fouh
import huggingface_hub
import pandas as pd
import pytest

import fiftyone_genseg
from fiftyone_genseg.evaluation import ReferringResults
from fiftyone_genseg.evaluation.slicing import kinds
from tests.helpers.squares import KINDS, one_of_each


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
