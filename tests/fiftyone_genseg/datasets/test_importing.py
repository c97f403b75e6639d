"""Referring examples as samples: what is kept, what is left out, and where images go."""

from pathlib import Path

import datasets
import fiftyone as fo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError
from genseg_hub import archives
from genseg_hub.evaluation.metrics import measure
from genseg_hub.images import load_image
from genseg_hub.referring_dataset import FEATURES, from_dataset, to_dataset, to_rows
from genseg_hub.schema import encode_mask
from genseg_training.nano.refscenes import refscenes
from PIL import Image

import fiftyone_genseg
from fiftyone_genseg import labels
from fiftyone_genseg.datasets import importing
from fiftyone_genseg.datasets.importing import ReferringDatasetImporter
from tests.fiftyone_genseg.datasets.test_loading import URI, load
from tests.fiftyone_genseg.operators.test_pull_checkpoint import messages, progress
from tests.helpers import archive_files


def damaged(folder: Path) -> datasets.Dataset:
    """16 examples about 4 scenes, of which the first and the last eight can be used."""
    rows = list(to_rows(refscenes("val", 16)))
    whole = rows[0]["image"]["bytes"]
    target = next(row["masks"] for row in rows if row["masks"])
    rows[1]["image"], rows[1]["image_id"] = {"bytes": b"not an image", "path": None}, "other"
    rows[2]["image"], rows[2]["image_id"] = {"bytes": whole[: len(whole) // 2], "path": None}, "half"
    rows[3]["image"], rows[3]["image_id"] = {"bytes": None, "path": str(folder / "nowhere.png")}, "none"
    rows[4]["masks"] = [{"size": [1, 1], "counts": "01"}]
    rows[5]["masks"] = [encode_mask(np.zeros(target[0]["size"], bool))]
    rows[6]["masks"] = None
    rows[7]["expression"] = " \n"
    return datasets.Dataset.from_list(rows, features=FEATURES)


def test_examples_that_cannot_be_used_are_left_out_and_counted(name, plugin, tmp_path):
    examples = damaged(tmp_path)
    importer = ReferringDatasetImporter(examples, tmp_path / "images")
    for _ in range(2):  # an importer can be read again
        samples = list(importer)
        assert [sample.example_id for sample in samples] == [examples[i]["example_id"] for i in (0, *range(8, 16))]
        assert importer.unusable == {"unreadable image": 3, "unusable mask": 2, "malformed row": 2}
    assert "3 of 16 examples left out, unreadable image: the first is number 2, " in importer.report
    assert "a mask is of [1, 1] pixels" in importer.report
    examples.select([0, 1, 2, *range(4, 16)]).save_to_disk(tmp_path / "saved")
    told = messages(URI, fo.Dataset(f"{name}-open"), source=str(tmp_path / "saved"), name=name)
    ((_, last),) = [t for t in told if t[0] == "notify"]
    assert last["variant"] == "warning"
    assert f"{name} has 9 expressions. 2 of 15 examples left out" in last["message"]
    assert progress(told)[-1][0] == 1
    assert [kind for kind, _ in told][-1] == "open_dataset"
    examples.select([1, 2, 4]).save_to_disk(tmp_path / "bad")
    with pytest.raises(ExecutionError, match=r"3 of 3 examples cannot be used, which is more than half\. 2 of 3"):
        load(source=str(tmp_path / "bad"), name=f"{name}-bad")
    assert not fo.dataset_exists(f"{name}-bad")
    assert not len(
        fo.Dataset.from_importer(ReferringDatasetImporter(examples.select([]), tmp_path), name=f"{name}-bad")
    )


def test_more_than_half_that_cannot_be_used_is_an_error(tmp_path):
    examples = damaged(tmp_path)
    assert len(list(ReferringDatasetImporter(examples.select([0, 1, 8, 4]), tmp_path / "images"))) == 2
    with pytest.raises(ValueError, match=r"2 of 3 examples cannot be used, which is more than half\. .* number 2, "):
        list(ReferringDatasetImporter(examples.select([0, 1, 4]), tmp_path / "images"))


def test_what_is_wrong_with_the_disk_stops_and_leaves_no_half_image(tmp_path, monkeypatch):
    examples = to_dataset(refscenes("val", 1))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        list(ReferringDatasetImporter(examples, tmp_path / "file"))

    def half(image, file, *_):
        Path(file).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="no space left"):
        list(ReferringDatasetImporter(examples, tmp_path))
    monkeypatch.undo()
    (sample,) = ReferringDatasetImporter(examples, tmp_path)
    assert np.asarray(Image.open(sample.filepath)).any()


def test_neighbours_share_an_image(tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(importing, "load_image", lambda image: decoded.append(image) or load_image(image))
    samples = list(ReferringDatasetImporter(to_dataset(refscenes("val", 8)), tmp_path))
    assert len({sample.filepath for sample in samples}) == len(decoded) == 2


def test_ignored_pixels_are_kept(name, tmp_path):
    archive_files.reasonseg(tmp_path / "data")
    examples, _ = archives.load_archive("reasonseg", tmp_path / "data", "val")
    dataset = fo.Dataset.from_importer(ReferringDatasetImporter(examples, tmp_path / "images"), name=name)
    first, second = dataset
    (ignored,) = labels.instance_masks(first.ignore, (40, 30))
    assert ignored.sum() == 16
    assert second.ignore is None
    assert first.is_sentence is True
    assert not (tmp_path / "images").exists()
    # A prediction that also has the ignored pixels is perfect when they count neither way, as in `genseg benchmark`.
    dataset.clone_sample_field("ground_truth", "filled")
    first.reload()
    first["filled"].detections += [detection.copy() for detection in first.ignore.detections]
    first.save()
    plain = fiftyone_genseg.evaluate(dataset, "filled", "ground_truth", ignore_field="", progress=False)
    assert plain.figures()["ciou"] < 1
    results = fiftyone_genseg.evaluate(dataset, "filled", "ground_truth", progress=False)
    assert results.config.ignore_field == "ignore"
    assert results.figures()["ciou"] == results.figures()["miou"] == 1
    example = next(from_dataset(examples))
    assert results.table["target_area"].iloc[0] == measure(example.masks, None, ignore=example.ignore).target_area
    with pytest.raises(ValueError, match="the ignore field 'expression' holds no Detections"):
        fiftyone_genseg.evaluate(dataset, "filled", "ground_truth", ignore_field="expression", progress=False)
