"""Evaluation runs of FiftyOne: figures, fields, both shapes of data, and the life of a run."""

import os
import subprocess
import sys

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pandas as pd
import pytest
from bson import json_util
from genseg_hub.metrics import POLICIES
from PIL import Image

import fiftyone_genseg
from fiftyone_genseg import evaluation, labels
from fiftyone_genseg.photos import photos_dataset

from ..conftest import PHOTOS
from ..hub.test_metrics import agree, slow

WIDTH, HEIGHT = 40, 30
OPERATOR = "@fiftyone-genseg/genseg/evaluate_referring_segmentation"


def square(x, y, side=10, **attributes):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + side, x : x + side] = True
    return labels.detection_from_mask(mask, label=labels.LABEL, **attributes)


def response(expression, status):
    return fo.DynamicEmbeddedDocument(expression=expression, status=status)


@pytest.fixture
def make(tmp_path):
    """Makes datasets of samples, each with a grey image of its own."""
    made = []

    def build(*samples):
        dataset = fo.Dataset(f"eval-{tmp_path.name}-{len(made)}")
        paths = [tmp_path / f"{len(made)}-{number}.png" for number in range(len(samples))]
        for path in paths:
            Image.new("RGB", (WIDTH, HEIGHT), "gray").save(path)
        images = [fo.Sample(filepath=str(path), **fields) for path, fields in zip(paths, samples, strict=True)]
        dataset.add_samples(images, progress=False)
        dataset.add_dynamic_sample_fields()
        made.append(dataset)
        return dataset

    yield build
    for dataset in made:
        if not dataset.deleted:
            dataset.delete()


def one(expression, truth, found, status=labels.SEGMENTED):
    return {
        "expression": expression,
        "ground_truth": fo.Detections(detections=truth),
        "genseg": None if found is None else fo.Detections(detections=found),
        "genseg_responses": None if status is None else [response(expression, status)],
    }


@pytest.fixture
def dataset(make):
    return make(
        one("hit", [square(0, 0)], [square(0, 0)]),
        one("elsewhere", [square(0, 0)], [square(20, 0)]),
        one("half", [square(0, 0), square(20, 0)], [square(20, 0)]),
        one("nothing there", [], [], labels.NO_TARGET),
        one("invented", [], [square(5, 5)]),
        one("silence", [square(0, 0)], [], labels.NO_TARGET),
        one("gibberish", [square(0, 0)], [], labels.UNPARSABLE),
        one("broken", [square(0, 0)], [square(0, 0)], labels.FAILED),  # an earlier run left a mask
        one("never asked", [square(0, 0)], None, None),
        one("a bit too large", [square(5, 5, 4)], [square(5, 5, 10)]),
    )


KINDS = [
    "correct", "wrong_instance", "missed_instances", "correct", "false_alarm", "missed_target", "unparsable",
    "failed", "missing", "over_segmentation",
]  # fmt: skip


