"""GenSeg-R1 as a fiftyone.Model."""

from pathlib import Path
from types import SimpleNamespace

import fiftyone as fo
import numpy as np
import pytest
from genseg_hub import questions
from genseg_hub.images import load_image
from PIL import Image

from fiftyone_genseg import labels
from fiftyone_genseg.model import ReferringSegmentationModel


@pytest.fixture(scope="module")
def model():
    return ReferringSegmentationModel("nano", device="cpu")


def test_apply_model_with_each_samples_expression(dataset, model, nano):
    dataset.apply_model(model, label_field="found", expression_field="expression", batch_size=5)
    for sample in dataset[:4]:
        expected = nano.segment(sample.filepath, sample["expression"])
        assert np.array_equal(labels.union_mask(sample["found"], expected.image_size), expected.mask)


def test_apply_model_with_one_expression_and_without_batches(dataset):
    model = ReferringSegmentationModel("nano", "all shapes", device="cpu")
    dataset[:3].apply_model(model, label_field="found")
    assert len(dataset.exists("found")) == 3
    assert set(dataset.distinct("found.detections.expression")) <= {"all shapes"}


def test_a_sample_without_an_expression_fails_alone(dataset, model, caplog):
    first, second, third = dataset[:3]
    for sample, expression in ((first, None), (second, " ")):
        sample["expression"] = expression
        sample.save()
    dataset[:4].apply_model(
        model, "found", expression_field="expression", batch_size=4, num_workers=0, confidence_thresh=0.01
    )
    assert len(dataset.exists("found")) == 2
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2
    assert all(f"{third.filepath} was not segmented for" in text and "expression is empty" in text for text in warnings)


def test_a_field_that_holds_no_text_is_a_failure_of_each_sample(dataset, model, caplog):
    dataset.set_values("number", [7] * len(dataset))
    dataset[:2].apply_model(model, "found", expression_field="number", batch_size=2, num_workers=0)
    assert not dataset.has_sample_field("found")
    assert [record.getMessage() for record in caplog.records if "not segmented for 7" in record.getMessage()]


@pytest.fixture
def photos(dataset, tmp_path):
    """Images as people store them, and two that are none, in the middle."""
    image = Image.open(dataset.first().filepath).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to display
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    image.save(tmp_path / "rgb.png")
    image.convert("L").save(tmp_path / "grey.png")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    (tmp_path / "corrupt.png").write_bytes((tmp_path / "rgb.png").read_bytes()[:2000])
    image.convert("RGBA").save(tmp_path / "rgba.png")
    deep.save(tmp_path / "deep.png")
    image.crop((0, 0, image.width, image.height // 2)).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    names = ("rgb.png", "grey.png", "corrupt.png", "cmyk.jpg", "missing.png", "rgba.png", "deep.png", "turned.jpg")
    dataset.clear()
    dataset.add_samples([fo.Sample(filepath=str(tmp_path / name), expression="all shapes") for name in names])
    return dataset


@pytest.mark.parametrize(("batch_size", "num_workers", "skip_failures"), [(8, 0, True), (3, 2, False)])
def test_a_bad_image_fails_alone(photos, model, nano, caplog, batch_size, num_workers, skip_failures):
    photos.apply_model(
        model,
        "found",
        expression_field="expression",
        batch_size=batch_size,
        num_workers=num_workers,
        skip_failures=skip_failures,
    )
    failed = [Path(sample.filepath) for sample in photos.exists("found", False)]
    assert [path.name for path in failed] == ["corrupt.png", "missing.png"]
    warnings = [record.getMessage() for record in caplog.records if "was not segmented" in record.getMessage()]
    assert [text.partition(" was not")[0] for text in warnings] == [str(path) for path in failed]
    for sample in photos.exists("found"):
        expected = nano.segment(sample.filepath, "all shapes")
        assert np.array_equal(labels.union_mask(sample["found"], expected.image_size), expected.mask)
    assert expected.image_size[0] < expected.image_size[1], "the last image is turned upright"


def test_neighbours_share_their_image(dataset, model, monkeypatch):
    opened = []
    monkeypatch.setattr(questions, "load_image", lambda image, *size: opened.append(image) or load_image(image, *size))
    dataset[:8].apply_model(model, "found", expression_field="expression", batch_size=8, num_workers=0)
    assert opened == [dataset[:1].first().filepath, dataset[4:5].first().filepath]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "one source of expressions"),
        ({"expression_field": None}, "expression_field=... for the model or for apply_model"),
        ({"expression_field": "absent"}, "no field 'absent'"),
        ({"expression_field": "expression", "prompt_field": "kind"}, "one source"),
        ({"expression_field": "expression", "text_field": "kind"}, "Unknown key 'text_field'"),
    ],
)
def test_expressions_that_cannot_be_had_are_refused_before_any_work(dataset, model, asked, said):
    with pytest.raises(ValueError, match=said):
        dataset[:1].apply_model(model, label_field="found", num_workers=0, **asked)
    assert not dataset.has_sample_field("found")


