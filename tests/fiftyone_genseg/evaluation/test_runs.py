"""The life of an evaluation run of FiftyOne: what is stored, loaded, renamed, replaced and refused."""

import os
import subprocess
import sys
from pathlib import Path

import fiftyone as fo
import numpy as np
import pandas as pd
import pytest
from bson import json_util

import fiftyone_genseg
from fiftyone_genseg import evaluation
from fiftyone_genseg.evaluation.table import MATCHES, TABLE
from tests.helpers.squares import KINDS, one, one_of_each, square


@pytest.fixture
def dataset(make):
    return make(*one_of_each())


def test_the_life_of_a_run(dataset):
    before = set(dataset.get_field_schema(flat=True))
    results = fiftyone_genseg.evaluate(dataset.limit(5), eval_key="ev")
    assert dataset.list_evaluations(type="detection", method="referring") == ["ev"]
    dataset.clear_cache()
    loaded = dataset.load_evaluation_results("ev", cache=False)
    assert loaded.figures() == results.figures()
    pd.testing.assert_frame_equal(loaded.table, results.table)
    assert loaded.custom_metrics == results.custom_metrics
    assert dataset.load_evaluation_view("ev").values("id") == dataset.limit(5).values("id")
    dataset.rename_evaluation("ev", "renamed")
    assert dataset.values("renamed_failure")[:5] == KINDS[:5]
    assert not dataset.has_field("ev_failure")
    fiftyone_genseg.evaluate(dataset, eval_key="renamed")  # replaces it
    assert len(dataset.load_evaluation_results("renamed", cache=False).table) == 10
    dataset.delete_evaluation("renamed")
    after = set(dataset.get_field_schema(flat=True))
    assert {name for name in after - before if "metadata" not in name} == set()
    assert dataset.list_evaluations() == []


