"""ReasonSeg: shapes are painted as in LISA's code."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from genseg_hub import archives
from genseg_hub.archives.readers import reasonseg
from genseg_hub.errors import ArchiveError
from genseg_hub.evaluation.metrics import measure
from genseg_hub.referring_dataset import from_dataset
from genseg_hub.schema import decode_mask
from hypothesis import given
from PIL import Image

from tests.helpers import archive_files
from tests.helpers.strategies import painted_shapes


def test_reasonseg_paints_the_largest_first_and_ignores_ambiguous_pixels(root):
    archive_files.reasonseg(root)
    examples, report = archives.load_archive("reasonseg", root, "val")
    assert report.counts == {"images": 2, "expressions": 2}
    first, second = from_dataset(examples)
    assert first.expression == "the thing that opens a café"
    assert first.attributes == {"is_sentence": True}
    assert second.masks == ()
    assert second.ignore is None
    (target,) = map(decode_mask, first.masks)
    ignore = decode_mask(first.ignore)
    assert target.sum() == 21 * 21 - 4 * 4 + 5 * 5
    assert ignore.sum() == 4 * 4
    assert not (target & ignore).any()
    # Predictions in ignored pixels change nothing.
    with_hole = measure(first.masks, target, ignore=first.ignore)
    filled = measure(first.masks, target | ignore, ignore=first.ignore)
    assert with_hole == filled
    assert filled.intersection == filled.prediction_area == target.sum()
    assert measure(first.masks, target | ignore).prediction_area == target.sum() + ignore.sum()


def test_suffixes_may_be_written_in_capitals_and_hidden_files_are_left_out(root):
    archive_files.reasonseg(root)
    folder = root / "ReasonSeg/val"
    (folder / "a.jpg").rename(folder / "a.JPG")
    Image.open(folder / "b.jpg").save(folder / "b.PNG")
    (folder / "b.jpg").unlink()
    (folder / "._a.jpg").write_bytes(b"what macOS adds to archives")
    (folder / "c.jpg").mkdir()
    examples, report = archives.load_archive("reasonseg", root, "val")
    assert not report.problems
    assert [Path(example.image).name for example in from_dataset(examples)] == ["a.JPG", "b.PNG"]


def spoiled(**values):
    annotation = {"shapes": [], "text": ["nothing"], "is_sentence": False} | values
    return json.dumps(annotation)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (spoiled(text="a text"), "malformed record: the 'text' of .*b.json is something else"),
        (
            spoiled(text=[]),
            "malformed record: the 'text' of .*b.json is something else; expected a list of one",
        ),
        (spoiled(text=[None]), "malformed record: text 0 of .*b.json is a NoneType; expected text"),
        (spoiled(text=[" "]), "empty expression: text 0 of .*b.json is empty"),
        (spoiled(shapes=None), "malformed record: .*b.json has no 'shapes'"),
        (spoiled(shapes=[{"points": [[1, 2]]}]), "malformed record: a shape of .*b.json has no 'label'"),
        (spoiled(shapes=[{"label": "target", "points": []}]), "malformed record: the 'points' of a shape of .*b.json"),
        (spoiled(shapes=[{"label": "target", "points": [[1, "x"]]}]), "malformed record: the 'points' of a shape"),
        (spoiled(shapes=[{"label": "target", "points": [[1, float("nan")]]}]), "malformed record: the 'points' of a"),
        (spoiled(shapes=[{"label": "target", "points": [[1, 10**400]]}]), "malformed record: the 'points' of a shape"),
        *(
            (
                spoiled(shapes=[{"label": "target", "points": [[1, 2], [9, 9]], "shape_type": kind}]),
                "malformed record: the 'shape_type' of a shape of .*b.json is .*; expected polygon, rectangle or",
            )
            for kind in ("line", "linestrip", "point", "points", "mask", 7, ["circle"])
        ),
        (
            spoiled(shapes=[{"label": "target", "points": [[1, 2]], "shape_type": "rectangle"}]),
            "malformed record: the 'points' of a rectangle of .*b.json is something else; expected two points",
        ),
        (
            spoiled(shapes=[{"label": "ignore", "points": [[1, 2]] * 3, "shape_type": "circle"}]),
            "malformed record: the 'points' of a circle of .*b.json is something else; expected two points",
        ),
        ("[1]", "malformed record: .*b.json has no 'text'"),
        ("[" * 100_000, "malformed record: .*b.json is not JSON .*recursion"),
        ("\x81", "malformed record: .*b.json is not JSON"),
    ],
)
def test_a_malformed_annotation_is_counted_and_the_rest_is_used(root, content, why):
    archive_files.reasonseg(root)
    (root / "ReasonSeg/val/b.json").write_bytes(content.encode("latin1"))
    examples, report = archives.load_archive("reasonseg", root, "val")
    assert list(examples["image_id"]) == ["a"]
    assert re.search(f"1 left out, {why}", str(report))


def test_an_annotation_needs_exactly_one_image(root):
    archive_files.reasonseg(root)
    folder = root / "ReasonSeg/val"
    (folder / "a.png").write_bytes((folder / "a.jpg").read_bytes())
    (folder / "b.jpg").unlink()
    (folder / "c.jpg").write_bytes((folder / "a.jpg").read_bytes())
    with pytest.raises(ArchiveError) as raised:
        archives.load_archive("reasonseg", root, "val")
    for said in (
        "1 left out, duplicate id: .*a.json belongs to a.jpg and a.png",
        "1 left out, missing image: there is no image beside .*b.json",
        "1 left out, missing annotation: there is no file .*c.json",
    ):
        assert re.search(said, str(raised.value))


def test_an_annotation_needs_only_text_and_shapes(root):
    archive_files.reasonseg(root)
    file = root / "ReasonSeg/val/b.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps({"shapes": [], "text": ["nothing"]}).encode())
    examples, report = archives.load_archive("reasonseg", root, "val")
    assert not report.problems
    assert list(examples["is_sentence"]) == [True, None]


def test_a_replaced_image_is_painted_again(root):
    archive_files.reasonseg(root)
    archives.load_archive("reasonseg", root, "val")
    Image.new("RGB", (60, 50)).save(root / "ReasonSeg/val/a.jpg")
    examples, _ = archives.load_archive("reasonseg", root, "val")
    assert next(from_dataset(examples)).masks[0]["size"] == [50, 60]


@pytest.mark.parametrize(
    "corners", [[[10, 10], [60, 40]], [[60, 10], [10, 40]], [[10, 10], [60, 10], [60, 40], [10, 40]]]
)
def test_a_rectangle_is_filled(corners):
    painted = reasonseg.paint([{"label": "target", "points": corners, "shape_type": "rectangle"}], 100, 90)
    expected = np.zeros((100, 90), np.uint8)
    expected[10:41, 10:61] = 1
    assert np.array_equal(painted, expected)


@pytest.mark.parametrize("edge", [[50, 30], [30, 10], [42, 46]])
def test_a_circle_is_filled_around_its_first_point(edge):
    painted = reasonseg.paint([{"label": "target", "points": [[30, 30], edge], "shape_type": "circle"}], 100, 90)
    rows, columns = np.mgrid[:100, :90]
    distance = np.hypot(columns - 30, rows - 30)
    assert painted[distance <= 19].all()
    assert not painted[distance > 21].any()


def test_a_circle_may_be_larger_than_the_image():
    shape = {"label": "target", "points": [[30, 30], [1e300, 30]], "shape_type": "circle"}
    assert reasonseg.paint([shape], 100, 90).all()


def test_shapes_of_all_kinds_are_used_and_a_flag_may_be_of_any(root):
    archive_files.reasonseg(root)
    shapes = [
        {"label": "target", "points": [[1, 1], [4, 1], [4, 4]]},
        {"label": "target", "points": [[5, 5], [8, 5], [8, 8]], "shape_type": "polygon"},
        {"label": "target", "points": [[10, 1], [14, 4]], "shape_type": "rectangle"},
        {"label": "ignore", "points": [[10, 10], [12, 10]], "shape_type": "circle"},
        {"label": "flag", "points": [[1, 1]], "shape_type": "point"},
        {"label": "target", "points": [[1, 10], [4, 10], [4, 14]], "shape_type": None},
    ]
    (root / "ReasonSeg/val/b.json").write_text(spoiled(shapes=shapes))
    examples, report = archives.load_archive("reasonseg", root, "val")
    assert not report.problems
    example = list(from_dataset(examples))[1]
    (target,) = map(decode_mask, example.masks)
    assert target[1:5, 10:15].all()
    assert target[2, 3]
    assert target[6, 7]
    assert target[11, 3]
    assert decode_mask(example.ignore)[8:13, 10].all()


@given(painted_shapes)
def test_reasonseg_is_painted_by_lisas_rule(shapes):
    shapes = [{"label": label, "points": [list(point) for point in points]} for label, points in shapes]
    painted = reasonseg.paint(shapes, 30, 40)
    # LISA's rule, slow and independent: the smallest region that covers a pixel decides.
    regions = []
    for shape in shapes:
        if shape["label"] != "flag":
            canvas = np.zeros((30, 40), np.uint8)
            points = np.array([shape["points"]], dtype=np.int32)
            cv2.polylines(canvas, points, True, 1, 1)
            cv2.fillPoly(canvas, points, 1)
            regions.append((int(canvas.sum()), canvas.astype(bool), 255 if shape["label"] == "ignore" else 1))
    if len({area for area, _, _ in regions}) < len(regions):
        return  # LISA leaves the order of equal areas open
    expected = np.zeros((30, 40), np.uint8)
    for _, region, value in sorted(regions, key=lambda entry: -entry[0]):
        expected[region] = value
    assert np.array_equal(painted, expected)
