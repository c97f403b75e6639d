"""Referring examples go through `datasets` to disk and to a Hub, and come back unchanged."""

import datasets
import numpy as np
import pytest
from genseg_hub import archives
from genseg_hub.errors import ImageError
from genseg_hub.images import load_image
from genseg_hub.referring_dataset import FEATURES, RLE, check_source, from_dataset, load_examples, to_dataset, to_rows
from genseg_hub.schema import ReferringExample, encode_mask, rle_runs
from PIL import Image
from pycocotools import mask as coco_mask

from tests.helpers import archive_files

OWN = "me/examples"


@pytest.fixture
def examples(tmp_path):
    """Make three examples: an image as a file, an array and a PIL image, with two masks, none and one."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    masks = tuple(rng.random((6, 8)) < 0.5 for _ in range(2))
    return [
        ReferringExample(tmp_path / "image.png", "both", tuple(map(encode_mask, masks)), "a", "i"),
        ReferringExample(pixels, "nothing", (), "b", "i"),
        ReferringExample(Image.fromarray(pixels), "one", (encode_mask(masks[0]),), "c", "i"),
    ]


@pytest.fixture
def data_hub(hub, monkeypatch, tmp_path):
    """Point `datasets` at the test's Hub, too."""
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return hub


def same(before, after):
    for name in ("expression", "example_id", "image_id", "masks", "ignore", "attributes"):
        assert getattr(before, name) == getattr(after, name)
    assert np.array_equal(np.asarray(load_image(before.image)), np.asarray(load_image(after.image)))


def test_examples_come_back_from_disk(tmp_path, examples):
    to_dataset(examples).save_to_disk(tmp_path / "saved")
    (tmp_path / "image.png").rename(tmp_path / "elsewhere.png")  # images are inside
    dataset = load_examples(str(tmp_path / "saved"))
    assert dataset.features == FEATURES
    (tmp_path / "elsewhere.png").rename(tmp_path / "image.png")
    for before, after in zip(examples, from_dataset(dataset), strict=True):
        same(before, after)


def test_a_benchmark_goes_to_disk_and_comes_back_whole(root, tmp_path):
    archive_files.reasonseg(root)
    examples, _ = archives.load_archive("reasonseg", root, "val")
    own = datasets.Features({name: examples.features[name] for name in ("is_sentence", "ignore")})
    to_dataset(from_dataset(examples), own).save_to_disk(tmp_path / "saved")
    again = load_examples(str(tmp_path / "saved"))
    assert again.features == examples.features
    for before, after in zip(from_dataset(examples), from_dataset(again), strict=True):
        same(before, after)


def test_a_benchmark_goes_to_the_hub_and_comes_back_whole(root, data_hub):
    archive_files.reasonseg(root)
    examples, _ = archives.load_archive("reasonseg", root, "val")
    examples.push_to_hub(OWN, split="val")
    assert "data/val-00000-of-00001.parquet" in data_hub.paths(f"datasets/{OWN}")
    for image in (root / "ReasonSeg/val").glob("*.jpg"):
        image.rename(image.with_suffix(".aside"))  # the images come from the Hub, not from here
    again = load_examples(f"{OWN}:val")
    assert again.features == examples.features
    for image in (root / "ReasonSeg/val").glob("*.aside"):
        image.rename(image.with_suffix(".jpg"))
    for before, after in zip(from_dataset(examples), from_dataset(again), strict=True):
        same(before, after)


def test_a_missing_or_other_dataset_on_the_hub_is_explained(data_hub, examples):
    to_dataset(examples).push_to_hub(OWN, split="val")
    with pytest.raises(ValueError, match=rf"{OWN} cannot be loaded from the Hub: Unknown split \"train\".*'val'"):
        load_examples(OWN)
    with pytest.raises(ValueError, match=f"{OWN}:test cannot be loaded from the Hub: Unknown split"):
        load_examples(f"{OWN}:test")
    with pytest.raises(ValueError, match=r"me/others cannot be loaded from the Hub: .*doesn't exist on the Hub"):
        load_examples("me/others")
    to_dataset(examples).select([]).push_to_hub("me/nothing")
    with pytest.raises(ValueError, match=r"me/nothing cannot be loaded from the Hub: .*no data"):
        load_examples("me/nothing")
    datasets.Dataset.from_dict({"question": ["what"]}).push_to_hub("me/questions")
    with pytest.raises(ValueError, match="me/questions: the dataset has no column 'example_id'"):
        load_examples("me/questions")


