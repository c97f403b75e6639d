"""A frozen vision tower encodes each picture of a batch once, and the features stay the same."""

import random

import pytest
import torch
import transformers
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_training.frozen_tower import encode_once
from genseg_training.nano.scenes import scene
from PIL import Image


@pytest.fixture(scope="module")
def inputs():
    """Four pictures in mixed order; two have the same size, and one differs from another in a single pixel."""
    first, second = (scene(random.Random(seed), canvas=(256, 256)).image for seed in (0, 1))
    wide = scene(random.Random(2), canvas=(384, 256)).image
    nearly = first.copy()
    nearly[0, 0] = 255 - nearly[0, 0]
    processor = transformers.AutoProcessor.from_pretrained(EMBEDDED["nano"]).image_processor
    images = [first, wide, first, second, nearly, wide, first]
    return processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")


def test_repeated_pictures_are_encoded_once_with_the_same_features(inputs):
    model = transformers.AutoModelForImageTextToText.from_pretrained(EMBEDDED["nano"], dtype=torch.float32).model
    pixels, grid = inputs["pixel_values"], inputs["image_grid_thw"]
    encoded = []
    model.visual.patch_embed.register_forward_hook(lambda module, args, output: encoded.append(len(args[0])))
    with torch.no_grad():
        before = model.visual(pixels, grid_thw=grid)
        encode_once(model.visual)
        after = model.visual(pixels, grid_thw=grid)
    lengths = grid.prod(-1).tolist()
    assert encoded == [sum(lengths), lengths[0] + lengths[1] + lengths[3] + lengths[4]]
    torch.testing.assert_close(after.pooler_output, before.pooler_output)
    torch.testing.assert_close(after.last_hidden_state, before.last_hidden_state)
    assert len(after.deepstack_features) == len(before.deepstack_features) == 2
    for mine, alone in zip(after.deepstack_features, before.deepstack_features, strict=True):
        torch.testing.assert_close(mine, alone)
