"""Sizes of samples' images are the sizes of the pictures that models see."""

import fiftyone as fo
import pytest
from genseg_hub.images import load_image
from PIL import Image

from fiftyone_genseg.sizes import size_of
from tests.helpers import strategies


def of_metadata(file):
    metadata = fo.ImageMetadata.build_for(str(file))
    return metadata.width, metadata.height


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("name", ["photo.jpg", "photo.JPEG", "photo.png"])
def test_a_picture_has_its_upright_size_whatever_its_metadata_and_suffix(tmp_path, name, kind):
    file = tmp_path / name
    options = {"save_all": True, "append_images": [Image.new("RGB", (20, 15))]} if kind == "MPO" else {}
    Image.new("RGB", (40, 30)).save(file, kind, exif=strategies.oriented(6), **options)
    for width, height in (of_metadata(file), (40, 30), (None, None)):
        assert size_of(str(file), width, height) == load_image(file).size == (30, 40)


def test_a_replaced_file_has_its_new_size(tmp_path):
    file = tmp_path / "photo.jpg"
    Image.new("RGB", (40, 30)).save(file)
    before = of_metadata(file)
    Image.new("RGB", (80, 60)).save(file)
    assert size_of(str(file), *before) == (80, 60)


def test_metadata_tells_the_size_of_a_file_that_is_gone_or_unreadable(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    for file in ("broken.jpg", "gone.jpg"):
        assert size_of(str(tmp_path / file), 40, 30) == (40, 30)
        assert size_of(str(tmp_path / file), None, None) is None