def test_the_figures_and_the_fields(dataset):
    results = fiftyone_genseg.evaluate(dataset, eval_key="ev")
    figures = results.figures()
    ious = [1, 0, 0.5, 1, 0, 0, 0, 0, 0, 0.16]
    assert dataset.values("ev_mask_iou") == pytest.approx(ious)
    assert dataset.values("ev_failure") == KINDS == results.table["kind"].tolist()
    assert dataset.values("ev_no_target_correct")[2:5] == [None, True, False]
    assert figures["miou"] == pytest.approx(np.mean(ious))
    assert figures["ciou"] == pytest.approx((100 + 100 + 16) / (100 + 200 + 200 + 100 + 400 + 100))
    assert (figures["n"], figures["n_no_target"], figures["n_failed"]) == (10, 2, 3)
    assert figures["n_acc"] == 0.5
    assert dataset.values("ev_tp") == [1, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert dataset.values("ev_fn")[:3] == [0, 1, 1]
    assert dataset.values("ground_truth.detections.ev")[2] == ["fn", "tp"]
    assert dataset.values("genseg.detections.ev_iou")[0] == [1.0]
    assert dataset.values("ev_box_iou")[0] == 1.0
    assert dataset.values("ev_box_iou")[3] is None


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
    assert {name for name in dataset.get_field_schema(flat=True) if "metadata" not in name} == {
        name for name in before if "metadata" not in name
    }


def test_several_expressions_per_image(make):
    dataset = make(
        {
            "ground_truth": fo.Detections(
                detections=[square(0, 0, expression=["left one"]), square(20, 0, expression=["right one", "clean one"])]
            ),
            "genseg": fo.Detections(
                detections=[square(0, 0, expression="left one"), square(0, 0, expression="right one")]
            ),
            "genseg_responses": [
                response("left one", labels.SEGMENTED),
                response("right one", labels.SEGMENTED),
                response("clean one", labels.NO_TARGET),
                response("a camel", labels.NO_TARGET),
            ],
            "asked": ["left one", "right one", "clean one", "a camel"],
        },
        {"ground_truth": fo.Detections(), "genseg": fo.Detections(), "genseg_responses": [], "asked": []},
    )
    results = fiftyone_genseg.evaluate(dataset, eval_key="ev")
    kinds = dict(zip(results.table["expression"], results.table["kind"], strict=True))
    assert kinds == {"left one": "correct", "right one": "wrong_instance", "clean one": "missed_target"}
    assert results.config.counts["not_annotated"] == 1
    assert dataset.values("ev_failure") == [["correct", "wrong_instance", "missed_target"], None]
    assert dataset.values("ev_mask_iou")[0] == pytest.approx(1 / 3)
    listed = fiftyone_genseg.evaluate(dataset, eval_key="ev", expression_field="asked")
    assert listed.table["kind"].tolist() == ["correct", "wrong_instance", "missed_target", "correct"]
    assert dataset.values("ev_no_target_correct") == [True, None]


def test_predictions_of_others_need_no_responses(make):
    truth = fo.Detections(detections=[square(0, 0)])
    dataset = make(
        {"expression": "a", "ground_truth": truth.copy(), "other": fo.Detections(detections=[square(0, 0)])},
        {"expression": "b", "ground_truth": truth.copy(), "other": fo.Detections()},
        {"expression": "c", "ground_truth": truth.copy(), "other": None},
    )
    results = fiftyone_genseg.evaluate(dataset, "other")
    assert results.table["kind"].tolist() == ["correct", "missed_target", "missing"]


def test_masks_of_another_size_and_unreadable_ones_are_counted(make, tmp_path):
    truth = square(0, 0)
    coarse = fo.Detection(label="x", bounding_box=truth.bounding_box, mask=np.ones((2, 2), bool))
    lost = fo.Detection(label="x", bounding_box=truth.bounding_box, mask_path=str(tmp_path / "lost.png"))
    dataset = make(
        one("coarse", [truth], [coarse]),
        one("image gone", [square(0, 0)], [square(0, 0)]),
        one("prediction lost", [square(0, 0)], [lost]),
        one("truth lost", [lost.copy()], [square(0, 0)]),
    )
    gone = dataset.match(fo.ViewField("expression") == "image gone").first()
    gone.filepath = str(tmp_path / "gone.png")
    gone.save()
    results = fiftyone_genseg.evaluate(dataset, eval_key="ev")
    assert results.config.counts == {
        "resized_masks": 1,
        "unreadable_masks": 2,
        "not_annotated": 0,
        "failed_expressions": 2,
    }
    assert dataset.values("ev_failure") == ["correct", "correct", "failed", "failed"]
    assert (results.figures()["n_target"], results.figures()["n_failed"]) == (4, 2)
    assert dataset.get_evaluation_info("ev").config.counts["unreadable_masks"] == 2


def test_a_view_that_filters_labels_is_honoured(make):
    dataset = make(one("a", [square(0, 0)], [square(0, 0, confidence=0.9), square(20, 0, confidence=0.2)]))
    assert fiftyone_genseg.evaluate(dataset).table["kind"].tolist() == ["extra_instances"]
    sure = dataset.filter_labels("genseg", fo.ViewField("confidence") > 0.5)
    assert fiftyone_genseg.evaluate(sure, eval_key="sure").table["kind"].tolist() == ["correct"]
    assert dataset.values("genseg.detections.sure") == [["tp", None]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pred_field": "nope"}, "does not exist; fields of Detections: ground_truth, genseg"),
        ({"gt_field": "expression"}, "holds no Detections"),
        ({"gt_field": "genseg"}, "the same field"),
        ({"policy": "coco"}, "there is no policy 'coco'"),
        ({"eval_key": "not a key"}, "must be a valid variable name"),
        ({"expression_field": "genseg"}, "must hold a string"),
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
    monkeypatch.setattr("fiftyone_genseg.checks.check_masks", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fiftyone_genseg.evaluate(dataset, eval_key="ev")
    assert len(dataset.load_evaluation_results("ev", cache=False).table) == 10


def test_a_view_on_the_run_that_is_replaced(dataset):
    fiftyone_genseg.evaluate(dataset, eval_key="ev")
    wrong = dataset.match(fo.ViewField("ev_failure") == "wrong_instance")
    results = fiftyone_genseg.evaluate(wrong, eval_key="ev")
    assert results.table["kind"].tolist() == ["wrong_instance"]


def test_odd_labels_fail_alone(make):
    odd = square(0, 0)
    odd.bounding_box = [float("nan"), 0, 0.1, 0.1]
    colour = fo.Detection(label="x", bounding_box=[0, 0, 0.25, 0.25], mask=np.ones((8, 10, 3), np.uint8))
    said = square(0, 0, prompt_box=[float("nan")] * 4)
    dataset = make(
        one("good", [square(0, 0)], [said]), one("nan", [square(0, 0)], [odd]), one("rgb", [square(0, 0)], [colour])
    )
    results = fiftyone_genseg.evaluate(dataset, eval_key="ev")
    assert dataset.values("ev_failure") == ["correct", "failed", "failed"]
    figures = results.figures()
    assert (figures["n_target"], figures["n_failed"], figures["box_miou"]) == (3, 2, pytest.approx(1 / 3))


def test_small_predictions_are_nothing_everywhere(make):
    dataset = make(
        one("tiny on target", [square(0, 0, 4)], [square(0, 0, 4)]), one("tiny on nothing", [], [square(0, 0, 4)])
    )
    results = fiftyone_genseg.evaluate(dataset, eval_key="ev", min_pixels=50)
    assert dataset.values("ev_failure") == ["missed_target", "correct"]
    assert dataset.values("ev_no_target_correct") == [None, True]
    assert results.table["prediction_area"].tolist() == [0, 0]
    assert dataset.values("ev_tp") == dataset.values("ev_fp") == [0, 0]
    assert results.metrics()["recall"] == 0
    loaded = dataset.load_evaluation_results("ev", cache=False)
    assert loaded.figures() == results.figures()
    assert (loaded.figures()["n_acc"], loaded.figures()["t_acc"]) == (1, 0)


def test_a_label_that_two_samples_share_is_judged_on_each(make):
    shared = square(0, 0)
    dataset = make(one("hit", [shared], [square(0, 0)]), one("missed", [shared], [square(20, 0)]))
    fiftyone_genseg.evaluate(dataset, eval_key="ev")
    assert dataset.values("ground_truth.detections.ev") == [["tp"], ["fn"]]
    assert dataset.values("ev_fn") == [0, 1]


def test_an_undeclared_attribute_is_not_overwritten(dataset):
    sample = dataset.first()
    sample["genseg"].detections[0]["score"] = 0.7
    sample.save()
    with pytest.raises(ValueError, match="have an attribute 'score'"):
        fiftyone_genseg.evaluate(dataset, eval_key="score")


def test_subsets_recompute_the_figures(dataset):
    results = fiftyone_genseg.evaluate(dataset, eval_key="ev")
    with results.use_subset(dict(type="field", field="expression", value="hit")):
        assert results.metrics()["ciou"] == 1
    assert results.metrics()["ciou"] < 1


def test_distractors_are_counted_where_the_objects_are_known(make):
    def objects(*names):
        return fo.Detections(detections=[fo.Detection(label=n, bounding_box=[0, 0, 0.1, 0.1]) for n in names])

    truth = [square(0, 0)]
    truth[0].label = "cat"
    dataset = make(one("the cat", truth, []) | {"objects": objects("cat", "cat", "cat", "dog")})
    assert fiftyone_genseg.evaluate(dataset).table["distractors"].tolist() == [-1]
    assert fiftyone_genseg.evaluate(dataset, objects_field="objects").table["distractors"].tolist() == [2]


def test_results_are_compact():
    """A million expressions, as varied as real ones, in less than 60 MB."""
    n, rng = 1_000_000, np.random.default_rng(0)
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
        }
    ).astype(evaluation.TABLE)
    matches = pd.DataFrame(
        {"gt_id": ids[1::4], "pred_id": ids[2::4], "iou": rng.random(n), "confidence": rng.random(n)}
    ).astype(evaluation.MATCHES)
    config = evaluation.ReferringEvaluationConfig("genseg", "ground_truth")
    results = evaluation.ReferringResults(None, config, "ev", table, matches)
    stored = json_util.dumps(results.serialize())
    assert len(stored) < 60e6
    loaded = evaluation.ReferringResults._from_dict(json_util.loads(stored), None, config, "ev")
    assert loaded.figures() == results.figures()


@pytest.fixture(scope="module")
def photos():
    """The photos with their own masks as predictions, and with those of the next expression."""
    dataset = photos_dataset("eval-photos", PHOTOS)
    dataset.clone_sample_field("ground_truth", "same")
    dataset.compute_metadata(progress=False)
    samples, examples = list(dataset), []
    for sample in samples:
        about = [other for other in samples if other.filepath == sample.filepath]
        other = about[(about.index(sample) + 1) % len(about)]
        sample["shuffled"] = other["ground_truth"].copy()
        sample.save()
        size = sample.metadata.width, sample.metadata.height
        truth, found = (labels.union_mask(s["ground_truth"], size) for s in (sample, other))
        examples.append((truth, found, True))
    yield dataset, examples
    dataset.delete()


@pytest.mark.parametrize("policy", POLICIES)
def test_the_photos_against_themselves_and_against_shuffled_masks(policy, photos):
    dataset, examples = photos
    figures = fiftyone_genseg.evaluate(dataset, "same", policy=policy).figures()
    shares = {name: value for name, value in figures.items() if isinstance(value, float)}
    if policy == "refcoco":  # it gives a rejected no-target an IoU of 0
        share = figures["n_target"] / figures["n"]
        assert shares.pop("miou") == shares.pop("giou") == pytest.approx(share)
    assert set(shares.values()) == {1.0}
    assert figures["n"] == 48
    agree(fiftyone_genseg.evaluate(dataset, "shuffled", policy=policy).figures(), slow(examples, policy))


class TestOperator:
    def run(self, dataset, plugin, **params):
        return foo.execute_operator(OPERATOR, {"dataset": dataset}, params={"raise_errors": True} | params)

    def test_the_untouched_form_evaluates(self, dataset, plugin):
        self.run(dataset, plugin)
        dataset.reload()
        assert dataset.list_evaluations() == ["eval_genseg"]
        assert dataset.values("eval_genseg_failure") == KINDS

    def test_a_run_is_not_overwritten_by_accident(self, dataset, plugin):
        self.run(dataset, plugin, eval_key="ev")
        with pytest.raises(Exception, match="tick overwrite"):
            self.run(dataset, plugin, eval_key="ev")
        self.run(dataset, plugin, eval_key="ev", overwrite=True, policy="refcoco")
        assert dataset.get_evaluation_info("ev").config.policy == "refcoco"

    def test_it_can_be_called_and_delegated(self, dataset, plugin):
        operator = foo.get_operator(OPERATOR)
        operator(dataset.limit(3), eval_key="called")
        dataset.reload()
        assert len(dataset.load_evaluation_results("called").table) == 3
        operator(dataset, eval_key="later", delegate=True)
        from fiftyone.operators.delegated import DelegatedOperationService

        DelegatedOperationService().execute_queued_operations(dataset_name=dataset.name)
        dataset.reload()
        assert "later" in dataset.list_evaluations()

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"gt_field": "nope"}, "does not exist"),
            ({"min_pixels": -1}, "0 pixels or more"),
            ({"policy": "x"}, "no policy"),
        ],
    )
    def test_the_form_says_what_is_wrong(self, dataset, plugin, params, message):
        from fiftyone_genseg.operators import evaluate_referring_segmentation as operator

        assert message in operator._problem(dataset.view(), params)
        with pytest.raises(Exception, match="Validation error"):
            self.run(dataset, plugin, **params)
        assert dataset.list_evaluations() == []
