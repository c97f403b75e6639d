"""The second question about an image costs its own words only, and no other image takes what was kept."""

import os
from collections import Counter

import numpy as np
import pytest
import torch
from genseg_hub import GenSegR1, ReferringExample, dialects
from genseg_hub.images import content_key
from genseg_hub.options import ReasonerOptions
from genseg_hub.reasoners import prefixes
from genseg_hub.reasoners.base import Prompt
from genseg_hub.reasoners.continuous_batching import ContinuousReasoner
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_hub.segmenters.sam2 import Sam2Segmenter
from genseg_training.nano.refscenes import refscenes
from PIL import Image

from tests.helpers.reasoners import ask

WORDS = ("star", "circle", "square", "red shape", "blue shape", "largest shape", "shape on the left", "green triangle")


@pytest.fixture(scope="module")
def scenes():
    """Two pictures of different sizes, with shapes."""
    found = {example.image_id: example for example in refscenes("val", 32) if example.masks}
    return [example.image for example in found.values()][:3]


@pytest.fixture
def model(nano, nano_sam2) -> GenSegR1:
    """Nano with nothing kept."""
    own = nano.reasoner
    reasoner = ContinuousReasoner(own.model, own.processor, own.max_new_tokens)
    return GenSegR1(reasoner, Sam2Segmenter(nano_sam2), nano.dialect)


@pytest.fixture
def work(nano, nano_sam2, monkeypatch):
    """Count the images that the reasoner and the segmenter look at."""
    counts = Counter()
    visual = nano.reasoner.model.model.visual
    forward = visual.forward

    def looking(*args, grid_thw, **options):
        counts["prefixes"] += len(grid_thw)
        return forward(*args, grid_thw=grid_thw, **options)

    monkeypatch.setattr(visual, "forward", looking)
    with nano_sam2.image_encoder.register_forward_hook(lambda *_: counts.update(["embeddings"])):
        yield counts


def about(nano, image, words: str, key: object) -> Prompt:
    picture = Image.fromarray(image)
    return Prompt(picture, nano.dialect.messages(picture.size, words), key)


def expressions(count: int) -> list[str]:
    return [f"the {WORDS[i % len(WORDS)]}{' or another' * (i // len(WORDS))}" for i in range(count)]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("images", [1, 2])
def test_each_image_has_one_prefix_and_the_texts_are_the_texts_of_generate(
    nano, model, work, scenes, batch_size, images
):
    """Interleave the images."""
    asked = [about(nano, scenes[i % images], words, i % images) for i, words in enumerate(expressions(16))]
    own = nano.reasoner
    answers = ask(model.reasoner, asked, batch_size)
    assert work["prefixes"] == images
    assert answers == ask(TransformersReasoner(own.model, own.processor, own.max_new_tokens), asked, 8)


def test_many_expressions_of_a_stream_are_one_prefix_and_one_embedding(model, work, scenes):
    examples = [
        ReferringExample(image, words, image_id=str(i))
        for i, image in enumerate(scenes[:2])
        for words in expressions(12)
    ]
    assert len(list(model.segment_many(examples, 4))) == 24
    assert work == {"prefixes": 2, "embeddings": 2}


def test_a_later_question_takes_what_is_kept(model, nano, work, scenes, tmp_path):
    path = tmp_path / "scene.png"
    Image.fromarray(scenes[0]).save(path)
    nano.release()
    alone = [nano.segment(scenes[0], words) for words in expressions(4)]
    work.clear()
    *_, first = model.ask(path, expressions(4)[0])
    second = model.segment(scenes[0], expressions(4)[1])
    third, fourth = model.segment_many([ReferringExample(Image.fromarray(scenes[0]), w) for w in expressions(4)[2:]])
    assert work["prefixes"] == 1
    assert work["embeddings"] <= 1
    for expected, found in zip(alone, (first.prediction, second, third, fourth), strict=True):
        assert found.response == expected.response
        assert all(np.array_equal(a, b) for a, b in zip(found.masks, expected.masks, strict=True))
    model.release()
    model.segment(path, expressions(4)[0])
    assert work["prefixes"] == 2


def test_a_changed_file_is_another_image(model, scenes, tmp_path, work):
    path = tmp_path / "scene.bmp"  # of the same size in bytes
    image = Image.fromarray(scenes[0])
    for picture in (image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)):
        picture.save(path)
        os.utime(path, (0, 0))
        model.segment(path, "the star")
    assert work["prefixes"] == 2


