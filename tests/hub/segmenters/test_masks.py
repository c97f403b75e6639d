"""Masks of Transformers' SAM 2 and SAM 3: SAM 2's are the masks of the sam2 package."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from genseg_hub.images import load_image
from genseg_hub.schema import InstancePrompt, decode_mask
from genseg_hub.segmenters import base
from genseg_hub.segmenters.loading import load_segmenter
from genseg_hub.segmenters.sam2 import Sam2Segmenter, build_sam2
from genseg_hub.segmenters.transformers import TransformersSegmenter
from genseg_training.nano import answers
from genseg_training.nano.refscenes import refscenes
from PIL import Image
from sam2.utils.transforms import SAM2Transforms

from tests.helpers import sam2_in_transformers
from tests.helpers.segmenting import assert_same, photo, prompts

KINDS = ["sam2", "sam3"]


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("name", ["000000000030.jpg", "000000000089.jpg"])
def test_a_trained_sam2_gives_the_masks_of_the_sam2_package(sam2, nano, name, multimask):
    image = photo(name)
    asked = prompts(image, 1)
    theirs = nano.segmenter.segment(image, asked, multimask=multimask)
    assert sum(mask.any() for mask in theirs[0]) >= 5
    assert_same(sam2.segment(image, asked, multimask=multimask), theirs)


def test_a_random_sam2_of_metas_architecture_gives_the_masks_of_the_sam2_package():
    """Compare SAM 2.1 tiny at 512 instead of 1024 pixels, to save time."""
    torch.manual_seed(3)
    model = build_sam2("sam2.1/sam2.1_hiera_t", {"image_size": 512})
    ours = TransformersSegmenter(sam2_in_transformers.convert(model), sam2_in_transformers.processor(512))
    image = photo()
    asked = prompts(image, 2)
    theirs = Sam2Segmenter(model).segment(image, asked, multimask=True)
    assert all(0.01 < mask.mean() < 0.99 for mask in theirs[0])
    assert_same(ours.segment(image, asked, multimask=True), theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_segmenter_gives_the_same_masks(kind, request):
    segmenter, folder = request.getfixturevalue(kind), request.getfixturevalue(f"{kind}_folder")
    image = photo()
    asked = prompts(image, 1)
    assert_same(load_segmenter(folder, None, "cpu").segment(image, asked), segmenter.segment(image, asked))


def test_models_get_the_pixels_of_the_authors_code(sam2_parts, sam3_parts, nano_sam2):
    """Check the rounding of resized images: the sam2 package keeps fractions of grey levels, and SAM 3 rounds."""
    image = photo()
    sam3_processor = sam3_parts[1]
    for parts, expected in (
        (sam2_parts, SAM2Transforms(nano_sam2.image_size, mask_threshold=0)(image)),
        (sam3_parts, sam3_processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"][0]),
    ):
        given: list[torch.Tensor] = []

        def keep(module, inputs, given=given):
            given.append(inputs[0][0])

        with parts[0].vision_encoder.register_forward_pre_hook(keep):
            TransformersSegmenter(*parts).segment(image, prompts(image, 1)[:1])
        assert torch.allclose(given[0], expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_other_instances_do_not_change_a_mask(kind, request, monkeypatch):
    segmenter = request.getfixturevalue(kind)
    image = photo()
    asked = [*prompts(image, 1), *prompts(image, 2)]
    together = segmenter.segment(image, asked)
    for prompt, mask, score in zip(asked, *together, strict=True):
        (alone,), (its,) = segmenter.segment(image, [prompt])
        assert (mask != alone).mean() < 1e-3
        assert score == pytest.approx(its, abs=1e-4)
    monkeypatch.setattr(base, "MAX_VALUES", 1)  # one instance per chunk
    one_by_one = segmenter.segment(image, asked)
    assert all((a != b).mean() < 1e-3 for a, b in zip(one_by_one[0], together[0], strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_embedded_once(kind, request):
    (model, processor), first, second = request.getfixturevalue(f"{kind}_parts"), photo(), photo("000000000089.jpg")
    segmenter, embedded = TransformersSegmenter(model, processor), []
    with model.vision_encoder.register_forward_hook(lambda *_: embedded.append(1)):
        for image, key in ((first, "a"), (first, "a"), (second, "b"), (second, None), (second, None)):
            masks, scores = segmenter.segment(image, prompts(image, 1), key)
            assert [mask.shape for mask in masks] == [image.shape[:2]] * 6
            assert all(0 <= score <= 1 for score in scores)
        assert segmenter.segment(second, [], "b") == ([], [])
    assert len(embedded) == 4


@pytest.mark.parametrize("shape", [(3, 200), (200, 3), (1, 1), (3, 3)])
def test_images_of_three_rows_are_not_taken_for_channels(sam2, nano, shape):
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    asked = [InstancePrompt((0.0, 0.0, float(shape[1]), float(shape[0])), ())]
    assert_same(sam2.segment(image, asked), nano.segmenter.segment(image, asked))


def test_an_embedding_of_16_bits_costs_no_quality(sam2, sam2_parts, nano):
    """Compare as on a GPU, on rendered scenes, for which nano's SAM 2 was trained."""
    half = TransformersSegmenter(*sam2_parts, torch.bfloat16)
    examples = list(refscenes("val", 12))
    expected = answers.segmenter_miou(nano.segmenter, examples)
    assert answers.segmenter_miou(sam2, examples) == pytest.approx(expected, abs=1e-3)
    assert answers.segmenter_miou(half, examples) == pytest.approx(expected, abs=0.01)
    assert {parameter.dtype for parameter in sam2_parts[0].parameters()} == {torch.float32}


