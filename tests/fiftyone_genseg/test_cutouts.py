"""FiftyOne's masks are put back where they were cut, to the pixel."""

import fiftyone as fo
import fiftyone.utils.coco as fouc
import numpy as np
import pytest
from genseg_hub.errors import MaskError
from hypothesis import given
from hypothesis import strategies as st

from fiftyone_genseg import labels
from fiftyone_genseg.cutouts import cutout

places = st.integers(-400, 4000).map(lambda hundredths: hundredths / 100) | st.integers(-8, 80).map(lambda n: n / 2)
lengths = st.integers(1, 3000).map(lambda hundredths: hundredths / 100) | st.integers(1, 60).map(lambda n: n / 2)


def painted(part, size) -> np.ndarray:
    full = np.zeros(size[::-1], bool)
    if part:
        x1, y1, x2, y2 = part.window
        full[y1:y2, x1:x2] = part.mask
    return full


@given(places, places, lengths, lengths, st.integers(0, 2**32 - 1), st.sampled_from([(40, 30), (37, 41), (33, 64)]))
def test_a_mask_of_fiftyones_coco_importer_comes_back(x, y, w, h, seed, size):
    width, height = size
    true = np.random.default_rng(seed).random((height, width)) < 0.5
    polygons_or_rle = fouc._mask_to_rle(true)
    mask = fouc._coco_segmentation_to_mask(polygons_or_rle, [x, y, w, h], size)  # cuts at rounded edges
    if min(x, y) < -0.5 or not mask.size:  # the importer cuts from the other end, or nothing at all
        return
    part, resized = cutout([x / width, y / height, w / width, h / height], mask, size)
    expected = np.zeros_like(true)
    window = slice(round(y), round(y + h)), slice(round(x), round(x + w))
    expected[window] = true[window]
    assert not resized
    assert np.array_equal(painted(part, size), expected)


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ((3.6, 2.2, 5.1, 4.9), (3, 2, 9, 8)),  # floor and ceil, as RF-DETR cuts
        ((3.6, 2.6, 5.0, 5.0), (4, 3, 9, 8)),  # both edges rounded
        ((3.4, 2.4, 5.3, 5.3), (3, 2, 8, 7)),  # the size rounded, as `Polyline.to_detection` does
        ((3.2, 2.2, 0.2, 0.2), (3, 2, 4, 3)),  # less than a pixel
        ((-4.0, 27.0, 10.0, 10.0), (0, 27, 6, 30)),  # cut at the border
    ],
)
def test_other_ways_of_rounding_are_known(box, window):
    x1, y1, x2, y2 = window
    mask = np.ones((y2 - y1, x2 - x1), bool)
    part, resized = cutout([box[0] / 40, box[1] / 30, box[2] / 40, box[3] / 30], mask, (40, 30))
    assert not resized
    assert part.window == window


def test_a_mask_that_reaches_over_the_border_is_cut_there():
    part, resized = cutout([-0.1, -0.1, 0.5, 0.5], np.ones((15, 20), bool), (40, 30))
    assert (part.window, resized) == ((0, 0, 16, 12), False)


def test_a_mask_of_another_resolution_is_resized_into_its_box():
    part, resized = cutout([0.25, 0.2, 0.5, 0.4], np.array([[1, 0], [0, 1]], bool), (40, 30))
    assert resized
    assert part.window == (10, 6, 30, 18)
    assert part.mask[:6, :10].all()
    assert part.mask[6:, 10:].all()
    assert part.mask.sum() == 120


def test_a_mask_of_the_whole_image_beside_a_smaller_box_stays_where_it_is():
    mask = np.zeros((30, 40), bool)
    mask[6:18, 10:30] = True
    part, resized = cutout([0.25, 0.2, 0.5, 0.4], mask, (40, 30))
    assert not resized
    assert np.array_equal(painted(part, (40, 30)), mask)


@pytest.mark.parametrize("box", [[float("nan"), 0, 1, 1], [0, 0, float("inf"), 1], [0, 0, 1], [], None])
def test_a_box_that_is_none_is_named(box):
    with pytest.raises(MaskError, match=r"the box of a label is .*, not four finite numbers"):
        cutout(box, np.ones((2, 2), bool), (40, 30))


def test_a_huge_box_takes_no_memory():
    part, resized = cutout([-1e9, -1e9, 2e9, 2e9], np.ones((2, 2), bool), (40, 30))
    assert (part.window, resized) == ((0, 0, 40, 30), True)


def test_a_detection_whose_mask_cannot_be_read_is_named(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"no picture")
    for attributes, why in (
        ({"mask_path": str(tmp_path / "mask.png")}, "mask.png is not an image"),
        ({"mask": np.zeros((0, 3), bool)}, r"bool\[0, 3\]"),
        ({}, "there is none, only a box"),
    ):
        detection = fo.Detection(bounding_box=[0, 0, 1, 1], **attributes)
        with pytest.raises(MaskError, match=rf"the mask of the detection {detection.id} cannot be used: .*{why}"):
            labels.instance_masks(fo.Detections(detections=[detection]), (40, 30))


@pytest.mark.parametrize(
    "box", [(0.1, 1.2, 0.5, 0.5), (1.2, 0.1, 0.5, 0.5), (-0.6, 0.1, 0.5, 0.5), (2.0, 2.0, 0.5, 0.5)]
)
def test_a_mask_outside_of_the_image_is_nothing(box):
    assert cutout(box, np.ones((50, 50), bool), (100, 100)) == (None, False)