def test_changed_options_and_dialects_are_other_images(nano, model, scenes, work):
    model.segment(scenes[0], "the star")
    model.options = ReasonerOptions(max_pixels=100 * 100)
    shown = model.segment(scenes[0], "the star")
    assert work["prefixes"] == 2
    other = GenSegR1(model.reasoner, model.segmenter, dialects.get_dialect("qwen3_vl"), options=model.options)
    other.segment(scenes[0], "the star")
    assert work["prefixes"] == 3
    own = nano.reasoner
    simple = TransformersReasoner(own.model, own.processor, own.max_new_tokens)
    expected = GenSegR1(simple, nano.segmenter, nano.dialect, options=model.options).segment(scenes[0], "the star")
    assert shown.response == expected.response


def test_other_words_before_the_image_do_not_take_its_prefix(nano, model, scenes):
    """The same key with other instructions, together and one after the other."""
    asked = [about(nano, scenes[0], "the star", "key") for _ in range(3)]
    asked[1].chat[0]["content"][0]["text"] = "Look."
    own = nano.reasoner
    expected = ask(TransformersReasoner(own.model, own.processor, own.max_new_tokens), asked, 1)
    assert ask(model.reasoner, asked, 3) == ask(model.reasoner, asked, 1) == expected


def test_a_single_pixel_or_another_shape_is_another_image():
    pixels = np.zeros((4, 6, 3), np.uint8)
    other = pixels.copy()
    other[3, 5, 2] = 1
    images = [pixels, other, pixels.reshape(6, 4, 3), pixels.reshape(2, 12, 3)]
    assert len({content_key(Image.fromarray(image)) for image in images}) == 4
    assert content_key(Image.fromarray(pixels)) == content_key(Image.fromarray(pixels.copy()))


def test_only_the_last_images_are_kept_within_the_bound(model, nano, scenes, monkeypatch):
    def kept() -> list[bool]:
        return [(str(i), head) in model.reasoner.prefixes._kept for i in range(6)]

    asked = [about(nano, scenes[0], "the star", str(i)) for i in range(6)]
    text = nano.reasoner.processor.apply_chat_template(asked[0].chat, tokenize=False)
    head = text.partition(nano.reasoner.processor.image_token)[0]
    ask(model.reasoner, asked, 6)
    assert kept() == [False] * 2 + [True] * 4
    ask(model.reasoner, asked[2:3], 1)
    ask(model.reasoner, asked[:1], 1)
    assert kept() == [True, False, True, False, True, True], "the oldest went"
    size = next(iter(model.reasoner.prefixes._kept.values())).bytes
    monkeypatch.setattr(prefixes, "_MOST_BYTES", 2 * size)
    ask(model.reasoner, asked[1:2], 1)
    assert kept() == [True, True] + [False] * 4
    monkeypatch.setattr(prefixes, "_MOST_BYTES", size - 1)
    ask(model.reasoner, asked[3:4], 1)
    assert not any(kept())


def test_the_segmenter_keeps_two_images(model, scenes, work):
    (instance,) = model.segment(scenes[0], "the largest shape").response.instances[:1]
    model.release()
    work.clear()
    for key in (0, 1, 0, 1, 2, 1, 0):
        model.segmenter.segment(scenes[key], [instance], key)
    assert work["embeddings"] == 4


@pytest.mark.parametrize("where", ["prefill", "step", "join"])
def test_short_memory_drops_what_is_kept_before_a_prompt_fails(model, nano, scenes, monkeypatch, where):
    asked = [about(nano, scenes[i % 2], words, i % 2) for i, words in enumerate(expressions(6))]
    expected = ask(model.reasoner, asked, 6)
    assert model.reasoner.prefixes._kept
    work = getattr(model.reasoner, where)

    def short(given):
        if model.reasoner.prefixes._kept:
            raise torch.OutOfMemoryError("simulated")
        return work(given)

    monkeypatch.setattr(model.reasoner, where, short)
    assert ask(model.reasoner, asked, 6) == expected
    monkeypatch.undo()
    assert ask(model.reasoner, asked[:1], 1) == expected[:1]
    assert model.reasoner.prefixes._kept, "the next session keeps again"
