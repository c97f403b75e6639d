"""What an evaluation measures: figures and fields, in both shapes of data."""

import json
import re
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F
from genseg_hub.evaluation.metrics import POLICIES
from genseg_hub.masks import to_rle
from genseg_hub.schema import decode_mask
from PIL import Image

import fiftyone_genseg
from fiftyone_genseg import labels, statuses
from fiftyone_genseg.datasets.photos import photos_dataset
from tests.conftest import PHOTOS
from tests.helpers.squares import HEIGHT, KINDS, WIDTH, one, one_of_each, response, square
from tests.helpers.strategies import oriented
from tests.hub.evaluation.test_metrics import agree, slow


@pytest.fixture
def dataset(make):
    return make(*one_of_each())


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
                response("left one", statuses.SEGMENTED),
                response("right one", statuses.SEGMENTED),
                response("clean one", statuses.NO_TARGET),
                response("a camel", statuses.NO_TARGET),
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
        "unreadable_true_masks": 1,
        "unreadable_predicted_masks": 1,
        "not_annotated": 0,
        "failed_expressions": 1,
        "left_out_expressions": 1,
    }
    # A true mask that cannot be read is no fault of the model.
    assert dataset.values("ev_failure") == ["correct", "correct", "failed", None]
    assert (results.figures()["n_target"], results.figures()["n_failed"]) == (3, 1)
    assert results.figures()["ciou"] == pytest.approx(2 / 3), "the target of the lost prediction counts whole"
    config = dataset.get_evaluation_info("ev").config
    assert config.counts["unreadable_true_masks"] == 1
    for notes in (results.config.notes, config.notes):
        assert re.search(
            "the prediction of 'prediction lost' on sample .*: there is no file .*lost.png", notes["failed_expressions"]
        )
        assert re.search(
            "the ground truth of 'truth lost' on sample .*: there is no file", notes["left_out_expressions"]
        )
    assert "1 left out expressions, first the ground truth of 'truth lost'" in results.describe()


@pytest.mark.parametrize("attribute", ["ref", "ref_id", "ref_iou"])
def test_attributes_of_the_ground_truth_are_never_overwritten(make, attribute):
    dataset = make(one("a", [square(0, 0, **{attribute: "mine"})], [square(0, 0)]))
    with pytest.raises(ValueError, match=rf"{attribute}'; choose another key"):
        fiftyone_genseg.evaluate(dataset, eval_key="ref")
    assert dataset.first()["ground_truth"].detections[0][attribute] == "mine"
    assert not dataset.has_evaluation("ref")


def test_a_run_without_any_usable_ground_truth_is_refused(make, tmp_path):
    lost = fo.Detection(label="x", bounding_box=[0, 0, 0.1, 0.1], mask_path=str(tmp_path / "lost.png"))
    empty = fo.Detection(label="x", bounding_box=[0, 0, 0.1, 0.1], mask=np.zeros((3, 4), bool))
    dataset = make(one("lost", [lost], [square(0, 0)]), one("empty", [empty], [square(0, 0)]))
    with pytest.raises(ValueError, match=r"none of the 2 expressions can be measured: .* 'lost' .*there is no file"):
        fiftyone_genseg.evaluate(dataset, eval_key="ev")
    assert not dataset.has_evaluation("ev")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P", "I;16"])
def test_mask_files_of_any_mode_are_the_same_on_both_sides(make, tmp_path, mode):
    whole = square(3, 4)
    grey = Image.fromarray(whole.mask).convert("L")
    grey.paste(0, (0, 0, 3, 3))
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    image.save(tmp_path / "mask.png")
    stored = fo.Detection(label="x", bounding_box=whole.bounding_box, mask_path=str(tmp_path / "mask.png"))
    whole.mask = np.asarray(grey) > 0
    dataset = make(one("a", [stored.copy()], [whole.copy()]), one("b", [whole.copy()], [stored.copy()]))
    results = fiftyone_genseg.evaluate(dataset)
    assert results.table["iou"].tolist() == [1, 1]
    assert results.table["target_area"].tolist() == [91, 91]


