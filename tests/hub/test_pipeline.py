"""GenSegR1 on real images: streams, shared work, and failures of single examples."""

import shutil
import threading
import time
import weakref
from collections import Counter

import numpy as np
import pytest
import torch
from genseg_hub import Failure, GenSegR1, Prediction, ReferringExample, questions, streaming
from genseg_hub.errors import ImageError
from genseg_hub.evaluation import scores
from genseg_hub.images import bytes_of, load_image
from genseg_hub.questions import Questions
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_hub.schema import InstancePrompt
from genseg_hub.segmenters.sam2 import Sam2Segmenter
from genseg_hub.streaming import READ_AHEAD, Stream
from genseg_training.nano.refscenes import refscenes
from PIL import Image


@pytest.fixture(scope="module")
def examples():
    return list(refscenes("val", 8))


def same(a: Prediction, b: Prediction) -> bool:
    return a.response == b.response and all(np.array_equal(m, n) for m, n in zip(a.masks, b.masks, strict=True))


def test_segment_gives_masks_of_the_image_size(nano, examples):
    prediction = nano.segment(examples[0].image, examples[0].expression)
    height, width = examples[0].image.shape[:2]
    assert prediction.image_size == (width, height)
    assert prediction.mask.shape == (height, width)
    assert prediction.mask.dtype == bool
    assert len(prediction.masks) == len(prediction.scores) == len(prediction.response.instances)
    assert all(0 <= score <= 1 for score in prediction.scores)


def test_nano_segments_these_expressions(nano, examples):
    """Hold nano to its figures on these eight expressions: mIoU 0.846 and Pr@0.5 5/6, no-targets rejected."""
    figures = scores.evaluate(nano, examples).compute()
    assert figures["miou"] == pytest.approx(0.846, abs=0.03)
    assert figures["pr@0.5"] == pytest.approx(5 / 6)
    assert figures["n_acc"] == figures["t_acc"] == 1
    assert figures["parse_failures"] == 0


@pytest.mark.parametrize("batch_size", [1, 3, 8, 50])
def test_the_batch_size_changes_nothing(nano, examples, batch_size):
    one_by_one = [nano.segment(e.image, e.expression) for e in examples]
    results = list(nano.segment_many(iter(examples), batch_size))
    assert all(same(a, b) for a, b in zip(one_by_one, results, strict=True))


def test_the_stream_is_lazy(nano, examples):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield examples[len(taken) % len(examples)]

    stream = nano.segment_many(endless(), batch_size=2)
    next(stream)
    assert len(taken) <= 2 * READ_AHEAD
    stream.close()


def test_an_image_is_embedded_once_for_all_its_expressions(nano, nano_sam2, examples):
    model, embedded = GenSegR1(nano.reasoner, Sam2Segmenter(nano_sam2), nano.dialect), []
    with nano_sam2.image_encoder.register_forward_hook(lambda *_: embedded.append(1)):
        results = list(model.segment_many(examples, batch_size=3))
    with_instances = {e.image_id for e, r in zip(examples, results, strict=True) if r.response.instances}
    assert len(embedded) == len(with_instances) == 2


def test_another_call_may_mean_another_image_by_the_same_name(nano, examples, tmp_path):
    path = tmp_path / "image.png"
    for example in (examples[0], examples[4]):
        Image.fromarray(example.image).save(path)
        assert same(nano.segment(path, "all shapes"), nano.segment(example.image, "all shapes"))


def test_only_neighbours_share_an_image(nano, examples):
    """Put an example without an embedding between two; the third must not get the first embedding."""
    first, other = examples[0], examples[4]
    stream = [
        ReferringExample(first.image, "all shapes", image_id="1"),
        ReferringExample(first.image, "", image_id="2"),
        ReferringExample(other.image, "all shapes", image_id="1"),
    ]
    results = list(nano.segment_many(stream, batch_size=1))
    assert same(results[2], nano.segment(other.image, "all shapes"))


