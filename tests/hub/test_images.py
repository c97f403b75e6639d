"""Images of all kinds that people store are read."""

import struct
import zlib

import numpy as np
import pytest
from genseg_hub.errors import ImageError
from genseg_hub.images import image_size, load_image
from hypothesis import given
from PIL import Image, ImageOps, PngImagePlugin

from tests.helpers import strategies

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


@given(strategies.picture_files())
def test_the_header_says_the_size_that_the_picture_has(content):
    loaded = load_image(content)
    assert (loaded.mode, loaded.size) == ("RGB", image_size(content))


@pytest.mark.parametrize("number", strategies.ORIENTATIONS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_every_format_is_upright_in_the_same_way(tmp_path, suffix, mode, number):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :16], pixels[8:, 16:] = (255, 0, 0), (0, 255, 0)
    image = Image.fromarray(pixels).convert(mode)
    exif = strategies.oriented(number)
    options = {"lossless": True} if suffix == "webp" else {} if suffix in ("png", "tif") else {"quality": 100}
    file = saved(tmp_path, image, f"image.{suffix}", exif=exif, **options)
    expected = image.convert("RGB")
    expected.getexif()[0x0112] = number
    expected = ImageOps.exif_transpose(expected)
    loaded = load_image(file)
    assert loaded.size == image_size(file) == expected.size
    assert np.abs(np.asarray(loaded).astype(int) - np.asarray(expected)).mean() < 6


def test_an_orientation_after_the_pixels_of_a_png_counts_and_damaged_metadata_does_not(tmp_path):
    file = saved(tmp_path, Image.fromarray(GRADIENT), "image.png")
    content = file.read_bytes()
    exif = strategies.oriented(6).tobytes()[6:]
    for data, size in ((exif, (30, 40)), (b"not EXIF", (40, 30))):
        chunk = b"eXIf" + data
        chunk = struct.pack(">I", len(data)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for place in (content.index(b"IDAT") - 4, len(content) - 12):  # before the pixels and after them
            changed = content[:place] + chunk + content[place:]
            assert image_size(changed) == load_image(changed).size == size


def test_the_size_of_a_png_is_read_without_decoding_it(monkeypatch, tmp_path):
    file = saved(tmp_path, Image.fromarray(GRADIENT), "image.png")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("decoded"))
    assert image_size(file) == (40, 30)


RAMP = np.linspace(0, 1, 64)[None].repeat(8, 0)


def ramp(bits: int) -> np.ndarray:
    return (RAMP * ((1 << bits) - 1)).round().astype(np.uint16)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_greys_of_few_bits_in_a_file_of_16_keep_their_contrast(tmp_path, bits, suffix):
    loaded = np.asarray(load_image(saved(tmp_path, Image.fromarray(ramp(bits)), f"grey.{suffix}")))[..., 0]
    assert np.abs(loaded - (255 * RAMP)).max() <= 1


def test_the_bits_that_a_file_declares_decide(tmp_path):
    dark = ramp(12) // 4  # a dark picture: the largest value fits into 10 bits
    Image.fromarray(dark).save(tmp_path / "maximum.tif", tiffinfo={281: 4095})  # MaxSampleValue
    header = f"P5 {dark.shape[1]} {dark.shape[0]} 4095\n".encode()
    (tmp_path / "grey.pgm").write_bytes(header + dark.astype(">u2").tobytes())
    content = saved(tmp_path, Image.fromarray(dark), "grey.png").read_bytes()
    chunk = b"sBIT\x0c"
    chunk = struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "sbit.png").write_bytes(content[:33] + chunk + content[33:])
    for name in ("maximum.tif", "grey.pgm", "sbit.png"):
        loaded = np.asarray(load_image(tmp_path / name))[..., 0]
        assert abs(int(loaded.max()) - 64) <= 1, name
    assert np.asarray(load_image(tmp_path / "grey.png")).max() == 255  # nothing is declared
    # PNG's specification puts 12 bits in the upper part of 16.
    upper = saved(tmp_path, Image.fromarray(ramp(12) << 4), "upper.png").read_bytes()
    assert np.asarray(load_image(upper[:33] + chunk + upper[33:])).max() == 255


PHOTOMETRIC, SAMPLES = 262, 339
COMPRESSIONS = (None, "tiff_lzw", "tiff_adobe_deflate")


def tiff(tmp_path, values, compression=None, **tags):
    """Return a TIFF of unsigned numbers, whose tags are then changed."""
    file = tmp_path / "grey.tif"
    image = Image.fromarray(values if values.dtype != np.uint32 else values.view(np.int32))
    image.save(file, compression=compression, tiffinfo={SAMPLES: 1, PHOTOMETRIC: 1})
    content = bytearray(file.read_bytes())
    for name, value in tags.items():
        entry = content.index(struct.pack("<HH", {"photometric": PHOTOMETRIC, "samples": SAMPLES}[name], 3))
        struct.pack_into("<H", content, entry + 8, value)
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_tiff_whose_zero_is_white_is_inverted(tmp_path, bits, compression):
    values = ramp(bits).astype(np.uint8 if bits == 8 else np.uint16)
    loaded = np.asarray(load_image(tiff(tmp_path, values, compression, photometric=0)))[..., 0]
    assert np.abs(loaded - 255 * (1 - RAMP)).max() <= 1


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32])
def test_negative_pixels_are_refused_and_signed_numbers_are_not(tmp_path, kind, compression):
    values = np.arange(100, dtype=kind).reshape(10, 10)
    unsigned = f"uint{8 * values.itemsize}"
    loaded = np.asarray(load_image(tiff(tmp_path, values.view(unsigned), compression, samples=2)))[..., 0]
    assert np.array_equal(loaded, values)
    values[3, 4] = -1
    with pytest.raises(ImageError, match=r"grey.tif holds negative pixels; save it with values from 0"):
        load_image(tiff(tmp_path, values.view(unsigned), compression, samples=2))


def test_negative_values_of_a_pil_image_are_refused():
    with pytest.raises(ImageError, match="the PIL image holds negative pixels"):
        load_image(Image.fromarray(np.array([[0, -5]], np.int32)))


def test_unsigned_numbers_of_32_bits_are_not_negative(tmp_path):
    values = (RAMP * (2**32 - 1)).astype(np.uint32)
    loaded = np.asarray(load_image(tiff(tmp_path, values, samples=1)))[..., 0]
    assert np.abs(loaded - 255 * RAMP).max() <= 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF", "it is PostScript"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer, run `git lfs pull`"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "it is HEIC, install pillow-heif"),
        (b"%PDF-1.7\n", "it is a PDF"),
    ],
)
def test_other_files_with_the_name_of_a_picture_are_named_and_start_nothing(tmp_path, monkeypatch, content, why):
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "photo.png").write_bytes(content)
    for read in (load_image, image_size):
        for image in (tmp_path / "photo.png", content):
            with pytest.raises(ImageError, match=why):
                read(image)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    "path", ["s3://bucket/cat.jpg", "gs://b/cat.jpg", "https://host/cat.jpg", "/home/me/s3:/b/c.jpg"]
)
def test_a_picture_in_the_cloud_is_refused_with_what_fiftyone_offers(path):
    for read in (load_image, image_size):
        with pytest.raises(ImageError, match=r"FiftyOne Enterprise reads cloud media: download the file"):
            read(path)
