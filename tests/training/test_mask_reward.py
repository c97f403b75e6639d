"""SAM 2 in the loop: every combination of empty masks, one embedding per image, and failures without a reward."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from genseg_hub.dialects import genseg
from genseg_hub.schema import InstancePrompt, decode_mask, encode_mask
from genseg_training import mask_reward
from genseg_training.mask_reward import MaskReward
from genseg_training.nano import answers, refscenes
from genseg_training.rewards import of_template
from PIL import Image

EMPTY = "<think>nothing</think><answer>[]</answer>"


@pytest.fixture(scope="module")
def segmenter(nano):
    return nano.segmenter


@pytest.fixture(scope="module")
def examples():
    return list(refscenes.training_examples(12, seed=3))


def truth(example):
    """Return the answer with the true boxes and points."""
    instances = []
    for rle in example.masks:
        mask = decode_mask(rle)
        ys, xs = np.nonzero(mask)
        box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
        instances.append(InstancePrompt(box, answers.interior_points(mask)))
    return genseg.render("", instances, size(example))


def size(example):
    return example.image.shape[1], example.image.shape[0]


def columns(*chosen):
    return {
        "image": [Image.fromarray(example.image) for example in chosen],
        "image_id": [example.image_id for example in chosen],
        "masks": [list(example.masks) for example in chosen],
    }


def one(segmenter, answer, example):
    (value,) = MaskReward(segmenter)([answer], **columns(example))
    return value


def test_every_combination_of_empty_and_not(segmenter, examples):
    target = next(e for e in examples if len(e.masks) == 1)
    absent = next(e for e in examples if not e.masks)
    assert one(segmenter, EMPTY, absent) == 1
    assert one(segmenter, truth(target), absent) == 0
    assert one(segmenter, "gibberish", absent) == 0
    assert one(segmenter, EMPTY, target) == 0
    assert one(segmenter, "gibberish", target) == 0
    assert one(segmenter, truth(target), target) > 0.8
    cut = truth(target).replace("]</answer>", ',{"bbox_2d":[5,5,5,5],"points":[]}]</answer>')
    assert one(segmenter, cut, target) == 0, "an answer with an error earns nothing"


def test_it_is_the_iou_of_what_the_model_would_segment(nano, segmenter, examples):
    target = next(e for e in examples if len(e.masks) > 1)
    response = genseg.parse(truth(target), size(target))
    masks, _ = segmenter.segment(target.image, response.instances)
    union, wanted = np.any(masks, axis=0), np.any([decode_mask(rle) for rle in target.masks], axis=0)
    expected = (union & wanted).sum() / (union | wanted).sum()
    assert one(segmenter, truth(target), target) == pytest.approx(expected)
    doubled = genseg.render("", [*response.instances, *response.instances], size(target))
    reversed_ = genseg.render("", response.instances[::-1], size(target))
    for same in (doubled, reversed_):
        assert one(segmenter, same, target) == pytest.approx(expected)


def test_completions_are_scored_alone_as_together(segmenter, examples):
    chosen = [example for example in examples for _ in range(3)]
    said = [answer for example in examples for answer in (truth(example), EMPTY, truth(examples[0]))]
    together = MaskReward(segmenter)(said, **columns(*chosen))
    assert together == pytest.approx([one(segmenter, *pair) for pair in zip(said, chosen, strict=True)])
    assert len(set(together)) > 4


def test_a_true_mask_without_a_pixel_is_never_matched():
    nothing = np.zeros((4, 4), bool)
    answer = genseg.render("", [InstancePrompt((0, 0, 4, 4), ((1, 1), (3, 3)))], (4, 4))
    data = {"image": [Image.new("RGB", (4, 4))], "image_id": ["a"], "masks": [[encode_mask(nothing)]]}
    for segmented in (nothing, ~nothing):
        fixed = SimpleNamespace(device=torch.device("cpu"), segment=lambda *_, mask=segmented: ([mask], [1.0]))
        assert MaskReward(fixed)([answer], **data) == [0]


class Counting:
    """A real segmenter that counts, and fails on chosen images."""

    def __init__(self, segmenter, fails=()):
        self.segmenter, self.fails, self.calls = segmenter, fails, []
        self.device = segmenter.device

    def segment(self, image, instances, key=None):
        self.calls.append(len(instances))
        if any(image.shape == bad.shape and (image == bad).all() for bad in self.fails):
            raise RuntimeError("out of memory")
        return self.segmenter.segment(image, instances, key)


def test_an_image_is_embedded_once_and_equal_prompts_are_decoded_once(segmenter, examples):
    first, second = examples[0], examples[4]
    assert first.image_id != second.image_id
    counting = Counting(segmenter)
    said = [truth(first)] * 6 + [truth(second)] * 2
    MaskReward(counting)(said, **columns(*[first] * 6, *[second] * 2))
    assert sorted(counting.calls) == sorted([len(first.masks), len(second.masks)])


class Meeting(Counting):
    """A segmenter that waits, at each image, for another image to be segmented at the same time."""

    def __init__(self, segmenter, device, timeout):
        super().__init__(segmenter)
        self.device, self.two, self.met = torch.device(device), threading.Barrier(2, timeout=timeout), []

    def segment(self, image, instances, key=None):
        try:
            self.two.wait()
            self.met.append(True)
        except threading.BrokenBarrierError:
            self.met.append(False)
        return super().segment(image, instances, key)


@pytest.mark.parametrize(("device", "timeout", "at_once"), [("cpu", 60, True), ("cuda", 0.5, False)])
def test_two_images_are_segmented_at_once_on_a_cpu_alone(segmenter, examples, device, timeout, at_once):
    first, second = examples[0], examples[4]
    said, data = [truth(first), truth(second)], columns(first, second)
    alone = [one(segmenter, text, example) for text, example in zip(said, (first, second), strict=True)]
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        meeting = Meeting(segmenter, device, timeout)
        assert MaskReward(meeting)(said, **data) == pytest.approx(alone)
        assert meeting.met == [at_once] * 2
        assert torch.get_num_threads() == 4, "the cores are given back"
    finally:
        torch.set_num_threads(before)


def test_a_failure_is_masked_counted_and_never_a_reward_of_zero(segmenter, examples, caplog):
    good, bad = examples[0], examples[4]
    logged = {}
    reward = MaskReward(Counting(segmenter, fails=[bad.image]))
    values = reward(
        [truth(bad), EMPTY, truth(good), EMPTY], **columns(bad, bad, good, good), log_metric=logged.__setitem__
    )
    assert values[:2] == [None, None], "the whole group, so that nobody in it is favoured"
    assert None not in values[2:]
    assert logged["mask_reward_failed"] == 0.5
    assert logged["mask_reward_seconds"] > 0
    assert "out of memory" in caplog.text
    assert bad.image_id in caplog.text


def test_one_bad_image_does_not_end_a_run_and_a_broken_segmenter_does(segmenter, examples):
    good, bad = examples[0], examples[4]
    reward = MaskReward(Counting(segmenter, fails=[bad.image]))
    for example in [*[bad] * (mask_reward.FAILURES_IN_A_ROW - 1), good] * 2:
        assert (reward([truth(example)], **columns(example)) == [None]) == (example is bad)
    for _ in range(mask_reward.FAILURES_IN_A_ROW - 1):
        reward([truth(bad)], **columns(bad))
    with pytest.raises(RuntimeError, match="out of memory"):
        reward([truth(bad)], **columns(bad))


def test_failures_keep_no_embedding(failing_segmenter, examples):
    chosen = [example for example in examples if example.masks][:5]
    at_the_end = {}
    values = MaskReward(failing_segmenter)(
        [truth(example) for example in chosen],
        **columns(*chosen),
        log_metric=lambda name, _: at_the_end.setdefault(name, len(failing_segmenter.embeddings)),
    )
    assert values == [None] * 5
    assert at_the_end["mask_reward_failed"] == 0, "the segmenter keeps none without a key"


def test_ignored_pixels_count_on_neither_side(segmenter, examples):
    """As in `metrics.measure`; an image that is smaller for the policy is segmented as it is."""
    target = next(e for e in examples if len(e.masks) == 1)
    mask = decode_mask(target.masks[0])
    half = np.zeros_like(mask)
    half[:, : int(np.median(np.nonzero(mask)[1]))] = True
    shown = [Image.fromarray(target.image).resize((32, 32))]
    known = columns(target) | {"original": columns(target)["image"], "image": shown}
    (whole,), (part,) = (
        MaskReward(segmenter)([truth(target)], ignore=[ignored], **known) for ignored in ([], [encode_mask(half)])
    )
    assert whole == one(segmenter, truth(target), target)
    response = genseg.parse(truth(target), size(target))
    union = np.any(segmenter.segment(target.image, response.instances)[0], axis=0)
    assert part == np.count_nonzero(union & mask & ~half) / np.count_nonzero((union | mask) & ~half) != whole


def test_true_masks_of_another_size_are_an_error_of_the_data(segmenter, examples):
    good, *_, bad = (example for example in examples if example.masks)
    assert good.image_id != bad.image_id
    data = columns(good, bad)
    data["masks"][1] = [encode_mask(np.ones((3, 3), bool))]
    with pytest.raises(ValueError, match=r"a true mask is \(3, 3\), and its image"):
        MaskReward(segmenter)([truth(good), truth(bad)], **data)


def test_it_reads_the_answers_of_a_template_that_opens_the_thought(segmenter, examples):
    target = next(e for e in examples if len(e.masks) == 1)
    reward = of_template(MaskReward(segmenter), thought_is_open=True)
    assert reward.__name__ == "mask_reward"
    answer = truth(target).removeprefix("<think></think>")
    good, cut = reward([f"a</think>{answer}", f"a {answer}"], **columns(target, target))
    assert good == one(segmenter, truth(target), target) > 0
    assert cut == 0


def test_a_reduced_reward_is_of_the_reduced_image_and_close_to_the_whole(segmenter, examples):
    target = next(e for e in examples if len(e.masks) == 1)
    big = 4 * size(target)[0], 4 * size(target)[1]
    mask = Image.fromarray(decode_mask(target.masks[0])).resize(big, Image.Resampling.NEAREST)
    data = {
        "image": [Image.fromarray(target.image).resize(big)],
        "image_id": ["big"],
        "masks": [[encode_mask(np.array(mask))]],
    }
    asked = []

    class Seen:
        device, side = segmenter.device, segmenter.side

        def segment(self, pixels, instances):
            asked.append(pixels.shape[1::-1])
            return segmenter.segment(pixels, instances)

    (whole,) = MaskReward(Seen())([truth(target)], **data)
    (reduced,) = MaskReward(Seen(), reduced=True)([truth(target)], **data)
    assert asked[0] == big
    assert max(asked[1]) == segmenter.side
    assert reduced == pytest.approx(whole, abs=0.05)
    assert data["image"][0].size == big, "the trainer's own image is left as it is"
    (small,) = MaskReward(Seen(), reduced=True)([truth(target)], **columns(target))
    assert small == one(segmenter, truth(target), target) or max(size(target)) > segmenter.side


def test_ignored_pixels_are_reduced_as_the_masks_are(segmenter, examples):
    target = next(e for e in examples if len(e.masks) == 1)
    big = 4 * size(target)[0], 4 * size(target)[1]
    mask = np.array(Image.fromarray(decode_mask(target.masks[0])).resize(big, Image.Resampling.NEAREST))
    left = mask & (np.arange(big[0]) < np.nonzero(mask)[1].mean())
    data = {"image": [Image.fromarray(target.image).resize(big)], "image_id": ["big"], "masks": [[encode_mask(mask)]]}
    for ignored in ([], [encode_mask(left)]):
        whole, reduced = (
            MaskReward(segmenter, reduced=option)([truth(target)], ignore=[ignored], **data)[0]
            for option in (False, True)
        )
        assert reduced == pytest.approx(whole, abs=0.08)