def test_results_before_an_error_of_the_input_are_not_lost(nano, examples):
    def failing():
        yield from examples[:6]
        raise OSError("the disk is gone")

    stream = nano.segment_many(failing(), batch_size=4)
    assert len([next(stream) for _ in range(6)]) == 6
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)


def test_a_bad_example_is_a_failure_and_the_stream_goes_on(nano, examples, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    bad = [
        ReferringExample(broken, "the star"),
        ReferringExample(examples[0].image, ""),
        ReferringExample("/none.png", "x"),
    ]
    mixed = [examples[0], bad[0], examples[1], bad[1], bad[2], examples[2]]
    results = list(nano.segment_many(mixed, batch_size=4))
    assert [isinstance(result, Failure) for result in results] == [False, True, False, True, True, False]
    assert "broken.png" in results[1].message
    assert "empty" in results[3].message
    assert same(results[5], nano.segment(examples[2].image, examples[2].expression))


def test_a_batch_that_fails_in_the_model_is_halved_until_the_culprit_is_alone(nano, examples):
    class Fragile(TransformersReasoner):
        def generate(self, batch):
            if any("poison" in str(question.chat) for question in batch):
                raise MemoryError("simulated")
            return super().generate(batch)

    own = nano.reasoner
    model = GenSegR1(Fragile(own.model, own.processor, own.max_new_tokens), nano.segmenter, nano.dialect)
    mixed = [*examples[:3], ReferringExample(examples[0].image, "poison"), *examples[3:6]]
    results = list(model.segment_many(mixed, batch_size=7))
    assert [isinstance(result, Failure) for result in results] == [False] * 3 + [True] + [False] * 3
    assert "smaller image, checkpoint or batch size" in results[3].message


class _OneAfterTheOther(TransformersReasoner):
    """Reasoner with two open prompts, of which each step answers one."""

    def __init__(self, own, takes_cores):
        super().__init__(own.model, own.processor, own.max_new_tokens)
        self.takes_cores, self.open = takes_cores, []

    def session(self, batch_size):
        return self

    def room(self):
        return 2 - len(self.open)

    def ask(self, questions):
        self.open += questions

    def advance(self):
        question = self.open.pop(0)
        return [(question, *self.generate([question]))]


@pytest.mark.parametrize("takes_cores", [True, False])
def test_reasoner_and_segmenter_work_at_the_same_time(nano, nano_sam2, examples, takes_cores):
    """Let the second prompt and the first image wait for each other; on one CPU they share its cores."""
    batches, images, threads, both = [], [], [], threading.Barrier(2, timeout=60)

    class Reasoning(_OneAfterTheOther):
        def generate(self, batch):
            batches.append(batch)
            if len(batches) == 2:
                threads.append(torch.get_num_threads())
                both.wait()
            return super().generate(batch)

    class Segmenting(Sam2Segmenter):
        def segment(self, image, *args):
            images.append(image)
            if len(images) == 1:
                threads.append(torch.get_num_threads())
                both.wait()
            return super().segment(image, *args)

    model = GenSegR1(Reasoning(nano.reasoner, takes_cores), Segmenting(nano_sam2), nano.dialect)
    asked = [examples[1], examples[4]]  # of two images, with targets
    results = list(model.segment_many(asked, batch_size=2))
    for example, result in zip(asked, results, strict=True):
        assert same(result, nano.segment(example.image, example.expression))
    if takes_cores:
        assert sum(threads) <= max(2, torch.get_num_threads())


def test_on_mps_the_two_take_turns(nano, nano_sam2, examples, monkeypatch):
    """Test the order with a device that is MPS by name only."""
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 7)
    events = []

    class Reasoning(_OneAfterTheOther):
        def generate(self, batch):
            events.append("reasons")
            result = super().generate(batch)
            events.append("reasoned")
            return result

    class Segmenting(Sam2Segmenter):
        def segment(self, *args):
            events.append("segments")
            time.sleep(0.2)
            result = super().segment(*args)
            events.append("segmented")
            return result

    segmenter = Segmenting(nano_sam2)
    segmenter.device = torch.device("mps")
    model = GenSegR1(Reasoning(nano.reasoner, True), segmenter, nano.dialect)
    results = list(model.segment_many([examples[1], examples[4]], batch_size=2))
    assert all(result.masks for result in results)
    assert {result.cost.memory_bytes for result in results} == {7}
    assert events == ["reasons", "reasoned", "segments", "segmented"] * 2


