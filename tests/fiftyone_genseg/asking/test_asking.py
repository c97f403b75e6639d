"""Questions about one sample, with nano, and what people make of the answers."""

import itertools
import threading

import fiftyone as fo
import numpy as np
import pytest
from genseg_hub.schema import InstancePrompt

from fiftyone_genseg import labels, outputs
from fiftyone_genseg.asking import answering, corrections, settings
from fiftyone_genseg.cards import cards
from fiftyone_genseg.datasets.export import export
from fiftyone_genseg.segmentation.engines import resident
from fiftyone_genseg.segmentation.request import SegmentRequest
from fiftyone_genseg.segmentation.run import Target, write
from fiftyone_genseg.segmentation.summary import Summary

pytestmark = pytest.mark.usefixtures("new_questions")


@pytest.fixture
def target(dataset):
    """Return a sample with an expression that nano segments."""
    return next(sample for sample in dataset if sample["ground_truth"].detections)


def asked(dataset, sample, expression, **options):
    answering._ended.clear()
    return list(answering.ask(dataset, sample.id, SegmentRequest((expression,), device="cpu", **options)))


def stored(dataset, sample, expression, result):
    """Store a result without a model."""
    outputs.declare_fields(dataset, "genseg")
    write(
        dataset,
        {sample.id: [(expression, result)]},
        Target("genseg", "nano", None, {expression: expression}),
        Summary(),
    )
    return dataset[sample.id]


def test_an_answer_comes_in_steps_and_is_stored_at_the_end(dataset, target):
    states = asked(dataset, target, target["expression"])
    texts = [state.progress.text for state in states]
    assert all(after.startswith(before) for before, after in itertools.pairwise(texts))
    assert len({state.progress.reasoning for state in states}) > 2  # the thought grows
    (preview,) = [state.preview for state in states if state.preview]
    assert states[-1].stored
    assert states[-1].failure == ""
    sample = dataset[target.id]
    assert len(preview["genseg_boxes"].detections) == len(sample["genseg_boxes"].detections) > 0
    assert not preview["genseg"].detections
    assert sample["genseg"].detections[0].label == target["expression"]
    assert sample["genseg_outcome"].label == "segmented"
    (card,) = cards(sample, "genseg")
    assert card.expression == target["expression"]
    assert card.reasoning


def test_the_answer_is_that_of_a_run(dataset, target, nano):
    asked(dataset, target, target["expression"])
    mask = labels.union_mask(
        dataset[target.id]["genseg"], (nano.segment(target.filepath, target["expression"])).image_size
    )
    assert np.array_equal(mask, nano.segment(target.filepath, target["expression"]).mask)


def test_one_event_that_comes_twice_asks_once(dataset, target):
    request = SegmentRequest((target["expression"],), device="cpu")
    first = answering.ask(dataset, target.id, request)
    next(first)
    assert list(answering.ask(dataset, target.id, request)) == []  # while the first is open
    list(first)
    assert list(answering.ask(dataset, target.id, request)) == []  # and a moment later


def test_a_stopped_question_writes_nothing(dataset, target):
    states = answering.ask(dataset, target.id, SegmentRequest((target["expression"],), device="cpu"))
    next(states)
    assert answering.stop(dataset.name, target.id)
    assert not [state for state in states if state.stored or state.preview]
    assert not dataset[target.id]["genseg_responses"]
    assert not answering.stop(dataset.name, target.id)


def test_the_model_stays_for_the_next_question(dataset, target, monkeypatch):
    asked(dataset, target, target["expression"])
    kept = resident._kept.model
    asked(dataset, target, "the thing that nobody asked for")
    assert resident._kept.model is kept
    assert len(cards(dataset[target.id], "genseg")) == 2


def test_a_failure_is_a_result(dataset, target, tmp_path):
    sample = fo.Sample(filepath=str(tmp_path / "missing.png"), expression="a")
    dataset.add_sample(sample)
    (*_, last) = asked(dataset, sample, "the cup")
    assert "missing.png" in last.failure
    assert dataset[sample.id]["genseg_outcome"].label == "failed"


def test_a_sample_that_is_gone_is_named(dataset):
    with pytest.raises(ValueError, match="the sample is gone"):
        list(answering.ask(dataset, "0" * 24, SegmentRequest(("a",))))


def test_questions_wait_for_each_other(dataset, target):
    first = answering.ask(dataset, target.id, SegmentRequest(("the red thing",), device="cpu"))
    while not next(first).progress.text:
        pass
    second = threading.Thread(target=asked, args=(dataset, target, "the blue thing"))
    second.start()
    second.join(0.5)
    assert second.is_alive()
    list(first)
    second.join(60)
    assert {card.expression for card in cards(dataset[target.id], "genseg")} == {"the red thing", "the blue thing"}


def test_settings_are_kept_for_the_dataset(dataset):
    assert settings.load(dataset) == {"checkpoint": "nano"}
    settings.save(
        dataset, {"checkpoint": "nano_sft", "output_field": "asked", "advanced": True, "max_pixels": 9, "x": 1}
    )
    request = settings.request_for(dataset, "the red car -> car")
    assert (request.checkpoint, request.output_field, dict(request.model_options)) == (
        "nano_sft",
        "asked",
        {"max_pixels": 9},
    )
    assert (request.expressions, request.classes) == (("the red car",), {"the red car": "car"})


