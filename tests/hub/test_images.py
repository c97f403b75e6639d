"""Images of all kinds that people store are read."""

import numpy as np
import pytest
from genseg_hub.errors import ImageError
from genseg_hub.images import image_size, load_image
from PIL import Image

GRADIENT = np.tile(np.linspace(0, 255, 40, dtype=np.uint8), (30, 1))


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB", "RGBA", "LA", "CMYK", "YCbCr"])
def test_every_mode_becomes_upright_rgb(tmp_path, mode):
    rgb = Image.fromarray(GRADIENT).convert("RGB")
    image = rgb.quantize() if mode == "P" else rgb.convert(mode)
    suffix = {"CMYK": "jpg", "YCbCr": "jpg"}.get(mode, "png")
    loaded = load_image(saved(tmp_path, image, f"image.{suffix}"))
    assert (loaded.mode, loaded.size) == ("RGB", (40, 30))
    if mode != "1":
        assert np.abs(np.asarray(loaded).astype(int)[..., 0] - GRADIENT).max() <= 12


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    deep = (GRADIENT.astype(np.uint16)) * 257
    loaded = load_image(saved(tmp_path, Image.fromarray(deep), "deep.png"))
    assert np.array_equal(np.asarray(loaded)[..., 0], GRADIENT)


def test_transparent_pixels_become_white():
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert np.asarray(load_image(image)).min() == 255


def test_exif_orientation_is_honoured(tmp_path):
    image = Image.fromarray(GRADIENT)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to display
    file = saved(tmp_path, image, "turned.jpg", exif=exif, quality=95)
    loaded = load_image(file)
    assert loaded.size == image_size(file) == (30, 40)
    assert image_size(saved(tmp_path, image, "turned.png", exif=exif)) == (30, 40)
    column = np.asarray(loaded)[:, 15, 0]
    assert column[0] < 20
    assert column[-1] > 235


def test_paths_arrays_and_pil_images_give_the_same_pixels(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(array), "image.png")
    for image in (path, str(path), Image.fromarray(array), array):
        assert np.array_equal(np.asarray(load_image(image)), array)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("/nowhere/cat.jpg", "no file /nowhere/cat.jpg"),
        (np.zeros((4, 4, 3)), r"uint8\[H, W, 3\], got float64"),
        (np.zeros((4, 4), np.uint8), r"uint8\[H, W, 3\], got uint8\[4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8\[0, 4, 3\]"),
        (42, "got int"),
        (Image.new("L", (20_000, 6_000)), "120|20000 x 6000 pixels.*resize"),
        (Image.new("L", (401, 2)), "401 x 2; the longer side"),
        (Image.new("F", (4, 4)), "floating-point"),
    ],
)
def test_an_unusable_image_is_explained(image, message):
    with pytest.raises(ImageError, match=message):
        load_image(image)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\x00" * 50])
def test_a_file_that_is_no_image_is_explained(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"broken\.png"):
        load_image(path)


def test_a_truncated_file_is_explained(tmp_path):
    path = saved(
        tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)), "cut.jpg"
    )
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ImageError, match=r"cut\.jpg cannot be decoded"):
        load_image(path)


def test_the_size_of_a_file_that_is_no_image_is_an_error(tmp_path):
    (tmp_path / "cat.png").write_bytes(b"meow")
    with pytest.raises(ImageError, match="is not an image that Pillow can read"):
        image_size(tmp_path / "cat.png")
    with pytest.raises(ImageError, match="no file"):
        image_size(tmp_path / "dog.png")