def test_threads_that_share_a_segmenter_get_their_own_masks(nano):
    asked = [(scene.image, prompts(scene.image, seed)) for seed, scene in enumerate(refscenes("val", 16))]
    alone = [nano.segmenter.segment(*one, key=i // 4)[0] for i, one in enumerate(asked)]

    def thread(order):
        return {i: nano.segmenter.segment(*asked[i], key=i // 4)[0] for i in order}

    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(thread, (range(16), range(15, -1, -1))):
            assert all(np.array_equal(found[i], masks) for i, masks in enumerate(alone))


@pytest.mark.parametrize("kind", ["nano", "sam2", "sam3"])
def test_points_without_a_box_give_a_mask(kind, request):
    """Mix prompts with and without boxes: each gets the mask that it gets alone."""
    fixture = request.getfixturevalue(kind)
    segmenter = fixture.segmenter if kind == "nano" else fixture
    image = photo()
    boxed = prompts(image, 1)[:2]
    asked = [replace(boxed[0], box=None, points=boxed[0].points or ((9.0, 9.0),)), *boxed]
    asked.append(InstancePrompt(None, ((40.0, 50.0),)))
    for multimask in (False, True):
        masks, scores = segmenter.segment(image, asked, multimask=multimask)
        assert [mask.shape for mask in masks] == [image.shape[:2]] * 4
        for prompt, mask, score in zip(asked, masks, scores, strict=True):
            (alone,), (its,) = segmenter.segment(image, [prompt], multimask=multimask)
            assert (mask != alone).mean() < 1e-3
            assert score == pytest.approx(its, abs=1e-4)


def test_points_in_a_shape_give_roughly_the_shape(nano):
    """Use nano's SAM 2, which was trained with boxes: from points alone its mean IoU is 0.44 in place of 0.9."""
    ious = []
    for example in refscenes("val", 40):
        truths = [decode_mask(rle) for rle in example.masks or ()]
        asked = [InstancePrompt(None, answers.interior_points(truth)) for truth in truths]
        masks, _ = nano.segmenter.segment(np.array(load_image(example.image)), asked)
        ious += [(mask & truth).sum() / (mask | truth).sum() for mask, truth in zip(masks, truths, strict=True)]
    assert len(ious) > 15
    assert np.mean(np.array(ious) > 0) > 0.8
    assert np.mean(ious) > 0.3


def test_transformers_gives_the_masks_of_the_sam2_package_for_points(sam2, nano):
    image = photo()
    asked = [InstancePrompt(None, ((100.0, 80.0), (120.0, 90.0))), InstancePrompt(None, ((30.0, 200.0),))]
    assert_same(sam2.segment(image, asked, multimask=True), nano.segmenter.segment(image, asked, multimask=True))
