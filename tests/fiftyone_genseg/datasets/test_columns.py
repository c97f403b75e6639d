"""Which columns become fields, and that load, export and load again is the identity."""

import io
import shutil
from pathlib import Path

import datasets
import fiftyone as fo
import numpy as np
import pytest
from datasets import ClassLabel, Features, List, Value
from genseg_hub.referring_dataset import FEATURES
from genseg_hub.schema import encode_mask
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image

import fiftyone_genseg
from fiftyone_genseg import labels
from fiftyone_genseg.datasets import columns, export
from fiftyone_genseg.datasets.importing import ReferringDatasetImporter
from tests.helpers.squares import square
from tests.helpers.strategies import column_tables

SIZE = (12, 8)  # width, height


def png(shade: int) -> dict:
    stream = io.BytesIO()
    Image.new("RGB", SIZE, (shade, 0, 0)).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def rle(seed: int) -> dict:
    return encode_mask(np.random.default_rng(seed).random(SIZE[::-1]) < 0.5)


def saved(rows: list[dict], features: dict) -> datasets.Dataset:
    """Rows with these further columns; what a row does not say is filled in."""
    whole = [
        {"image": png(i), "expression": f"thing {i}", "masks": [rle(i)], "example_id": str(i), "image_id": str(i)} | row
        for i, row in enumerate(rows)
    ]
    return datasets.Dataset.from_list(whole, features=Features(FEATURES | features))


def facts(dataset: fo.Dataset) -> tuple[dict, list]:
    """Return the schema, and per sample everything but the place of its file and its times."""
    schema = {
        name: str(field)
        for name, field in dataset.get_field_schema().items()
        if name not in ("id", "filepath", "created_at", "last_modified_at")
    }
    rows = []
    for sample in dataset:
        row = {name: sample[name] for name in schema}
        for name in [name for name, value in row.items() if isinstance(value, fo.Detections)]:
            masks = [mask.tobytes() for mask in labels.instance_masks(row[name], SIZE)]
            row[name] = [(mask, detection.label) for mask, detection in zip(masks, row[name].detections, strict=True)]
        rows.append(row | {"pixels": np.asarray(Image.open(sample.filepath)).tobytes()})
    return schema, rows


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("ref_id", "ref_id"),
        ("a b", "a b"),
        ("9", "9"),
        ("a.b", "a_b"),
        ("$x", "x"),
        ("_x", "x"),
        ("", "column"),
        ("$", "column"),
        ("a\0b", "a_b"),
        *(
            (name, f"column_{name}")
            for name in ("id", "tags", "metadata", "filepath", "created_at", "last_modified_at")
        ),
        *((name, f"column_{name}") for name in ("self", "copy", "from_dict", "filename", "dataset", "media_type")),
        ("taken", "column_taken_2"),
    ],
)
def test_a_column_gets_the_nearest_name_that_a_field_can_have(column, field):
    assert columns.name(column, ["taken", "column_taken"]) == field
    dataset = fo.Dataset()
    sample = fo.Sample("/tmp/a.png")
    sample[field] = "v"
    dataset.add_sample(sample)
    assert dataset.values(field) == [dataset.first()[field]] == ["v"]
    dataset.clone(dataset.name + "-2").delete()
    dataset.delete()


def test_columns_that_cannot_be_fields_are_renamed_or_left_out(tmp_path):
    further = {
        "metadata": (Value("string"), "m"),
        "ground_truth": (Value("string"), "g"),
        "ignore": (Value("string"), "i"),
        "tags": (Value("string"), "t"),
        "id": (Value("int32"), 7),
        "a.b": (Value("int32"), 1),
        "a_b": (Value("int32"), 2),
        "category": (ClassLabel(names=["cat", "dog"]), 1),
        "bag": (List({"x": Value("int32")}), [{"x": 1}]),
        "thumb": (datasets.Image(), png(0)),
        "words": (List(Value("string")), ["x", None, "y"]),
    }
    features = {name: feature for name, (feature, _) in further.items()}
    rows = [{name: value for name, (_, value) in further.items()}, {name: None for name in further} | {"category": -1}]
    importer = ReferringDatasetImporter(saved(rows, features), tmp_path / "images")
    dataset = fo.Dataset.from_importer(importer)
    assert importer.left_out == ["bag", "thumb"]
    assert "The column 'metadata' is the field 'column_metadata'." in importer.report
    assert "The column 'thumb' was left out: no field holds its values." in importer.report
    first, second = dataset
    assert [first[f"column_{name}"] for name in ("metadata", "ground_truth", "ignore", "tags", "id")] == [*"mgit", 7]
    assert (first["column_a_b"], first["a_b"]) == (1, 2)
    assert (first["category"], first.ground_truth.detections[0].label) == ("dog", "dog")
    assert first["words"] == ["x", "y"]
    assert second["category"] is None
    assert second.ground_truth.detections[0].label == labels.LABEL
    dataset.delete()


