"""Samples in, labels on them out: in batches, resumable, and honest about what failed."""

import fiftyone as fo
import numpy as np
import pytest

from fiftyone_genseg import labels
from fiftyone_genseg.segmentation.engines.base import Engine
from fiftyone_genseg.segmentation.engines.local import local_engine
from fiftyone_genseg.segmentation.request import OVERWRITE, SegmentRequest
from fiftyone_genseg.segmentation.run import segment_view


def progress(view, model, **options):
    return segment_view(view, SegmentRequest(**options), local_engine(model))


def run(view, model, **options):
    return list(progress(view, model, **options))[-1]


def prompts(sample, mask):
    """Return the points and the box of an instance, as lists."""

    def is_its(label):
        return (label["expression"], label.index) == (mask["expression"], mask.index)

    points = [label.points for label in sample["genseg_points"].keypoints if is_its(label)]
    return points, [label.bounding_box for label in sample["genseg_boxes"].detections if is_its(label)]


def snapshot(dataset):
    """Everything stored, by sample, without the random ids."""
    return {
        sample.id: (
            [(r.expression, r.status, r.error, r.reasoning, r.instances) for r in sample["genseg_responses"] or []],
            [
                (d["expression"], d.confidence, d.bounding_box, *prompts(sample, d), d.mask.tobytes())
                for d in (sample["genseg"].detections if sample["genseg"] else [])
            ],
        )
        for sample in dataset
    }


def test_each_sample_gets_masks_for_its_own_expression(dataset, nano):
    summary = run(dataset, nano, expression_field="expression")
    assert summary.total == summary.done == 16
    assert not summary.statuses["failed"]
    for sample in dataset:
        (response,) = sample["genseg_responses"]
        assert response.expression == sample["expression"]
        expected = nano.segment(sample.filepath, sample["expression"])
        size = expected.image_size
        assert np.array_equal(labels.union_mask(sample["genseg"], size), expected.mask)
        for detection, score in zip(sample["genseg"].detections, expected.scores, strict=False):
            assert detection.label == "referred"
            assert detection["expression"] == sample["expression"]
            assert detection.confidence == pytest.approx(score)
            ((points,), (box,)) = prompts(sample, detection)
            assert (len(points), len(box)) == (2, 4)


def test_typed_expressions_are_asked_of_every_image(dataset, nano):
    view = dataset.match(fo.ViewField("filepath").contains_str("000"))
    summary = run(view, nano, expressions=["the red shape", "all circles", "", "the red shape "])
    assert summary.total == 2 * len(view)
    for sample in view:
        assert [r.expression for r in sample["genseg_responses"]] == ["the red shape", "all circles"]


def test_no_target_keeps_its_expression_without_a_detection(dataset, nano):
    run(dataset, nano, expression_field="expression")
    silent = [s for s in dataset if s["genseg_responses"][0].status == "no_target"]
    for sample in silent:
        assert sample["genseg"].detections == []
        assert sample["genseg_responses"][0].expression == sample["expression"]


def test_fields_are_declared_for_the_sidebar(dataset, nano):
    run(dataset[:1], nano, expression_field="expression")
    schema = dataset.get_field_schema(flat=True)
    assert "genseg.detections.expression" in schema
    assert "genseg_responses.status" in schema
    counts = dataset.count_values("genseg_responses.status")
    assert sum(counts.values()) == 1


def test_skip_redoes_nothing_and_new_expressions_join(dataset, nano):
    run(dataset[:4], nano, expression_field="expression")
    before = snapshot(dataset)
    summary = run(dataset, nano, expression_field="expression")
    assert summary.skipped == 4
    assert {k: v for k, v in snapshot(dataset).items() if k in before and before[k][0]}.items() >= {
        k: v for k, v in before.items() if v[0]
    }.items()
    run(dataset[:1], nano, expressions=["all shapes"])
    assert len(dataset.first()["genseg_responses"]) == 2


def test_overwrite_replaces_the_same_expression_only(dataset, nano):
    view = dataset[:2]
    run(view, nano, expressions=["all shapes", "the star"])
    before = snapshot(view)
    sample = view.first()
    sample["genseg"].detections = [d for d in sample["genseg"].detections if d["expression"] != "all shapes"]
    sample.save()
    run(view, nano, expressions=["all shapes"], existing=OVERWRITE)
    after = snapshot(dataset[:2])
    for key in before:
        assert sorted(map(str, before[key][1])) == sorted(map(str, after[key][1]))


