"""Images that sources share: they are counted, and refused where they would be trained on and scored."""

import shutil

import numpy as np
import pytest
from genseg_hub.referring_dataset import to_dataset
from genseg_training import overlap, rows, sources

from tests.helpers import archive_files
from tests.helpers.referring import example


def test_archives_share_the_images_with_one_coco_id(root):
    val = archive_files.divided(root)
    names = ["refcocog:train", "refcocog:val", "grefcoco:val"]
    table = overlap.table([sources.parse(name, root) for name in names])
    header, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert header == ["images of", "all", *names]
    assert [line[0] for line in lines] == names
    assert lines[0][3:] == ["0", "0"]
    assert lines[1][1:] == [str(len(val)), "0", "-", str(len(val))]
    assert sorted(overlap.splits_under(root)) == sorted(
        f"{name}:{split}" for name in ("refcocog", "grefcoco") for split in splits(name)
    )


def splits(name):
    return ("train", "val", "test") if name == "refcocog" else ("train", "val", "testA", "testB")


def test_the_same_picture_is_known_in_other_places(root, tmp_path):
    """COCO's file names have COCO's ids; any other file is known by its contents."""
    archive_files.divided(root)
    photo = next((root / "images/mscoco/images/train2014").glob("*.jpg"))
    copies = [tmp_path / "COCO_val2014_" / photo.name, tmp_path / "one.jpg", tmp_path / "two.jpg"]
    for copy in copies:
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(photo, copy)
    named, one, two = (rows._image({"path": str(copy), "bytes": None}, {})[1] for copy in copies)
    assert named == f"COCO {int(photo.stem)}"
    assert one == two != named
    assert rows._image({"path": None, "bytes": photo.read_bytes()}, {})[1] == one


def test_shared_images_are_refused_with_the_way_out():
    a, b = (rows.of_examples(to_dataset([example(color=color)]), color) for color in ("red", "blue"))
    overlap.refuse_shared(a, b, "blue")
    assert overlap.shared(a, overlap.images_of(a)).all()
    assert not overlap.shared(a, overlap.images_of(b)).any()
    with pytest.raises(ValueError, match=r"1 images of the held-out other are also .* --exclude other, or accept them"):
        overlap.refuse_shared(a, a, "other")


def test_flags_follow_the_order_of_a_selection():
    both = rows.of_examples(to_dataset([example(color="red"), example(color="blue")]))
    blue = overlap.images_of(both.select([1]))
    assert np.array_equal(overlap.shared(both.select([1, 0, 1]), blue), [True, False, True])