def test_a_folder_without_examples_is_explained(tmp_path, examples):
    with pytest.raises(ValueError, match="neither a folder nor a Hub dataset"):
        load_examples("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty is not a folder that `save_to_disk` wrote"):
        load_examples(str(tmp_path / "empty"))
    made = to_dataset(examples)
    datasets.DatasetDict({"val": made, "test": made}).save_to_disk(tmp_path / "several")
    with pytest.raises(ValueError, match=r"several holds the splits val, test; name the folder of one, .*several/val"):
        load_examples(str(tmp_path / "several"))
    assert len(load_examples(str(tmp_path / "several" / "val"))) == 3
    made.select([]).save_to_disk(tmp_path / "none")
    with pytest.raises(ValueError, match=r"none has no rows: save a dataset that has some"):
        load_examples(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="'x' has no ground truth"):
        to_dataset([ReferringExample(np.zeros((2, 2, 3), np.uint8), "e", None, "x")])
    with pytest.raises(ValueError, match="no column 'example_id'"):
        next(from_dataset(datasets.Dataset.from_dict({"image": [1]})))


def saved(tmp_path, examples, edit, **features):
    """Save edited rows of examples with other features, and return the folder."""
    rows = list(to_rows(examples))
    for row in rows:
        row["image"] = {"bytes": None, "path": str(tmp_path / "image.png")}
    edit(rows)
    features = {name: kind for name, kind in (dict(FEATURES) | features).items() if name in rows[0]}
    datasets.Dataset.from_list(rows, features=datasets.Features(features)).save_to_disk(tmp_path / "saved")
    return str(tmp_path / "saved")


def test_ids_and_categories_may_be_numbers_and_class_labels(tmp_path, examples):
    kinds = datasets.ClassLabel(names=["cat", "dog"])

    def edit(rows):
        for number, row in enumerate(rows):
            row |= {"example_id": number, "image_id": 5, "category": number, "kind": (0, 1, None)[number]}
            row |= {"note": ["kept"], "ignore": row["masks"][:1]}

    whole = {"size": datasets.List(datasets.Value("int64")), "counts": datasets.Value("large_string")}
    source = saved(
        tmp_path,
        examples,
        edit,
        example_id=datasets.Value("int64"),
        image_id=datasets.Value("int32"),
        category=datasets.Value("int64"),
        kind=kinds,
        note=datasets.List(datasets.Value("string")),
        masks=datasets.LargeList(whole),
        ignore=datasets.List(whole),
    )
    dataset = load_examples(source)
    assert {name: dataset.features[name] for name in FEATURES} == FEATURES
    assert dataset.features["ignore"] == datasets.List(RLE)
    for number, (before, after) in enumerate(zip(examples, from_dataset(dataset), strict=True)):
        assert (after.example_id, after.image_id, after.expression) == (str(number), "5", before.expression)
        assert after.attributes == {"category": str(number), "kind": ("cat", "dog", None)[number], "note": ["kept"]}
        assert after.masks == before.masks
        assert [after.ignore] == list(before.masks[:1] or [None])


def change(**values):
    return lambda rows: rows[1].update(values)


@pytest.mark.parametrize(
    ("edit", "features", "why"),
    [
        (change(expression=None), {}, "row 1 has no 'expression'"),
        (change(example_id=None), {}, "row 1 has no 'example_id'"),
        (change(masks=None), {}, "row 1 has no 'masks'"),
        (change(image=None), {}, "the column 'image' does not hold an image in each row"),
        (
            lambda rows: [row.update(expression=7) for row in rows],
            {"expression": datasets.Value("int64")},
            r"the column 'expression' holds Value\('int64'\); expected text",
        ),
        (
            lambda rows: [row.update(expression=["it"]) for row in rows],
            {"expression": datasets.List(datasets.Value("string"))},
            "the column 'expression' holds List.*; expected text",
        ),
        (
            lambda rows: [row.update(example_id=0.5) for row in rows],
            {"example_id": datasets.Value("float64")},
            r"the column 'example_id' holds Value\('float64'\); expected text",
        ),
        (
            lambda rows: [row.update(masks="0") for row in rows],
            {"masks": datasets.Value("string")},
            "the column 'masks' holds Value.*; expected List",
        ),
        (
            lambda rows: [row.update(image="image.png") for row in rows],
            {"image": datasets.Value("string")},
            "the column 'image' does not hold an image in each row",
        ),
        (change(masks=[{"size": [6, 8], "counts": "zzz"}]), {}, "row 1 has a mask that cannot be read: the counts"),
        (change(masks=[{"size": [6, 8], "counts": "0"}]), {}, "row 1 has a mask .* do not cover a mask of 6 x 8"),
        (change(masks=[{"size": [6, 8], "counts": None}]), {}, "row 1 has a mask that cannot be read"),
        (change(masks=[{"size": None, "counts": "0"}]), {}, "row 1 has a mask that cannot be read"),
        (change(masks=[{"size": [100_000, 100_000], "counts": "0"}]), {}, "row 1 has a mask .* 100000"),
    ],
)
def test_a_wrong_column_is_named_before_anything_is_done(tmp_path, examples, edit, features, why):
    source = saved(tmp_path, examples, edit, **features)
    with pytest.raises(ValueError, match=f"saved: {why}"):
        load_examples(source)