def test_a_category_may_be_a_number(tmp_path):
    dataset = fo.Dataset.from_importer(
        ReferringDatasetImporter(saved([{"category": 0}], {"category": Value("int32")}), tmp_path)
    )
    assert dataset.first()["category"] == 0
    assert dataset.first().ground_truth.detections[0].label == "0"
    dataset.delete()


@given(column_tables(rle))
@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_load_export_load_is_the_identity(tmp_path, table):
    rows, features = table
    importer = ReferringDatasetImporter(saved(rows, features), tmp_path / "images")
    first = fo.Dataset.from_importer(importer)
    assert importer.left_out == []
    for column, field in importer.fields.items():  # nothing is lost on the way in
        if column != "ignore":
            expected = [columns.to_value(features[column], row[column]) for row in rows]
            assert first.values(field) == [value or [] if field == "tags" else value for value in expected]
    shutil.rmtree(tmp_path / "saved", ignore_errors=True)
    export.export(first, tmp_path / "saved")
    second = fo.Dataset.from_importer(
        ReferringDatasetImporter(datasets.load_from_disk(tmp_path / "saved"), tmp_path / "again")
    )
    assert facts(first) == facts(second)
    first.delete()
    second.delete()


@pytest.mark.parametrize(
    ("typed", "normal"),
    [("the  red   shape", "the red shape"), ("cafe\u0301", "caf\u00e9")],
    ids=["white space", "composition"],
)
def test_spellings_of_an_expression_are_exported_as_one(make, typed, normal):
    truth = fo.Detections(
        detections=[square(0, 0, 8, expression=typed), square(16, 0, 8, expression=[normal, "other"])]
    )
    dataset = make({"ground_truth": truth, "asked": [typed, normal, " "], "single": typed})
    sample = dataset.first()

    def found(field, pairs=None):
        return [(e.expression, len(e.masks)) for e in export.examples(dataset, "ground_truth", field, pairs)]

    assert found(None) == [(normal, 2), ("other", 1)]
    assert found("asked") == [(normal, 2)]
    assert found("single") == [(normal, 2)]
    for spelling in (typed, normal):
        assert found(None, {(sample.id, spelling)}) == [(normal, 2)]
        assert found("single", {(sample.id, spelling)}) == [(normal, 2)]
    assert found("single", {(sample.id, "other")}) == []


def half_saved(dataset, folder):
    (Path(folder) / "data.arrow").write_bytes(b"half")
    raise OSError("no space")


def test_fields_of_ones_own_are_exported_and_those_of_runs_are_not(tmp_path, monkeypatch):
    dataset = fo.Dataset()
    for name in ("a", "b"):
        Image.new("RGB", SIZE).save(tmp_path / f"{name}.png")
        sample = fo.Sample(str(tmp_path / f"{name}.png"), tags=["mine"])
        for field, value in {
            "query": name,
            "image": "camera 1",
            "image_id": "same",
            "example_id": 7,
            "expression": "no",
        }.items():
            sample[field] = value
        sample["ground_truth"] = labels.ground_truth([rle(1)])
        sample["guess"] = labels.ground_truth([rle(2)])
        sample["bag"] = {"x": 1}
        dataset.add_sample(sample)
    fiftyone_genseg.evaluate(dataset, "guess", eval_key="run", expression_field="query", progress=False)
    (tmp_path / "saved").mkdir()
    monkeypatch.setattr(export, "save", half_saved)
    with pytest.raises(OSError, match="no space"):
        export.export(dataset, tmp_path / "saved", expression_field="query")
    monkeypatch.undo()
    assert export.is_free(tmp_path / "saved"), "half a training set is not in the way"
    export.export(dataset, tmp_path / "saved", expression_field="query")
    assert not export.is_free(tmp_path / "saved")
    found = datasets.load_from_disk(tmp_path / "saved")
    assert {*found.column_names} == {*FEATURES, "tags", "column_image", "column_example_id", "column_expression"}
    assert found["expression"] == ["a", "b"]
    assert found["column_image"] == ["camera 1"] * 2
    assert found["column_example_id"] == [7, 7]
    assert found["tags"] == [["mine"]] * 2
    # Examples that share an image_id share the image when they are read: these are two images.
    assert found["image_id"] == dataset.values("filepath")
    dataset.delete()
