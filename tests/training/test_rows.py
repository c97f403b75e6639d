"""Rows: what is compared, what a bad example says, and when cached rows are made anew."""

import os

import datasets
import numpy as np
import pytest
from genseg_hub import referring_dataset
from genseg_hub.referring_dataset import FEATURES, to_dataset
from genseg_hub.schema import ReferringExample, decode_mask, encode_mask
from genseg_training import rows, sources
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers import archive_files
from tests.helpers.referring import example
from tests.helpers.strategies import masks_of, oriented


def test_rows_know_sizes_boxes_and_images():
    first, second = rows.of_examples(
        to_dataset([example(boxes=((1, 2, 5, 6), (8, 0, 20, 10))), example(boxes=(), color="red")]), "mine"
    )
    assert first["boxes"] == [[1, 2, 5, 6], [8, 0, 20, 10]]
    assert first["image_size"] == [20, 10]
    assert second["boxes"] == []
    assert first["image_key"] != second["image_key"], "other pixels"
    assert {first["source"], second["source"]} == {"mine"}


@settings(max_examples=20, deadline=None)
@given(st.lists(masks_of((12, 9), empty=False), min_size=1, max_size=3))
def test_boxes_are_those_of_the_masks(masks):
    stored = ReferringExample(Image.new("RGB", (9, 12)), "it", tuple(map(encode_mask, masks)), "a", "a")
    (row,) = rows.of_examples(to_dataset([stored]))
    for mask, (x1, y1, x2, y2), rle in zip(masks, row["boxes"], row["masks"], strict=True):
        y, x = np.nonzero(mask)
        assert (x1, y1, x2, y2) == (x.min(), y.min(), x.max() + 1, y.max() + 1)
        assert np.array_equal(decode_mask(rle), mask)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (example(expression="  ", name="x"), "empty"),
        (ReferringExample(Image.new("RGB", (5, 5)), "it", example().masks, "x", "x"), "'x': a mask is 20 x 10"),
        (
            ReferringExample(Image.new("RGB", (4, 4)), "it", (encode_mask(np.zeros((4, 4), bool)),), "x", "x"),
            "'x': a mask is empty",
        ),
        (ReferringExample(Image.new("RGB", (601, 3)), "it", (), "x", "x"), "'x': the image is 601 x 3; the longer"),
    ],
)
def test_bad_examples_are_named_before_training(bad, message):
    with pytest.raises(ValueError, match=message):
        rows.of_examples(to_dataset([example(), bad]))


def test_what_is_no_picture_is_named_before_training(tmp_path):
    stored = to_dataset([example()]).cast_column("image", datasets.Image(decode=False))
    for content, why in ((b"%!PS-Adobe-3.0", "it is PostScript"), (b"", "not an image")):
        row = stored[0] | {"image": {"bytes": content, "path": None}}
        with pytest.raises(ValueError, match=f"example 'a': .*{why}"):
            rows.of_examples(datasets.Dataset.from_list([row], features=FEATURES))
    turned = tmp_path / "turned.jpg"
    Image.new("RGB", (20, 10)).save(turned, exif=oriented(6))
    with pytest.raises(ValueError, match=r"a mask is 20 x 10, its image \(10, 20\).*swapped, as an EXIF orientation"):
        rows.of_examples(to_dataset([ReferringExample(str(turned), "it", example().masks, "a", "a")]))


def test_masks_and_values_that_cannot_be_read_are_named():
    stored = to_dataset([example()]).cast_column("image", datasets.Image(decode=False))
    for change, why in (
        ({"masks": [{"size": [10, 20], "counts": "zz"}]}, "example 'a': .*malformed"),
        ({"expression": None}, "row 0 has no 'expression'"),
    ):
        with pytest.raises(ValueError, match=why):
            rows.of_examples(datasets.Dataset.from_list([stored[0] | change], features=FEATURES))


def test_an_archive_opens_no_image_that_has_masks(root, monkeypatch):
    """Sizes are in the masks; only the pictures of no-target expressions are opened, each once."""
    archive_files.divided(root)
    source = sources.parse("grefcoco:train", root)
    examples = sources.find(source, 0).examples
    opened = []
    monkeypatch.setattr(rows, "image_size", lambda file: opened.append(file) or Image.open(file).size)
    made, left_out = rows.prepared(source, 0)
    assert not left_out
    empty = {i["path"] for i, masks in zip(made["image"], made["masks"], strict=True) if not masks}
    assert sorted(opened) == sorted(empty)
    assert made["masks"] == examples["masks"]
    for row in made:
        with Image.open(row["image"]["path"]) as picture:
            assert tuple(row["image_size"]) == picture.size
        assert row["image_key"] == f"COCO {row['image_id']}"


def test_cached_rows_are_found_again_until_a_file_changes(root, monkeypatch):
    archive_files.divided(root)
    source = sources.parse("refcocog:train", root)
    made = []
    monkeypatch.setattr(
        rows, "_row", lambda row, *rest, own=rows._row: made.append(row["example_id"]) or own(row, *rest)
    )
    first, _ = rows.prepared(source, 0)
    assert len(made) == len(first)
    again, _ = rows.prepared(source, 0)
    assert len(made) == len(first)
    assert again.to_dict() == first.to_dict()
    refs = root / "refcocog/refs(umd).p"
    os.utime(refs, ns=(1, 1))
    rows.prepared(source, 0)
    assert len(made) == 2 * len(first)


def test_a_folder_is_read_anew_when_an_image_changes(root, tmp_path):
    file = tmp_path / "picture.png"
    Image.new("RGB", (20, 10)).save(file)
    to_dataset([ReferringExample(str(file), "it", example().masks, "a", "a")]).cast_column(
        "image", datasets.Image(decode=False)
    ).save_to_disk(tmp_path / "embedded")
    (tmp_path / "by_path").mkdir()
    referring_dataset.save(
        to_dataset([ReferringExample(str(file), "it", example().masks, "a", "a")]), tmp_path / "by_path"
    )
    source = sources.parse(str(tmp_path / "by_path"))
    assert rows.prepared(source, 0)[0][0]["image_size"] == [20, 10]
    Image.new("RGB", (10, 10)).save(file)
    with pytest.raises(ValueError, match=r"example 'a': a mask is 20 x 10, its image \(10, 10\)"):
        rows.prepared(source, 0)
    embedded = rows.prepared(sources.parse(str(tmp_path / "embedded")), 0)[0]
    assert embedded[0]["image_size"] == [20, 10], "this folder has a copy"