def test_a_failing_sample_is_recorded_and_asked_again(dataset, nano, tmp_path):
    sample = dataset.first()
    good_path, sample.filepath = sample.filepath, str(tmp_path / "missing.png")
    sample.save()
    summary = run(dataset[:3], nano, expression_field="expression")
    assert summary.statuses["failed"] == 1
    assert "no file" in next(iter(summary.reasons))
    sample.reload()
    (response,) = sample["genseg_responses"]
    assert response.status == "failed"
    assert "missing.png" in response.error
    sample.filepath = good_path
    sample.save()
    summary = run(dataset[:3], nano, expression_field="expression")
    assert (summary.skipped, summary.statuses["failed"]) == (2, 0)


def lose_masks(dataset, how):
    if how == "rename":
        dataset.rename_sample_field("genseg", "mine")
    else:
        getattr(dataset, f"{how}_sample_field")("genseg")


@pytest.mark.parametrize("how", ["clear", "delete", "rename"])
def test_segmented_expressions_without_their_field_of_masks_are_asked_again(dataset, nano, how):
    run(dataset, nano, expression_field="expression")
    before = [masks and len(masks.detections) for masks in dataset.values("genseg")]
    segmented = dataset.count_values("genseg_responses.status")["segmented"]
    lose_masks(dataset, how)
    again = run(dataset, nano, expression_field="expression")
    assert (again.skipped, again.statuses["segmented"]) == (16 - segmented, segmented)
    found = dataset.exists("genseg").values("genseg")
    assert sum(len(masks.detections) for masks in found) == sum(before) > 0
    assert run(dataset, nano, expression_field="expression").skipped == 16


def test_a_result_on_a_sample_without_its_masks_forgets_those_that_were_segmented(dataset, nano):
    view = dataset[:1]
    run(view, nano, expressions=["all shapes", "the purple hexagon"])
    statuses = {response.expression: response.status for response in view.first()["genseg_responses"]}
    assert statuses["all shapes"] == "segmented"
    dataset.clear_sample_field("genseg")
    run(view, nano, expressions=["all circles"])
    assert "all shapes" not in [response.expression for response in view.first()["genseg_responses"]]
    run(view, nano, expressions=["all shapes", "all circles"])
    assert "all shapes" in [mask["expression"] for mask in view.first()["genseg"].detections]


def test_expressions_whose_masks_a_person_removed_are_not_asked_again(dataset, nano):
    run(dataset, nano, expression_field="expression")
    dataset.delete_labels(ids=dataset.distinct("genseg.detections.id"))
    assert dataset.count("genseg.detections") == 0
    assert run(dataset, nano, expression_field="expression").skipped == 16


def test_an_empty_expression_field_is_a_failure_of_that_sample(dataset, nano):
    sample = dataset.first()
    sample["expression"] = None
    sample.save()
    summary = run(dataset[:2], nano, expression_field="expression")
    assert summary.statuses["failed"] == 1
    assert any("empty" in reason for reason in summary.reasons)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either expressions or"),
        ({"expressions": ["x"], "expression_field": "expression"}, "give either expressions or"),
        ({"expressions": [" ", ""]}, "give either expressions or"),
        ({"expression_field": "held_out"}, "must be a field of strings.*expression"),
        ({"expression_field": "nope"}, "must be a field of strings"),
        ({"expressions": ["x"], "existing": "append"}, "'skip' or 'overwrite', not 'append'"),
    ],
)
def test_unusable_arguments_are_refused_before_anything_is_written(dataset, nano, options, message):
    with pytest.raises(ValueError, match=message):
        run(dataset, nano, **options)
    assert "genseg" not in dataset.get_field_schema()


def test_a_field_of_another_type_is_not_touched(dataset, nano):
    dataset.add_sample_field("genseg", fo.StringField)
    with pytest.raises(ValueError, match="'genseg' already holds"):
        run(dataset, nano, expressions=["x"])


def test_stopping_half_way_keeps_what_was_done(dataset, nano):
    running = progress(dataset, nano, expression_field="expression", batch_size=4)
    next(running)
    next(running)
    running.close()
    done = len(dataset.exists("genseg_responses"))
    assert 0 < done < 16
    summary = run(dataset, nano, expression_field="expression", batch_size=4)
    assert summary.skipped == done
    first = snapshot(dataset)
    run(dataset, nano, expression_field="expression", existing=OVERWRITE)
    assert snapshot(dataset) == first


