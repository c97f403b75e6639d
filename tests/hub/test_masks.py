"""Masks in all forms that people store become the same pixels, or an error that says why."""

import numpy as np
import pytest
from genseg_hub.errors import MaskError
from genseg_hub.masks import from_array, normal_rle, read_file, to_rle
from genseg_hub.schema import check_rle, decode_mask, encode_mask, rle_runs
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from tests.helpers import strategies


@given(strategies.masks.flatmap(lambda mask: st.tuples(st.just(mask), strategies.rles_of(mask))))
def test_every_form_of_rle_gives_the_mask(drawn):
    mask, rle = drawn
    found = to_rle(rle, *mask.shape)
    check_rle(found)  # pycocotools reads it without harm
    assert np.array_equal(decode_mask(found), mask)
    assert normal_rle(rle) == found == normal_rle(found)
    assert rle_runs(encode_mask(mask)["counts"]).tolist() == strategies.runs_of(mask)


@given(st.data(), st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.3, 0.7, 1.0]))
def test_a_mask_in_its_box_is_encoded_as_pycocotools_encodes_the_whole_image(data, seed, share):
    height, width = data.draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    x1, x2 = sorted(data.draw(st.tuples(*[st.integers(0, width)] * 2)))
    y1, y2 = sorted(data.draw(st.tuples(*[st.integers(0, height)] * 2)))
    mask = np.zeros((height, width), bool)
    mask[y1:y2, x1:x2] = np.random.default_rng(seed).random((y2 - y1, x2 - x1)) < share
    whole = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    expected = {"size": whole["size"], "counts": whole["counts"].decode("ascii")}
    assert encode_mask(mask) == expected
    assert encode_mask(mask.astype(np.uint8) * 255) == expected


def test_runs_of_a_large_image_are_encoded_as_by_pycocotools():
    mask = np.zeros((3000, 4000), bool)
    mask[2990:, 3999] = mask[0, 0] = True
    mask[:, 700:900] = True  # whole columns: one run
    mask[1000:1010, 2000:2300] = True
    whole = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert encode_mask(mask)["counts"] == whole["counts"].decode("ascii")
    only = np.zeros_like(mask)
    only[:, 700:900] = True
    whole = coco_mask.encode(np.asfortranarray(only, dtype=np.uint8))
    assert encode_mask(only)["counts"] == whole["counts"].decode("ascii")
    assert len(rle_runs(encode_mask(only)["counts"])) == 3


@given(strategies.masks.flatmap(lambda mask: st.tuples(st.just(mask), strategies.arrays_of(mask))))
def test_every_form_of_array_gives_the_mask(drawn):
    mask, array = drawn
    assert np.array_equal(from_array(array), mask)


BLOB = np.zeros((30, 40), bool)
BLOB[5:20, 10:25] = True


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "0 and 1"])
def test_a_file_of_any_mode_gives_the_mask(tmp_path, mode, suffix):
    grey = Image.fromarray(BLOB).convert("L")
    if mode == "P":
        image = grey.convert("RGB").quantize(4)
    elif mode in ("I;16", "I"):
        image = Image.fromarray(BLOB.astype(np.uint16 if mode == "I;16" else np.int32) * 65535)
    else:
        image = Image.fromarray(BLOB.astype(np.uint8)) if mode == "0 and 1" else grey.convert(mode)
    if mode == "I":
        suffix = "tif"
    image.save(tmp_path / f"mask.{suffix}")
    assert np.array_equal(read_file(tmp_path / f"mask.{suffix}"), BLOB)


def test_a_palette_whose_colours_tell_nothing_apart_is_read_by_its_numbers(tmp_path):
    image = Image.fromarray(BLOB.astype(np.uint8), "P")
    for colours in ([0] * 6, [9] * 6):
        image.putpalette(colours)
        image.save(tmp_path / "mask.png")
        assert np.array_equal(read_file(tmp_path / "mask.png"), BLOB)


def test_the_noise_of_a_jpeg_is_background(tmp_path):
    Image.fromarray(BLOB).convert("L").save(tmp_path / "mask.jpg", quality=60)
    assert (np.asarray(Image.open(tmp_path / "mask.jpg"))[~BLOB] > 0).any()
    assert np.array_equal(read_file(tmp_path / "mask.jpg"), BLOB)


def test_a_mask_file_is_upright_as_its_image_is(tmp_path):
    Image.fromarray(BLOB).convert("L").save(tmp_path / "mask.png", exif=strategies.oriented(6))
    assert np.array_equal(read_file(tmp_path / "mask.png"), np.rot90(BLOB, -1))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "there is no file .*mask.png"),
        (b"", "mask.png is not an image that Pillow can read"),
        (b"%!PS-Adobe-3.0", "it is PostScript"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a git-lfs pointer, run `git lfs pull`"),
    ],
)
def test_a_mask_file_that_cannot_be_read_says_why(tmp_path, content, why):
    if content is not None:
        (tmp_path / "mask.png").write_bytes(content)
    with pytest.raises(MaskError, match=why):
        read_file(tmp_path / "mask.png")