def test_failures_keep_no_embedding(nano, failing_segmenter, examples):
    model = GenSegR1(nano.reasoner, failing_segmenter, nano.dialect)
    results = list(model.segment_many(examples, batch_size=4))
    assert sum(isinstance(result, Failure) for result in results) > 2
    assert len(failing_segmenter.embeddings) == 1, "the segmenter keeps its last embedding"


def test_segment_raises_the_error_of_its_example(nano):
    with pytest.raises(ImageError, match="no file"):
        nano.segment("/none.png", "a dog")
    with pytest.raises(ValueError, match="empty"):
        nano.segment(Image.new("RGB", (64, 64)), " ")
    with pytest.raises(ValueError, match="batch_size"):
        next(nano.segment_many([], batch_size=0))


@pytest.mark.parametrize("size", [(1, 1), (1, 150), (2000, 11), (33, 700)])
def test_odd_image_sizes_work(nano, size):
    assert nano.segment(Image.new("RGB", size, "gray"), "the red circle").mask.shape == size[::-1]


def test_the_segmenter_takes_prompts_without_points_and_absurd_ones(nano, examples):
    image = examples[0].image
    height, width = image.shape[:2]
    prompts = [
        InstancePrompt((0.0, 0.0, float(width), float(height)), ()),
        InstancePrompt((1.0, 1.0, 1.5, 1.5), ((-1e6, 1e6), (0.0, 0.0))),
    ]
    masks, ious = nano.segmenter.segment(image, prompts)
    assert [mask.shape for mask in masks] == [(height, width)] * 2
    assert np.isfinite(ious).all()