def test_perfect_predictions_score_one_against_masks_of_fiftyones_coco_importer(tmp_path):
    rng = np.random.default_rng(0)
    images, annotations, true = [], [], {}
    for number in range(6):
        Image.new("RGB", (120, 90)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 120, "height": 90})
        corners = np.round(rng.uniform((5, 5), (115, 85), (1, 2)) + rng.uniform(-9, 9, (5, 2)), 2).clip(0, (120, 90))
        polygon = corners.ravel().tolist()
        box = [*corners.min(0), *(corners.max(0) - corners.min(0))]
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "bbox": box, "segmentation": [polygon], "iscrowd": 0}
        )
        true[number] = decode_mask(to_rle([polygon], 90, 120))
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    dataset = fo.Dataset.from_dir(
        dataset_type=fo.types.COCODetectionDataset,
        data_path=str(tmp_path),
        labels_path=str(tmp_path / "coco.json"),
        label_types="segmentations",
        label_field="ground_truth",
        progress=False,
    )
    try:
        for sample in dataset.iter_samples(autosave=True):
            number = int(Path(sample.filepath).stem)
            sample["expression"] = "thing"
            sample["perfect"] = fo.Detections(detections=[labels.detection_from_mask(true[number], label="x")])
        results = fiftyone_genseg.evaluate(dataset, "perfect", progress=False)
        assert results.table["iou"].min() == 1
        assert results.config.counts["resized_masks"] == 0
    finally:
        dataset.delete()


def test_a_view_that_filters_labels_is_honoured(make):
    dataset = make(one("a", [square(0, 0)], [square(0, 0, confidence=0.9), square(20, 0, confidence=0.2)]))
    assert fiftyone_genseg.evaluate(dataset).table["kind"].tolist() == ["extra_instances"]
    sure = dataset.filter_labels("genseg", F("confidence") > 0.5)
    assert fiftyone_genseg.evaluate(sure, eval_key="sure").table["kind"].tolist() == ["correct"]
    assert dataset.values("genseg.detections.sure") == [["tp", None]]


def test_a_view_that_filters_labels_and_hides_the_responses_keeps_the_outcomes(make):
    dataset = make(one("gibberish", [square(0, 0)], [], statuses.UNPARSABLE))
    view = dataset.filter_labels("genseg", F("label") != "x", only_matches=False).exclude_fields("genseg_responses")
    assert fiftyone_genseg.evaluate(view).table["kind"].tolist() == ["unparsable"]


@pytest.mark.parametrize(
    "only_sure",
    [
        lambda view: view.set_field("genseg.detections", F("detections").filter(F("confidence") > 0.5)),
        lambda view: view.mongo([{"$set": {"genseg.detections": {"$slice": ["$genseg.detections", 1]}}}]),
        lambda view: view[:0].concat(view.filter_labels("genseg", F("confidence") > 0.5)),
    ],
)
def test_a_view_that_changes_labels_is_honoured(make, only_sure):
    dataset = make(one("a", [square(0, 0)], [square(0, 0, confidence=0.9), square(20, 0, confidence=0.2)]))
    assert fiftyone_genseg.evaluate(only_sure(dataset)).table["kind"].tolist() == ["correct"]


def test_a_view_that_shows_samples_twice_is_measured_once_or_refused(make):
    dataset = make(*one_of_each())
    alone = fiftyone_genseg.evaluate(dataset).table["kind"].tolist()
    twice = dataset[:3].concat(dataset[1:])
    assert fiftyone_genseg.evaluate(twice).table["kind"].tolist() == alone
    changed = dataset[:3].concat(dataset.filter_labels("genseg", F("label") != "x", only_matches=False))
    with pytest.raises(ValueError, match="shows a sample twice"):
        fiftyone_genseg.evaluate(changed)


def test_a_view_that_draws_anew_is_refused(make):
    dataset = make(*(one(str(number), [square(0, 0)], [square(0, 0)]) for number in range(40)))
    with pytest.raises(ValueError, match="other samples each time"):
        fiftyone_genseg.evaluate(dataset.mongo([{"$sample": {"size": 20}}]))


