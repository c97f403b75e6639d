"""Referring examples survive the way through `datasets`, to disk and back."""

import datasets
import numpy as np
import pytest
from genseg_hub.referring_dataset import FEATURES, from_dataset, to_dataset
from genseg_hub.schema import ReferringExample, decode_mask, encode_mask
from PIL import Image


def test_examples_come_back_from_disk(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    masks = tuple(rng.random((6, 8)) < 0.5 for _ in range(2))
    examples = [
        ReferringExample(tmp_path / "image.png", "both", tuple(map(encode_mask, masks)), "a", "i"),
        ReferringExample(pixels, "nothing", (), "b", "i"),
        ReferringExample(Image.fromarray(pixels), "one", (encode_mask(masks[0]),), "c", "i"),
    ]
    to_dataset(examples).save_to_disk(tmp_path / "saved")
    (tmp_path / "image.png").unlink()  # images are inside
    dataset = datasets.load_from_disk(tmp_path / "saved")
    assert dataset.features == FEATURES
    for before, after in zip(examples, from_dataset(dataset), strict=True):
        assert (before.expression, before.example_id, before.image_id) == (
            after.expression,
            after.example_id,
            after.image_id,
        )
        assert np.array_equal(np.asarray(after.image), pixels)
        for a, b in zip(before.masks, after.masks, strict=True):
            assert np.array_equal(decode_mask(a), decode_mask(b))


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="'x' has no ground truth"):
        to_dataset([ReferringExample(np.zeros((2, 2, 3), np.uint8), "e", None, "x")])
    with pytest.raises(ValueError, match="no column 'example_id'"):
        next(from_dataset(datasets.Dataset.from_dict({"image": [1]})))