def test_a_mask_file_that_was_cut_short_says_so(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90), dtype=np.uint8)).save(tmp_path / "mask.png")
    (tmp_path / "mask.png").write_bytes((tmp_path / "mask.png").read_bytes()[:900])
    with pytest.raises(MaskError, match=r"mask\.png cannot be decoded"):
        read_file(tmp_path / "mask.png")


@pytest.mark.parametrize(
    "array",
    [np.zeros((0, 4)), np.zeros(4), np.zeros((4, 4, 5)), np.array([["a"]]), np.array([[None]]), 7, [[1], [1, 2]]],
)
def test_an_array_that_is_no_mask_is_an_error(array):
    with pytest.raises(MaskError, match=r"a mask is \[h, w\]"):
        from_array(array)
    with pytest.raises(MaskError, match="not finite"):
        from_array(np.array([[float("nan")]]))


@given(st.lists(strategies.corners, max_size=4))
def test_polygons_give_their_union_and_too_short_ones_nothing(polygons):
    flat = [[value for point in points for value in point] for points in polygons]
    assume(len(flat) < 3 or any(len(polygon) != 2 for polygon in flat))  # pairs alone are the corners of one polygon
    expected = np.zeros((20, 20), bool)
    for polygon in flat:
        if len(polygon) >= 6:
            expected |= coco_mask.decode(coco_mask.frPyObjects([polygon], 20, 20)[0]).astype(bool)
    forms = [flat, polygons, *([flat[0], polygons[0]] if len(flat) == 1 and len(flat[0]) > 4 else [])]
    for form in forms:
        assert np.array_equal(decode_mask(to_rle(form, 20, 20)), expected)


def test_a_size_with_height_and_width_swapped_is_named():
    with pytest.raises(MaskError, match=r"\[2, 4\] \(height, width\), its image \[4, 2\], .*swapped"):
        to_rle(encode_mask(np.ones((2, 4), bool)), 4, 2)
    for size in ([1 << 40, 1 << 40], [-1, -1], [0, 4], [1.5, 2], None):
        with pytest.raises(MaskError):
            normal_rle({"size": size, "counts": "0"})


@pytest.mark.parametrize(
    "segmentation",
    [None, 3, "text", [[0, 0, 1e9, 0, 0, 1e9]], [[0, 0, 1, 0, 1, float("nan")]], [[0, 0, float("inf"), 0, 1, 1]],
     [["a"] * 6], {"size": [5, 5], "counts": [1]}, {"size": [4, 4], "counts": [1, 2]}, {"counts": "0"},
     {"size": [4, 4], "counts": "zzzz"}, {"size": [4, 4], "counts": [-1, 17]}, {"size": [4, 4], "counts": None},
     {"size": [4, 4], "counts": "0"}, {"size": [4, 4], "counts": []}, {"size": [4, 4], "counts": [7.5, 8.5]},
     {"size": [4, 4], "counts": [1 << 62] * 4 + [16]}, {"size": [4, 4], "counts": [[8], [8]]},
     [[0, 0, 12, 12] * 500], [[[0, 0], [3, 0], [3, 3, 3]]], ["123456"], [[[[0, 0], [3, 0], [3, 3]]]],
     [[0, 0, 1, 1, None, 2]], [7], [[0, 0, 3, 0, 3, 3], [0, 0, 1, 0, 1, 1, 0]]],
)  # fmt: skip
def test_a_segmentation_that_is_none_is_an_error(segmentation):
    with pytest.raises(ValueError, match="the segmentation cannot be read"):
        to_rle(segmentation, 4, 4)


@given(st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=40), st.integers(1, 9), st.integers(1, 9))
def test_an_rle_is_whole_or_an_error(counts, height, width):
    rle = {"size": [height, width], "counts": counts}
    try:
        found = decode_mask(rle)
    except ValueError:
        return
    runs = rle_runs(counts)
    assert np.array_equal(found.ravel(order="F"), np.repeat(np.arange(len(runs)) % 2 == 1, runs))
    assert np.array_equal(coco_mask.decode(coco_mask.merge([rle, rle])), found)


def test_runs_without_pixels_and_pixels_without_runs_are_an_error():
    runs_without_pixels = "0" * 10_000 + "4"
    for size, counts in (([2, 2], runs_without_pixels), ([2, 2], "3"), ([2, 2], "5"), ([0, 0], "0"), ([2, -2], "4")):
        with pytest.raises(ValueError, match="the counts of an RLE do not cover a mask"):
            check_rle({"size": size, "counts": counts})