def test_an_unreadable_image_is_an_error_of_its_example_alone(tmp_path, examples):
    source = saved(tmp_path, examples, change(image={"bytes": b"not an image", "path": None}))
    first, second, third = from_dataset(load_examples(source))
    with pytest.raises(ImageError, match="not an image that Pillow can read"):
        load_image(second.image)
    assert load_image(first.image).size == load_image(third.image).size == (8, 6)


def test_a_stored_image_keeps_its_bytes(tmp_path, examples):
    content = (tmp_path / "image.png").read_bytes()
    source = saved(tmp_path, examples, change(image={"bytes": content, "path": None}))
    stored = list(from_dataset(load_examples(source)))
    assert stored[1].image == content
    again = to_dataset(stored).cast_column("image", datasets.Image(decode=False))
    assert again[1]["image"]["bytes"] == content


def test_a_source_is_checked_without_loading_it(tmp_path, examples):
    saved = to_dataset(examples)
    saved.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=saved).save_to_disk(tmp_path / "splits")
    for source in (str(tmp_path / "saved"), "owner/name", "owner/name:val"):
        check_source(source, "a benchmark")
    for source, message in (
        (tmp_path, "is not a folder that `save_to_disk` wrote"),
        (tmp_path / "splits", "holds several splits: name the folder of one"),
        ("name", "neither a benchmark, nor a folder, nor a Hub dataset"),
        ("a/b/c", "neither a benchmark"),
        ("a/日本", "neither a benchmark"),
        ("~nosuch/x", "cannot be used as a path: .*home directory"),
        ("\ud800", "neither a benchmark"),
    ):
        with pytest.raises(ValueError, match=message):
            check_source(str(source), "a benchmark")


@pytest.mark.parametrize("form", ["runs", "floats", "bytes", "runs of length zero"])
def test_masks_may_be_rle_of_any_form(tmp_path, examples, form):
    truth = [example.masks for example in examples]
    kinds = {"runs": datasets.List(datasets.Value("int64")), "floats": datasets.List(datasets.Value("float64"))}
    counts = {**kinds, "bytes": datasets.Value("binary")}.get(form, datasets.Value("string"))

    def edit(rows):
        for row in rows:
            for rle in row["masks"]:
                runs = rle_runs(rle["counts"])
                if form in kinds:
                    rle["counts"] = [0, 0, *runs.tolist()]
                elif form == "bytes":
                    rle["counts"] = rle["counts"].encode()
                else:
                    padded = [part for run in runs.tolist() for part in (run, 0, 0)]
                    rle["counts"] = coco_mask.frPyObjects({"size": rle["size"], "counts": padded}, 6, 8)[
                        "counts"
                    ].decode()

    masks = datasets.List({"size": datasets.List(datasets.Value("int64")), "counts": counts})
    dataset = load_examples(saved(tmp_path, examples, edit, masks=masks))
    assert dataset.features == FEATURES
    assert [tuple(row) for row in dataset["masks"]] == truth
    assert [example.masks for example in from_dataset(dataset)] == truth


def test_ids_may_be_floats_of_a_table_with_empty_cells(tmp_path, examples):
    def edit(rows):
        for number, row in enumerate(rows):
            row |= {"example_id": float(number), "image_id": 41.0}

    float64 = datasets.Value("float64")
    dataset = load_examples(saved(tmp_path, examples, edit, example_id=float64, image_id=float64))
    assert dataset["example_id"][:] == ["0", "1", "2"]
    assert dataset["image_id"][:] == ["41"] * 3
