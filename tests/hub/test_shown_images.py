"""The image that the reasoner sees: within its limits, and with coordinates that come back right."""

import json

import numpy as np
import pytest
import transformers
from genseg_hub import GenSegR1, dialects
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.images import shown_size
from genseg_hub.options import MAX_IMAGE_TOKENS, ReasonerOptions
from genseg_hub.reasoners.base import Generation
from genseg_hub.reasoners.transformers import TransformersReasoner, shown_sizes
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.families import save_family, save_qwen2_5_vl

# Limits of the processors that Qwen publishes, as their preprocessor_config.json states them.
PUBLISHED = {
    "qwen2_5_vl": transformers.Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12_845_056),
    "qwen3_vl": transformers.Qwen2VLImageProcessor(
        size={"shortest_edge": 65_536, "longest_edge": 16_777_216}, patch_size=16
    ),
}
SIZES = st.tuples(st.integers(28, 900), st.integers(28, 900)).filter(lambda size: max(size) < 100 * min(size))


class Scripted(TransformersReasoner):
    """A reasoner with a known answer, which looks at images with a true processor."""

    def __init__(self, image_processor, answer):
        self.image_processor, self.answer, self.seen = image_processor, answer, []

    def generate(self, batch):
        answers = []
        for prompt in batch:
            inputs = self.image_processor(images=[prompt.image], return_tensors="pt")
            (size,) = shown_sizes(inputs, self, 1)
            self.seen.append((prompt.image.size, size))
            answers.append(Generation(self.answer(size), False, size))
        return answers


@settings(max_examples=40)
@given(size=SIZES, box=st.tuples(*[st.floats(0.05, 0.45)] * 2, *[st.floats(0.55, 0.95)] * 2))
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_box_comes_back_right_for_any_size_and_aspect_ratio(name, size, box, nano):
    """The model marks a thing where it sees it; the box in the original image is the thing's."""
    dialect = dialects.get_dialect(name)

    def answer(shown):
        frame = shown if dialect.PIXELS else (1000, 1000)
        return json.dumps([{"bbox_2d": [value * frame[i % 2] for i, value in enumerate(box)]}])

    reasoner = Scripted(PUBLISHED[name], answer)
    model = GenSegR1(reasoner, nano.segmenter, dialect, options=ReasonerOptions(max_pixels=400_000))
    result = model.segment(Image.new("RGB", size), "it")
    (instance,) = result.response.instances
    assert instance.box == pytest.approx([value * size[i % 2] for i, value in enumerate(box)], rel=1e-6)
    ((sent, shown),) = reasoner.seen
    if dialect.PIXELS:
        assert sent == shown, "what is sent is what the model sees, on any server"
    assert sent[0] * sent[1] <= max(400_000, dialect.TOKEN_SIDE**2)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
@pytest.mark.parametrize("size", [(6000, 4000), (4000, 6000), (9000, 300)])
def test_a_large_photograph_has_at_most_the_default_tokens(name, size, nano):
    dialect = dialects.get_dialect(name)
    reasoner = Scripted(PUBLISHED[name], lambda shown: "[]")
    assert GenSegR1(reasoner, nano.segmenter, dialect).segment(Image.new("RGB", size), "it").response.no_target
    ((sent, shown),) = reasoner.seen
    tokens = shown[0] * shown[1] / dialect.TOKEN_SIDE**2
    assert sent == shown
    assert 0.9 * MAX_IMAGE_TOKENS < tokens <= MAX_IMAGE_TOKENS
    assert shown[0] / shown[1] == pytest.approx(size[0] / size[1], rel=0.12)


def test_a_picture_within_the_limits_is_left_to_the_processor(nano):
    reasoner = Scripted(PUBLISHED["qwen3_vl"], lambda shown: "[]")
    photo = Image.new("RGB", (1920, 1080))
    GenSegR1(reasoner, nano.segmenter, dialects.get_dialect("qwen3_vl")).segment(photo, "it")
    assert reasoner.seen == [((1920, 1080), (1920, 1088))]


def test_min_pixels_enlarges_a_small_picture(nano):
    reasoner = Scripted(PUBLISHED["qwen2_5_vl"], lambda shown: "[]")
    options = ReasonerOptions(min_pixels=280 * 280)
    model = GenSegR1(reasoner, nano.segmenter, dialects.get_dialect("qwen3_vl"), options=options)
    model.segment(Image.new("RGB", (64, 64)), "it")
    ((sent, _),) = reasoner.seen
    assert sent[0] * sent[1] >= 280 * 280


def test_max_pixels_reaches_the_processor_of_a_checkpoint(tmp_path):
    folder = save_family(tmp_path / "qwen3_vl", "qwen3_vl")
    model = GenSegR1.from_pretrained(str(folder), device="cpu", max_pixels=64 * 64)
    result = model.segment(Image.fromarray(np.full((480, 640, 3), 90, np.uint8)), "it")
    assert result.image_size == (640, 480)
    images = model.reasoner.processor.image_processor(images=[Image.new("RGB", (640, 480))], return_tensors="pt")
    ((width, height),) = shown_sizes(images, model.reasoner.processor, 1)
    assert width * height <= 64 * 64


def test_the_size_that_is_shown_is_that_of_the_true_processor(nano):
    processor = transformers.AutoProcessor.from_pretrained(EMBEDDED["nano"])
    image = Image.new("RGB", (321, 203))
    inputs = processor(text=[processor.image_token], images=[image], return_tensors="pt")
    side = processor.image_processor.patch_size * processor.image_processor.merge_size
    size = processor.image_processor.size
    expected = shown_size(image.size, side, size["shortest_edge"], size["longest_edge"])
    assert shown_sizes(inputs, processor, 1) == [expected]


def test_a_dialect_of_one_size_takes_no_limit(tmp_path):
    """The answer's pixels are those of 840 x 840; a processor that shows less would shift every mask."""
    folder = save_qwen2_5_vl(tmp_path / "seg_zero", "seg_zero")
    with pytest.raises(ValueError, match="the dialect seg_zero always shows 840 x 840 pixels; leave max_pixels out"):
        GenSegR1.from_pretrained(str(folder), device="cpu", max_pixels=400_000)
