"""Samples as a training set on disk, and what an export leaves out."""

from pathlib import Path

import datasets
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionContext
from genseg_hub.images import load_image
from genseg_hub.referring_dataset import IMAGES, from_dataset, load_examples
from genseg_training import sources
from PIL import Image

from fiftyone_genseg import history
from fiftyone_genseg.datasets import export, unusable
from fiftyone_genseg.operators.export_referring_examples import ExportReferringExamples

URI = "@fiftyone-genseg/genseg/export_referring_examples"


def test_an_export_leaves_out_what_cannot_be_read(dataset, tmp_path, caplog):
    broken = dataset.first()
    other_images = [sample for sample in dataset if sample.filepath != broken.filepath]
    Path(broken.filepath).write_bytes(b"no image")
    lost = len(dataset) - len(other_images)
    empty = next(sample for sample in other_images if sample.ground_truth.detections)
    empty.ground_truth.detections[0].mask = np.zeros((4, 4), bool)
    empty.ground_truth.detections = empty.ground_truth.detections[:1]
    empty.save()
    left_out = unusable.Unusable()
    count = export.export(dataset, tmp_path / "saved", unusable=left_out)
    assert left_out == {"unreadable image": lost, "unusable mask": 1}
    assert count == len(datasets.load_from_disk(tmp_path / "saved")) == 16 - lost - 1
    assert f"1 of 16 examples left out, unusable mask: the first is {empty.expression!r} on sample {empty.id}, its" in (
        caplog.text
    )
    for sample in other_images:
        if sample.filepath != dataset.last().filepath:
            Path(sample.filepath).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"\d+ of 16 examples cannot be used, which is more than half"):
        export.export(dataset, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_an_image_is_exported_once_and_found_where_the_folder_is_moved_to(dataset, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(export, "load_image", lambda file, **options: read.append(file) or load_image(file, **options))
    export.export(dataset, tmp_path / "saved")
    files = set(dataset.values("filepath"))
    assert len(files) < len(dataset)
    assert sorted(read) == sorted(files), "each image is looked at once"
    copies = {file.read_bytes() for file in (tmp_path / "saved" / IMAGES).iterdir()}
    assert copies == {Path(file).read_bytes() for file in files}
    stored = datasets.load_from_disk(tmp_path / "saved")
    assert stored[0]["image"].size == Image.open(dataset.first().filepath).size
    assert (tmp_path / "saved" / "data-00000-of-00001.arrow").stat().st_size < 2000 * len(dataset)

    (tmp_path / "saved").rename(tmp_path / "moved")
    examples = list(from_dataset(load_examples(str(tmp_path / "moved"))))
    assert [example.expression for example in examples] == dataset.values("expression")
    for example, file, masks in zip(examples, dataset.values("filepath"), stored["masks"], strict=True):
        assert Path(example.image).parent == tmp_path / "moved" / IMAGES
        assert Path(example.image).read_bytes() == Path(file).read_bytes()
        assert list(example.masks) == masks
    rows = sources.load_source(str(tmp_path / "moved"))
    assert len(rows) == len(dataset)


def shown(results: dict) -> dict:
    """Return the parts of the operator's output form."""
    context = ExecutionContext(operator_uri=URI, request_params={"params": {}, "results": results})
    return ExportReferringExamples().resolve_output(context).to_json()["type"]["properties"]


def test_the_operator_shows_what_was_left_out(dataset, plugin, tmp_path):
    whole = foo.execute_operator(URI, {"dataset": dataset}, params={"folder": str(tmp_path / "whole")}).result
    assert whole == {"examples": 16, "folder": str(tmp_path / "whole"), "left_out": ""}
    assert list(shown(whole)) == ["examples", "folder"]
    broken = dataset.first()
    Path(broken.filepath).write_bytes(b"no image")
    lost = len(dataset.match({"filepath": broken.filepath}))
    rest = foo.execute_operator(URI, {"dataset": dataset}, params={"folder": str(tmp_path / "rest")}).result
    words = f"{lost} of 16 examples left out, unreadable image: the first is {broken.expression!r} on sample"
    assert rest["examples"] == 16 - lost
    assert rest["left_out"].startswith(words)
    assert shown(rest)["not_written"]["view"]["description"] == rest["left_out"]
    assert history.records()[0].text == f"{16 - lost} examples in {tmp_path / 'rest'}. {rest['left_out']}"