def test_a_hidden_field_of_masks_is_not_a_missing_one(make):
    dataset = make(one("a", [square(0, 0)], [square(0, 0)]))
    view = dataset.select_labels(fields=["ground_truth"])
    assert fiftyone_genseg.evaluate(view).table["status"].tolist() == [statuses.SEGMENTED]


def test_a_view_that_renames_classes_is_honoured(make):
    dataset = make(one("a", [square(0, 0)], [square(0, 0)]))
    objects = [square(0, 0), square(20, 0)]
    objects[1].label = "kitten"
    dataset.set_values("objects", [fo.Detections(detections=objects)])
    renamed = dataset.map_labels("objects", {"kitten": labels.LABEL})
    for view, distractors in ((dataset, 0), (renamed, 1)):
        results = fiftyone_genseg.evaluate(view, objects_field="objects")
        assert results.table["distractors"].tolist() == [distractors]


def test_expressions_whose_true_masks_a_filter_hides_are_left_out(make):
    cat, dog = square(0, 0, expression="the cat"), square(20, 0, expression="the dog")
    for label in (cat, dog):
        label.label = label.expression
    dataset = make(
        {
            "ground_truth": fo.Detections(detections=[cat, dog]),
            "genseg": fo.Detections(detections=[cat.copy(), dog.copy()]),
            "asked": ["the cat", "the dog", "a camel"],
        }
    )
    cats = dataset.filter_labels("ground_truth", F("label") == "the cat")
    results = fiftyone_genseg.evaluate(cats, expression_field="asked", eval_key=None)
    assert dict(zip(results.table["expression"], results.table["kind"], strict=True)) == {
        "the cat": "correct",
        "a camel": "correct",
    }
    assert results.config.counts["left_out_expressions"] == 1
    assert "'the dog' on sample" in results.config.notes["left_out_expressions"]
    assert "the view hides its true masks" in results.describe()


def test_one_expression_takes_the_true_masks_that_name_it(make):
    cat, dog = square(0, 0, expression="the cat"), square(20, 0, expression="the dog")
    dataset = make(
        one("the cat", [cat, dog], [square(0, 0)]),
        one("both", [cat.copy(), dog.copy()], [square(0, 0), square(20, 0)]),
    )
    assert fiftyone_genseg.evaluate(dataset).table["kind"].tolist() == ["correct", "correct"]


def test_odd_labels_fail_alone(make):
    odd = square(0, 0)
    odd.bounding_box = [float("nan"), 0, 0.1, 0.1]
    colour = fo.Detection(label="x", bounding_box=[0, 0, 0.25, 0.25], mask=np.ones((8, 10, 5), np.uint8))
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


@pytest.fixture(scope="module")
def photos():
    """Load the photos, with their own masks as predictions and with the masks of the next expression."""
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


def test_metadata_that_ignores_an_orientation_changes_no_mask(make):
    dataset = make(one("turned", [square(0, 0)], [square(0, 0)]))
    sample = dataset.first()
    Image.new("RGB", (HEIGHT, WIDTH)).save(sample.filepath, exif=oriented(6))  # upright it is WIDTH x HEIGHT
    sample.compute_metadata(overwrite=True)
    assert (sample.metadata.width, sample.metadata.height) == (HEIGHT, WIDTH)  # FiftyOne reads JPEG's orientation alone
    results = fiftyone_genseg.evaluate(dataset)
    assert results.config.counts["resized_masks"] == 0
    assert results.table["image_area"].tolist() == [WIDTH * HEIGHT]
    assert results.table["target_area"].tolist() == [100]


def test_polylines_are_refused_with_what_makes_masks_of_them(make):
    polylines = fo.Polylines(polylines=[fo.Polyline(points=[[(0, 0), (1, 0), (1, 1)]], closed=True, filled=True)])
    dataset = make(one("a", [], [square(0, 0)]) | {"outlines": polylines})
    with pytest.raises(ValueError, match=r"'outlines' holds no Detections, but Polylines: .*to_detections\("):
        fiftyone_genseg.evaluate(dataset, gt_field="outlines")
