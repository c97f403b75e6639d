"""Masks of annotation files, in all forms."""

import numpy as np
import pytest
from genseg_hub.archives import coco_instances
from genseg_hub.schema import check_rle, decode_mask, encode_mask, rle_runs
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

masks = st.integers(1, 12).flatmap(
    lambda height: st.integers(1, 12).flatmap(
        lambda width: st.lists(st.booleans(), min_size=height * width, max_size=height * width).map(
            lambda bits: np.array(bits).reshape(height, width)
        )
    )
)


@given(masks)
def test_every_form_of_rle_gives_the_mask(mask):
    height, width = mask.shape
    rle = encode_mask(mask)
    runs, value = [], False
    for bit in mask.ravel(order="F"):
        if not runs or bit != value:
            if not runs and bit:
                runs.append(0)
            runs.append(0)
            value = bit
        runs[-1] += 1
    check_rle(rle)
    assert rle_runs(rle["counts"]).tolist() == runs
    split = [part for run in runs for part in (run, 0, 0)]  # the same mask, on which pycocotools' union would crash
    for counts in (rle["counts"], rle["counts"].encode(), runs, split):
        found = coco_instances.to_rle({"size": [height, width], "counts": counts}, height, width)
        assert (found is None) == (not mask.any())
        if found:
            check_rle(found)
            assert np.array_equal(decode_mask(found), mask)


corners = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=5)


@given(st.lists(corners.map(lambda points: [value for point in points for value in point]), max_size=4))
def test_polygons_give_their_union_and_too_short_ones_nothing(polygons):
    found = coco_instances.to_rle(polygons, 20, 20)
    usable = [polygon for polygon in polygons if len(polygon) >= 6]
    expected = np.zeros((20, 20), bool)
    for polygon in usable:
        expected |= coco_mask.decode(coco_mask.frPyObjects([polygon], 20, 20)[0]).astype(bool)
    assert np.array_equal(decode_mask(found) if found else np.zeros((20, 20), bool), expected)


@pytest.mark.parametrize(
    "segmentation",
    [None, 3, "text", [[0, 0, 1e9, 0, 0, 1e9]], [[0, 0, 1, 0, 1, float("nan")]], [[0, 0, float("inf"), 0, 1, 1]],
     [["a"] * 6], {"size": [5, 5], "counts": [1]}, {"size": [4, 4], "counts": [1, 2]}, {"counts": "0"},
     {"size": [4, 4], "counts": "zzzz"}, {"size": [4, 4], "counts": [-1, 17]}, {"size": [4, 4], "counts": None},
     {"size": [4, 4], "counts": "0"}, {"size": [4, 4], "counts": []}, {"size": [4, 4], "counts": [7.5, 8.5]},
     {"size": [4, 4], "counts": [1 << 62] * 4 + [16]}, {"size": [4, 4], "counts": [[8], [8]]},
     [[0, 0, 12, 12] * 500], [[[0, 0], [3, 0], [3, 3], [0, 3], [0, 2], [0, 1]]], ["123456"],
     [[0, 0, 1, 1, None, 2]], [7], [[0, 0, 3, 0, 3, 3], [0, 0, 1, 0, 1, 1, 0]]],
)  # fmt: skip
def test_a_segmentation_that_is_none_is_an_error(segmentation):
    with pytest.raises(ValueError, match="the segmentation cannot be read"):
        coco_instances.to_rle(segmentation, 4, 4)


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