def test_an_expression_and_a_field_are_refused(dataset, model, monkeypatch):
    with pytest.raises(ValueError, match="one source"):
        ReferringSegmentationModel("nano", "all shapes", "expression")
    monkeypatch.setattr(model, "expression", "all shapes")
    with pytest.raises(ValueError, match="one source"):
        dataset[:1].apply_model(model, label_field="found", expression_field="expression")


def test_an_image_is_enough_where_the_model_has_an_expression(dataset, model, nano, monkeypatch):
    image = np.array(Image.open(dataset.first().filepath).convert("RGB"))
    with pytest.raises(ValueError, match="one source"):
        model.predict(image)
    monkeypatch.setattr(model, "expression", "all shapes")
    expected = nano.segment(image, "all shapes")
    assert np.array_equal(labels.union_mask(model.predict(image), expected.image_size), expected.mask)


@pytest.mark.parametrize(
    ("typed", "normal"),
    [("all  shapes", "all shapes"), ("cafe\u0301", "caf\u00e9")],
    ids=["white space", "composition"],
)
def test_spellings_of_an_expression_are_one(dataset, model, nano, monkeypatch, typed, normal):
    answer = nano.segment(dataset.first().filepath, "all shapes")
    monkeypatch.setattr(model, "_model", SimpleNamespace(segment_many=lambda examples, size: [answer] * len(examples)))
    dataset.set_values("mine", [typed] * len(dataset))
    dataset[:1].apply_model(model, "of_the_field", expression_field="mine", num_workers=0)
    monkeypatch.setattr(model, "expression", typed)
    dataset[:1].apply_model(model, "of_the_model", num_workers=0)
    for field in ("of_the_field", "of_the_model"):
        assert dataset.distinct(f"{field}.detections.expression") == [normal]


def test_other_models_names_of_the_arguments_work_too(dataset, model, monkeypatch):
    dataset[:4].apply_model(model, "by_expression", expression_field="expression", num_workers=0)
    dataset[:4].apply_model(model, "by_prompt", prompt_field="expression", num_workers=0)
    monkeypatch.setattr(model, "expression_field", "expression")
    with pytest.raises(ValueError, match="one source"):
        dataset[:4].apply_model(model, "twice", prompt_field="expression", num_workers=0)
    found = [dataset.values(f"{field}.detections.expression", unwind=True) for field in ("by_expression", "by_prompt")]
    assert found[0] == found[1] != []
    named = ReferringSegmentationModel("nano", prompt="all shapes", device="cpu")
    assert (named.expression, named.expression_field) == ("all shapes", None)
    with pytest.raises(ValueError, match="one source"):
        ReferringSegmentationModel("nano", prompt="all shapes", prompt_field="expression")


def test_it_is_a_fiftyone_model(model):
    assert isinstance(model, fo.Model)
    assert model.media_type == "image"
    assert model.required_keys == ["filepath", "expression_field"]