def test_points_change_the_mask(nano, examples):
    """Segment two prompts with one box and other points, which must reach SAM 2."""
    target = examples[0]
    image = target.image
    box = (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
    corners = [((5.0, 5.0), (9.0, 9.0)), ((image.shape[1] / 2, image.shape[0] / 2),) * 2]
    (a, b), _ = nano.segmenter.segment(image, [InstancePrompt(box, points) for points in corners])
    assert not np.array_equal(a, b)


@pytest.fixture
def pixels(monkeypatch):
    """Count the images that are read, those alive at once, and the bytes of copies for the models alive at once."""
    counts = Counter()

    def watch(image, name, weight):
        counts[f"{name} now"] += weight
        counts[f"{name} at most"] = max(counts[f"{name} at most"], counts[f"{name} now"])
        weakref.finalize(image, counts.subtract, {f"{name} now": weight})

    def load(*args):
        image = load_image(*args)
        counts["read"] += 1
        watch(image, "whole", 1)
        return image

    class Copies(Questions):
        def shown(self, image, size):
            copy = super().shown(image, size)
            if copy is not image:
                watch(copy, "copied", bytes_of(copy))
            return copy

        def segmented(self, image, size):
            copy = super().segmented(image, size)
            if copy is not image:
                watch(copy, "copied", bytes_of(copy))
            return copy

    monkeypatch.setattr(questions, "load_image", load)
    monkeypatch.setattr(streaming, "Questions", Copies)
    return counts


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Different images of 3 megapixels, as files."""
    folder, scenes = tmp_path_factory.mktemp("photographs"), {}
    for example in refscenes("val", 60):
        if example.masks:
            scenes.setdefault(example.image_id, example)
    chosen = list(scenes.values())[:10]
    assert len(chosen) == 10
    for number, scene in enumerate(chosen):
        Image.fromarray(scene.image).resize((2000, 1500)).save(folder / f"{number}.jpg", quality=95)
    return [ReferringExample(folder / f"{number}.jpg", scene.expression) for number, scene in enumerate(chosen)]


@pytest.mark.parametrize("batch_size", [2, 10, 512])
def test_no_photograph_stays_decoded_whatever_the_batch(nano, pixels, photographs, batch_size):
    nano.release()
    results = list(nano.segment_many(photographs, batch_size))
    assert all(isinstance(result, Prediction) and result.mask.shape == (1500, 2000) for result in results)
    assert pixels["read"] == len(photographs), "the segmenter takes a reduced copy"
    assert pixels["whole at most"] <= 2
    one = bytes_of(Image.new("RGB", (1664, 1248)))
    assert pixels["copied at most"] <= streaming._KEPT_BYTES + streaming._ASKED_BYTES + 2 * one


def test_dropped_pixels_are_read_again_and_nothing_changes(nano, pixels, photographs, monkeypatch):
    nano.release()
    expected = list(nano.segment_many(photographs, 5))
    monkeypatch.setattr(streaming, "_KEPT_BYTES", 0)
    monkeypatch.setattr(streaming, "_ASKED_BYTES", 1)
    monkeypatch.setattr(streaming, "_MASK_BYTES", 0)
    pixels.clear()
    nano.release()
    found = list(nano.segment_many(photographs, 5))
    assert all(same(a, b) for a, b in zip(expected, found, strict=True))
    assert pixels["read"] == 2 * len(photographs), "once for each model"
    assert pixels["copied at most"] <= 3 * bytes_of(Image.new("RGB", (1664, 1248)))


def test_small_images_beyond_the_budget_are_read_again(nano, pixels, examples, tmp_path, monkeypatch):
    asked = []
    for number, example in enumerate(examples):
        Image.fromarray(example.image).save(tmp_path / f"{number}.png")
        asked.append(ReferringExample(tmp_path / f"{number}.png", example.expression))
    expected = [nano.segment(example.image, example.expression) for example in examples]
    monkeypatch.setattr(streaming, "_KEPT_BYTES", 0)
    nano.release()
    assert all(same(a, b) for a, b in zip(expected, nano.segment_many(asked, 8), strict=True))
    assert pixels["read"] > len(asked)


def test_a_file_that_changes_before_its_masks_fails_alone(nano, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "_KEPT_BYTES", 0)
    monkeypatch.setattr(streaming, "_ASKED_BYTES", 1)
    changed = tmp_path / "changed.jpg"
    shutil.copy(photographs[0].image, changed)
    asked = Stream._ask

    def ask(self, new):
        asked(self, new)
        Image.new("RGB", (2000, 1400)).save(changed)

    monkeypatch.setattr(Stream, "_ask", ask)
    nano.release()
    first, second = nano.segment_many([ReferringExample(changed, photographs[0].expression), photographs[1]], 1)
    assert "has changed while it was asked about" in first.message
    assert isinstance(second, Prediction)


def test_masks_wait_for_an_older_result_within_a_budget(nano, photographs, monkeypatch):
    most = []
    submit = Stream._submit

    def watched(self, worker):
        submit(self, worker)
        finished = [group for group in self._groups if group.segmented]
        most.append(sum(group.mask_bytes() for group in finished if group is not self._groups[0]))

    monkeypatch.setattr(Stream, "_submit", watched)
    monkeypatch.setattr(streaming, "_MASK_BYTES", 2 * 2000 * 1500)
    results = list(nano.segment_many(photographs, 10))
    assert all(isinstance(result, Prediction) for result in results)
    assert 0 < max(most) <= 2 * 2000 * 1500 + 4 * 2000 * 1500


def test_a_reduced_photograph_gets_the_masks_of_the_whole_one(nano, photographs, monkeypatch):
    nano.release()
    reduced = list(nano.segment_many(photographs, 5))
    monkeypatch.setattr(questions, "WHOLE_PIXELS", 10**9)
    nano.release()
    for example, found in zip(photographs, reduced, strict=True):
        whole = nano.segment(example.image, example.expression)
        assert len(found.masks) == len(whole.masks)
        assert (found.mask & whole.mask).sum() >= 0.99 * (found.mask | whole.mask).sum()