def test_a_process_that_never_loaded_the_plugin_can_use_the_run(dataset):
    fiftyone_genseg.evaluate(dataset, eval_key="ev")
    dataset.persistent = True
    code = f"""
import fiftyone as fo
dataset = fo.load_dataset({dataset.name!r})
results = dataset.load_evaluation_results("ev")
print(type(results).__module__, round(results.metrics()["miou"], 4), len(dataset.load_evaluation_view("ev")))
dataset.rename_evaluation("ev", "other")
dataset.delete_evaluation("other")
print(dataset.list_evaluations(), [name for name in dataset.get_field_schema() if name.startswith("other")])
"""
    environment = os.environ | {"FIFTYONE_PLUGINS_DIR": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["fiftyone_genseg.evaluation 0.266 10", "[] []"], done.stderr


def test_nothing_is_recorded_without_a_key(dataset):
    before = dataset.get_field_schema(flat=True).keys()
    results = fiftyone_genseg.evaluate(dataset)
    assert results.table["kind"].tolist() == KINDS
    assert dataset.list_evaluations() == []
    assert dataset.get_field_schema(flat=True).keys() == before
    assert dataset.count("metadata") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pred_field": "nope"}, "does not exist; fields of Detections: ground_truth, genseg"),
        ({"gt_field": "expression"}, "holds no Detections"),
        ({"gt_field": "genseg"}, "the same field"),
        ({"policy": "coco"}, "there is no policy 'coco'"),
        ({"eval_key": "not a key"}, "must be a valid variable name"),
        ({"expression_field": "genseg"}, "'genseg' must be a field of strings, or of lists"),
        ({"objects_field": "expression"}, "holds no Detections"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(dataset, arguments, message):
    before = dataset.get_field_schema(flat=True).keys()
    with pytest.raises(ValueError, match=message):
        fiftyone_genseg.evaluate(dataset, **({"eval_key": "ev"} | arguments))
    assert dataset.get_field_schema(flat=True).keys() == before


def test_keys_and_labels_that_would_collide_are_refused(dataset):
    fiftyone_genseg.evaluate(dataset, eval_key="ev")
    with pytest.raises(ValueError, match="fields of the run 'ev'"):
        fiftyone_genseg.evaluate(dataset, eval_key="ev_iou")
    dataset.add_sample_field("mine_tp", fo.IntField)
    for key, field in (("mine", "mine_tp"), ("label", "detections.label"), ("confidence", "detections.confidence")):
        with pytest.raises(ValueError, match=f"would overwrite the field .*{field}"):
            fiftyone_genseg.evaluate(dataset, eval_key=key)
    sample = dataset.first()
    sample["genseg"].detections.append(fo.Detection(label="x", bounding_box=[0, 0, 1, 1]))
    sample.save()
    with pytest.raises(ValueError, match="1 of the 7 detections in 'genseg' have no mask"):
        fiftyone_genseg.evaluate(dataset, eval_key="other")
    assert dataset.list_evaluations() == ["ev"]


def test_a_run_that_fails_leaves_the_one_before(dataset, monkeypatch):
    fiftyone_genseg.evaluate(dataset, eval_key="ev")
    monkeypatch.setattr("fiftyone_genseg.evaluation.reading.Reader.check_masks", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fiftyone_genseg.evaluate(dataset, eval_key="ev")
    assert len(dataset.load_evaluation_results("ev", cache=False).table) == 10


def test_a_run_is_replaced_whole(dataset):
    """What only the earlier run wrote is gone, and nothing of it stays in the database."""
    runs, files = (fo.core.odm.get_db_conn()[name] for name in ("runs", "fs.files"))
    fiftyone_genseg.evaluate(dataset, eval_key="ev")
    before = runs.count_documents({}), files.count_documents({})
    fiftyone_genseg.evaluate(dataset.limit(3), eval_key="ev")
    assert dataset.values("ev_failure") == [*KINDS[:3], *[None] * 7]
    assert dataset.count("genseg.detections.ev") == dataset.limit(3).count("genseg.detections.ev") > 0
    assert (runs.count_documents({}), files.count_documents({})) == before


def test_expressions_are_normalized_before_they_are_evaluated(make):
    """A response is found under its normalized expression, however the sample and the labels spell it."""
    rows = one("the  red\tshape", [square(0, 0)], [square(0, 0, expression="the red shape")])
    rows["genseg_responses"][0]["expression"] = "the red shape"
    results = fiftyone_genseg.evaluate(make(rows))
    assert results.table[["expression", "kind"]].values.tolist() == [["the red shape", "correct"]]


def test_a_run_of_before_the_packages_had_wings_opens():
    """The run was stored by version 0.1.0, at the commit before its classes moved."""
    stored = json_util.loads((Path(__file__).parents[2] / "data" / "evaluation_run_0.1.0.json").read_text())
    database = fo.core.odm.get_db_conn()
    (document,) = stored["datasets"]
    for collection in ("datasets", "runs", "fs.files", "fs.chunks"):
        database[collection].insert_many(stored[collection])
    database[document["sample_collection_name"]].insert_many(stored["samples"])
    dataset = fo.load_dataset(document["name"])
    try:
        assert dataset.list_evaluations(type="detection", method="referring") == ["before"]
        results = dataset.load_evaluation_results("before")
        assert isinstance(results, evaluation.ReferringResults)
        assert results.figures() == pytest.approx(stored["figures"])
        assert results.table["kind"].tolist() == stored["kinds"] == KINDS
        dataset.rename_evaluation("before", "after")
        assert dataset.values("after_failure") == KINDS
        dataset.delete_evaluation("after")
        assert not dataset.has_field("after_failure")
    finally:
        dataset.delete()


def test_a_view_on_the_run_that_is_replaced(dataset):
    fiftyone_genseg.evaluate(dataset, eval_key="ev")
    wrong = dataset.match(fo.ViewField("ev_failure") == "wrong_instance")
    results = fiftyone_genseg.evaluate(wrong, eval_key="ev")
    assert results.table["kind"].tolist() == ["wrong_instance"]


def test_an_undeclared_attribute_is_not_overwritten(dataset):
    sample = dataset.first()
    sample["genseg"].detections[0]["score"] = 0.7
    sample.save()
    with pytest.raises(ValueError, match="have an attribute 'score'"):
        fiftyone_genseg.evaluate(dataset, eval_key="score")


def test_results_are_compact():
    """60 bytes an expression, as varied as real ones: a million of them in 60 MB."""
    n, rng = 200_000, np.random.default_rng(0)
    words = np.array(["the", "a", "red", "blue", "man", "dog", "left", "right", "of", "with", "holding", "chair"])
    target = rng.integers(0, 120_000, n) * (rng.random(n) < 0.9)
    found = (target * rng.uniform(0, 1.5, n)).astype(int)
    ids = [f"{0x6B04A507BD622321C7000000 + i:024x}" for i in range(4 * n)]
    table = pd.DataFrame(
        {
            "sample_id": ids[::4],
            "image": np.arange(n) // 3,
            "expression": [" ".join(words[row]) for row in rng.integers(0, len(words), (n, 6))],
            "status": "segmented",
            "intersection": (np.minimum(target, found) * rng.random(n)).astype(int),
            "target_area": target,
            "prediction_area": found,
            "image_area": 640 * 480,
            "box_iou": rng.random(n),
            "n_true": rng.integers(1, 3, n),
            "n_predicted": rng.integers(1, 3, n),
            "n_missed": rng.integers(0, 2, n),
            "n_extra": rng.integers(0, 2, n),
            "target_x": rng.random(n),
            "target_y": rng.random(n),
            "distractors": -1,
            "seconds": rng.random(n),
            "tokens": rng.integers(20, 200, n),
            "memory_bytes": 1.9e9,
        }
    ).astype(TABLE)
    matches = pd.DataFrame(
        {"gt_id": ids[1::4], "pred_id": ids[2::4], "iou": rng.random(n), "confidence": rng.random(n)}
    ).astype(MATCHES)
    config = evaluation.ReferringEvaluationConfig("genseg", "ground_truth")
    results = evaluation.ReferringResults(None, config, "ev", table, matches)
    stored = json_util.dumps(results.serialize())
    assert len(stored) < 60 * n
    loaded = evaluation.ReferringResults._from_dict(json_util.loads(stored), None, config, "ev")
    assert loaded.figures() == results.figures()


def test_a_view_is_measured_without_reading_the_schema_of_the_whole_dataset(dataset, monkeypatch):
    monkeypatch.setattr(fo.Dataset, "get_dynamic_field_schema", lambda *_, **__: 1 / 0)
    read = []
    values = fo.DatasetView.values
    monkeypatch.setattr(fo.DatasetView, "values", lambda view, *a, **b: read.append(len(view)) or values(view, *a, **b))
    monkeypatch.setattr(fo.Dataset, "count", lambda *_: 1 / 0)
    results = fiftyone_genseg.evaluate(dataset.limit(3), eval_key="ev", progress=False)
    assert len(results.table) == 3
    assert set(read) == {3}