def test_what_others_write_meanwhile_stays(dataset, nano):
    running = progress(dataset, nano, expressions=["the star"], batch_size=4)
    next(running)
    next(running)
    run(dataset, nano, expressions=["all shapes"])
    last = dataset.last()
    last["genseg"].detections.append(fo.Detection(label="drawn by hand", bounding_box=[0, 0, 0.5, 0.5]))
    last.save()
    list(running)
    assert {len(responses) for responses in dataset.values("genseg_responses")} == {2}
    last.reload()
    assert "drawn by hand" in [detection.label for detection in last["genseg"].detections]
    run(dataset, nano, expressions=["all shapes"], existing=OVERWRITE)


def test_an_overwrite_that_fails_keeps_the_masks(dataset, nano, tmp_path):
    run(dataset[:1], nano, expressions=["all shapes"])
    sample = dataset.first()
    masks = len(sample["genseg"].detections)
    assert masks > 0
    sample.filepath = str(tmp_path / "missing.png")
    sample.save()
    run(dataset[:1], nano, expressions=["all shapes"], existing=OVERWRITE)
    sample.reload()
    assert len(sample["genseg"].detections) == masks
    assert [r.status for r in sample["genseg_responses"]] == ["failed"]


@pytest.mark.parametrize("typed", ["the red shape", "the  red   shape", " the\tred\u00a0shape\n"])
def test_an_expression_is_one_however_it_is_spaced(dataset, nano, typed):
    first = run(dataset[:1], nano, expressions=["the red shape"])
    assert (first.skipped, first.done) == (0, 1)
    again = run(dataset[:1], nano, expressions=[typed])
    assert (again.skipped, again.done) == (1, 1)
    assert [response.expression for response in dataset.first()["genseg_responses"]] == ["the red shape"]


def test_the_expressions_of_a_field_are_normalized_before_they_are_stored_and_skipped(dataset, nano):
    sample = dataset.first()
    sample["expression"] = "the  cafe\u0301   chair"
    sample.save()
    run(dataset[:1], nano, expression_field="expression")
    sample.reload()
    assert [response.expression for response in sample["genseg_responses"]] == ["the caf\u00e9 chair"]
    assert run(dataset[:1], nano, expression_field="expression").skipped == 1
    assert run(dataset[:1], nano, expressions=["the caf\u00e9 chair"]).skipped == 1


def test_results_of_other_options_are_skipped_with_a_warning(dataset, nano):
    run(dataset, nano, expression_field="expression")
    again = run(dataset, nano, expression_field="expression")
    assert (again.skipped, again.others, again.advice) == (16, 0, "")
    other = run(dataset, nano, expression_field="expression", model_options={"max_pixels": 100_000})
    assert (other.skipped, other.others) == (16, 16)
    assert other.advice.startswith("16 of the skipped results are of another checkpoint or other options.")
    options = {"max_pixels": 100_000, "cache_dir": "/nowhere"}
    run(dataset, nano, expression_field="expression", existing="overwrite", model_options=options)
    assert {r.options for found in dataset.values("genseg_responses") for r in found} == {"max_pixels=100000"}


def test_results_stored_before_there_were_options_are_skipped(dataset, nano):
    run(dataset, nano, expression_field="expression")
    dataset._sample_collection.update_many({}, {"$unset": {"genseg_responses.$[].options": ""}})
    again = run(dataset, nano, expression_field="expression")
    assert (again.skipped, again.others) == (16, 0)


def test_many_expressions_of_one_image_are_written_as_they_come_and_the_rest_is_asked_later(dataset, nano):
    view = dataset.limit(1)
    nothing = nano.segment(view.first().filepath, "the red shape")
    asked: list[str] = []

    def answer(examples, batch_size):
        for example in examples:
            if len(asked) == 200:
                raise ConnectionError("gone")
            asked.append(example.expression)
            yield example, nothing

    request = SegmentRequest(expressions=tuple(f"shape {number}" for number in range(300)))
    seen = []

    def watch():
        for summary in segment_view(view, request, Engine(answer, "nano")):
            seen.append((summary.done, view.count("genseg_responses")))

    with pytest.raises(ConnectionError):
        watch()
    assert seen == [(0, 0), (64, 64), (128, 128), (192, 192)]
    assert view.count("genseg_responses") == 200, "the last ones are not lost"
    again = Engine(lambda examples, _: ((example, nothing) for example in examples), "nano")
    *_, summary = segment_view(view, request, again)
    assert (summary.skipped, summary.done) == (200, 300)
    assert sorted(r.expression for r in view.first()["genseg_responses"]) == sorted(request.expressions)
