"""Checkpoints of other systems: their architecture, the image that they see, SAM 2's input, and their names."""

import numpy as np
import pytest
import torch
import transformers
from genseg_hub import GenSegR1, ReferringExample, checkpoints, dialects
from genseg_hub.checkpoints.catalog import KNOWN, NANO, SAM2_REPOSITORIES
from genseg_hub.reasoners.base import Generation
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_hub.schema import InstancePrompt, Prediction
from genseg_hub.segmenters.sam2 import Sam2Segmenter
from PIL import Image

from tests.helpers.archive_files import PHOTOS
from tests.helpers.families import save_qwen2_5_vl

PHOTO = PHOTOS / "images" / "000000000030.jpg"
ANSWERS = {
    "seg_zero": '<think>a</think><answer>{"bbox": [210,105,630,735], "points_1": [420,420], "points_2": [430,500]}'
    "</answer>",
    "vision_reasoner": '<think>a</think><answer>[{"bbox_2d": [210,105,630,735], "point_2d": [420,420]}]</answer>',
    "seg_r1": "<think>a</think><bbox>[256,128,768,896]</bbox><points>[[512,512],[270,140]]</points>"
    "<labels>[1,0]</labels>",
}
FAMILIES = sorted(ANSWERS)


@pytest.mark.parametrize("dialect", FAMILIES)
def test_a_checkpoint_of_qwen2_5_vl_runs_on_photographs(dialect, tmp_path):
    model = GenSegR1.from_pretrained(str(save_qwen2_5_vl(tmp_path / "checkpoint", dialect)), device="cpu")
    assert isinstance(model.reasoner.model, transformers.Qwen2_5_VLForConditionalGeneration)
    photos = sorted((PHOTOS / "images").iterdir())[:3]
    results = list(model.segment_many([ReferringExample(photo, "the vase") for photo in photos], 2))
    for photo, result in zip(photos, results, strict=True):
        assert isinstance(result, Prediction)
        assert result.image_size == Image.open(photo).size
        assert result.response.error is not None  # random weights give unreadable answers


class _Scripted(TransformersReasoner):
    """Reasoner with a known answer, which keeps the images of its prompts."""

    def __init__(self, text):
        self.text, self.shown = text, []

    def generate(self, batch):
        self.shown += [question.image for question in batch]
        return [Generation(self.text, truncated=False) for _ in batch]


@pytest.mark.parametrize("dialect", FAMILIES)
def test_the_image_is_shown_in_their_frame_and_segmented_in_its_own(dialect, nano):
    reasoner = _Scripted(ANSWERS[dialect])
    model = GenSegR1(reasoner, nano.segmenter, dialects.get_dialect(dialect))
    result = model.segment(PHOTO, "the vase")
    assert [image.size for image in reasoner.shown] == [{"seg_r1": (1024, 1024)}.get(dialect, (840, 840))]
    photo = Image.open(PHOTO).convert("RGB")
    shown = np.asarray(photo.resize(reasoner.shown[0].size, Image.Resampling.BILINEAR))
    assert np.array_equal(np.asarray(reasoner.shown[0]), shown)
    (instance,) = result.response.instances
    width, height = photo.size
    assert instance.box == pytest.approx((width / 4, height / 8, 3 * width / 4, 7 * height / 8))
    assert len(instance.negative_points) == (dialect == "seg_r1")
    assert result.mask.shape == (height, width)


def test_negative_points_reach_sam2_and_multimask_takes_its_best(nano, nano_sam2):
    image = np.array(Image.open(PHOTO).convert("RGB"))
    box, inside, outside = (100.0, 50.0, 400.0, 350.0), ((250.0, 200.0),), ((120.0, 60.0), (380.0, 340.0))
    given, decoded = {}, []

    def keep(module, args, kwargs):
        coords, labels = kwargs["points"]
        given[coords.shape[1] - 2] = coords.numpy(), labels.tolist()  # after the two corners of the box

    segmenter = Sam2Segmenter(nano_sam2)
    prompts = [
        InstancePrompt(box, inside, negative_points=outside),
        InstancePrompt(box, ()),
        InstancePrompt(box, inside),
    ]
    with nano_sam2.sam_prompt_encoder.register_forward_pre_hook(keep, with_kwargs=True):
        masks, scores = segmenter.segment(image, prompts)
    coords, labels = given[3]
    pixels = coords[0] / nano_sam2.image_size * image.shape[1::-1]
    assert pixels == pytest.approx(np.array([(100, 50), (400, 350), *inside, *outside]), abs=1e-3)
    assert labels == [[2, 3, 1, 0, 0]]
    assert given[1][1] == [[2, 3, 1]]
    assert given[0][1] == [[2, 3]]
    # Other instances do not change a mask.
    for prompt, mask, score in zip(prompts, masks, scores, strict=True):
        (alone,), (its,) = nano.segmenter.segment(image, [prompt])
        assert (mask != alone).mean() < 1e-3
        assert score == pytest.approx(its, abs=1e-4)
    with nano_sam2.sam_mask_decoder.register_forward_hook(lambda *given: decoded.append(given[-1][:2])):
        (best,), (score,) = segmenter.segment(image, prompts[:1], multimask=True)
    ((logits, ious),) = ((logits[0], ious[0]) for logits, ious in decoded)
    assert len(ious) == 3
    assert score == pytest.approx(min(1.0, float(ious.max())), abs=1e-6)
    whole = torch.nn.functional.interpolate(logits[None], image.shape[:2], mode="bilinear")[0]
    assert np.array_equal(best, (whole[ious.argmax()] > 0).numpy())


def test_known_names_have_their_dialect_and_segmenter(tmp_path):
    for known in KNOWN:
        if known.takes_words:
            continue
        assert known.dialect in dialects.names()
        assert known.segmenter in {*SAM2_REPOSITORIES, NANO}
    for name, dialect, segmenter in (
        ("Ricky06662/Seg-Zero-7B", "seg_zero", "facebook/sam2-hiera-large"),
        ("Ricky06662/VisionReasoner-7B", "vision_reasoner", "facebook/sam2-hiera-large"),
        ("geshang/Seg-R1-7B", "seg_r1", "facebook/sam2.1-hiera-large"),
        ("somebody/else", "qwen2_5_vl", "facebook/sam2.1-hiera-large"),
    ):
        folder = save_qwen2_5_vl(tmp_path / name, "genseg")
        (folder / checkpoints.SETTINGS_FILE).unlink()
        assert checkpoints.check_folder(folder, name) == {"dialect": dialect, "segmenter": segmenter}