def test_what_is_kept_is_ground_truth(dataset, target, tmp_path):
    expression = target["expression"]
    asked(dataset, target, expression)
    corrections.keep(dataset, target.id, "genseg", expression, by="ann")
    corrections.keep(dataset, target.id, "genseg", expression, by="ann")
    sample = dataset[target.id]
    assert sample["kept_expressions"] == [expression]
    (found,) = sample["genseg"].detections
    (kept,) = sample["kept"].detections
    assert np.array_equal(kept.get_mask(), found.get_mask())
    assert (kept["expression"], kept["kept_by"]) == (expression, "ann")
    assert cards(sample, "genseg")[0].verdict == "kept"
    assert export(dataset, tmp_path / "examples", "kept", "kept_expressions") == 1


def test_nothing_is_meant_is_kept_too(dataset, target, tmp_path):
    asked(dataset, target, target["expression"])
    corrections.keep(dataset, target.id, "genseg", target["expression"], nothing=True)
    sample = dataset[target.id]
    assert sample["kept"].detections == []
    assert corrections.is_kept(sample, target["expression"])
    assert cards(sample, "genseg")[0].verdict == "wrong"
    corrections.forget(dataset, target.id, "genseg", target["expression"])
    assert not corrections.is_kept(dataset[target.id], target["expression"])
    assert cards(dataset[target.id], "genseg")[0].verdict == ""


def test_an_answer_without_a_mask_is_not_kept_by_mistake(dataset, target):
    from genseg_hub.schema import Failure

    stored(dataset, target, "the cup", Failure("no memory", MemoryError()))
    with pytest.raises(ValueError, match="has no mask to keep: correct it, or say that nothing is meant"):
        corrections.keep(dataset, target.id, "genseg", "the cup")
    with pytest.raises(ValueError, match="has no answer in the field 'genseg' any more"):
        corrections.keep(dataset, target.id, "genseg", "the plate")


def test_a_wrong_answer_is_tagged_and_can_be_deleted(dataset, target):
    asked(dataset, target, target["expression"])
    asked(dataset, target, "the red thing")
    corrections.keep(dataset, target.id, "genseg", target["expression"])
    corrections.mark_wrong(dataset, target.id, "genseg", target["expression"])
    assert not corrections.is_kept(dataset[target.id], target["expression"])
    tagged = dataset.match_labels(tags="wrong", fields="genseg")
    assert tagged.values("id") == [target.id]
    corrections.delete(dataset, target.id, "genseg", target["expression"])
    sample = dataset[target.id]
    assert [card.expression for card in cards(sample, "genseg")] == ["the red thing"]
    left = {label["expression"] for name in ("genseg", "genseg_boxes") for label in sample[name].detections}
    assert left <= {"the red thing"}
    assert sample["genseg_outcome"]["expressions"] == 1


def test_moved_prompts_make_another_mask(dataset, target, nano):
    expression = target["expression"]
    asked(dataset, target, expression)
    before = dataset[target.id]
    (prompt,) = corrections.prompts_of(before, "genseg", expression)
    assert prompt.box is not None
    others = [InstancePrompt((5.0, 5.0, 60.0, 60.0), ((30.0, 30.0),), 0, ((200.0, 150.0),))]
    corrections.segment_again(dataset, target.id, "genseg", expression, others, nano, by="ben")
    sample = dataset[target.id]
    (read,) = corrections.prompts_of(sample, "genseg", expression)
    assert read.box == pytest.approx(others[0].box, abs=0.01)
    assert read.points[0] == pytest.approx((30, 30), abs=0.01)
    assert read.negative_points[0] == pytest.approx((200, 150), abs=0.01)
    (card,) = cards(sample, "genseg")
    assert card.corrected
    assert card.reasoning == cards(before, "genseg")[0].reasoning
    assert sample["genseg_responses"][0]["checkpoint"] == before["genseg_responses"][0]["checkpoint"]


def test_a_box_that_a_person_drew_counts(dataset, target):
    asked(dataset, target, target["expression"])
    sample = dataset[target.id]
    sample["genseg_boxes"].detections.append(
        fo.Detection(bounding_box=[0.1, 0.1, 0.2, 0.2], expression=target["expression"])
    )
    sample.save()
    assert len(corrections.prompts_of(dataset[target.id], "genseg", target["expression"])) == 2


def test_fields_of_others_are_not_written_into(dataset, target):
    asked(dataset, target, target["expression"])
    dataset.add_sample_field("kept", fo.StringField)
    with pytest.raises(ValueError, match="'kept' holds something else"):
        corrections.keep(dataset, target.id, "genseg", target["expression"])


def test_boxes_are_offered_to_be_dragged_until_somebody_decides_otherwise(dataset):
    outputs.declare_fields(dataset, "genseg")
    assert corrections.offer_boxes(dataset, "genseg")
    assert dataset.active_label_schemas == ["genseg_boxes"]
    dataset.deactivate_label_schemas("genseg_boxes")
    assert not corrections.offer_boxes(dataset, "genseg")
    assert dataset.active_label_schemas == []
