"""Readers of the official archives, on small ones made of the example photographs."""

import json
import os
import pickle
import struct
from pathlib import Path

import cv2
import datasets
import numpy as np
import pytest
from genseg_hub import benchmarks
from genseg_hub.benchmarks import _coco, _unpickling, reasonseg
from genseg_hub.metrics import measure
from genseg_hub.referring_dataset import FEATURES, from_dataset, to_dataset
from genseg_hub.schema import decode_mask, encode_mask
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from tests.hub import archives


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "archives"
    folder.mkdir()
    return folder


def change(file, edit):
    """Rewrite a JSON file in place."""
    data = json.loads(file.read_text())
    edit(data)
    file.write_text(json.dumps(data))


def refs_of(root):
    return pickle.loads((root / "refcocog/refs(umd).p").read_bytes())  # noqa: S301  written by this test


def test_refcocog_is_read_with_the_masks_of_its_annotations(root):
    expected = archives.refcocog(root)
    examples, report = benchmarks.load("refcocog", root, "val")
    assert len(examples) == expected == report.counts["expressions"]
    assert not report.problems
    assert not report.as_published  # 2,573 refs are
    assert "published are 2,573 refs, 1,300 images, 4,896 expressions" in str(report)
    assert set(FEATURES) | {"ref_id", "category"} == set(examples.column_names)
    annotations = {a["id"]: a for a in json.loads((root / "refcocog/instances.json").read_text())["annotations"]}
    refs = {str(ref["ref_id"]): ref for ref in refs_of(root)}
    for example in from_dataset(examples):
        ref = refs[example.attributes["ref_id"]]
        assert example.expression in [sentence["sent"] for sentence in ref["sentences"]]
        (mask,) = example.masks
        assert np.array_equal(decode_mask(mask), decode_mask(annotations[ref["ann_id"]]["segmentation"]))
        assert example.image.endswith(f"{ref['image_id']:012d}.jpg")
        assert example.attributes["category"] == "thing"
    images = examples["image_id"]
    changes = sum(a != b for a, b in zip(list(images), list(images)[1:], strict=False))
    assert changes == report.counts["images"] - 1  # the expressions of an image stand together


def test_grefcoco_has_expressions_for_nothing_and_for_several(root):
    expected = archives.grefcoco(root)
    examples, report = benchmarks.load("grefcoco", root, "val")
    assert len(examples) == expected
    assert report.as_published  # no counts are published for what its file holds
    refs = {str(ref["ref_id"]): ref for ref in json.loads((root / "grefcoco/grefs(unc).json").read_text())}
    numbers = {}
    for example in from_dataset(examples):
        ref = refs[example.attributes["ref_id"]]
        assert len(example.masks) == sum(i != -1 for i in ref["ann_id"])
        numbers[len(example.masks)] = numbers.get(len(example.masks), 0) + 1
    assert numbers[0] == 32
    assert max(numbers) > 1


def test_grefcoco_leaves_crowds_out_and_skips_references_without_sentences(root):
    archives.grefcoco(root)
    refs = json.loads((root / "grefcoco/grefs(unc).json").read_text())
    several = next(ref for ref in refs if len(ref["ann_id"]) > 1)
    single = next(ref for ref in refs if len(ref["ann_id"]) == 1 and ref["ann_id"] != [-1])
    crowds = {several["ann_id"][0], single["ann_id"][0]}

    def crowd(data):
        for annotation in data["annotations"]:
            annotation["iscrowd"] = int(annotation["id"] in crowds)

    change(root / "grefcoco/instances.json", crowd)
    change(root / "grefcoco/grefs(unc).json", lambda data: data[-1].update(sentences=[]))
    examples, report = benchmarks.load("grefcoco", root, "val")
    assert report.counts["expressions"] == 2 * len(refs) - 2
    by_ref = {example.attributes["ref_id"]: example for example in from_dataset(examples)}
    assert len(by_ref[str(several["ref_id"])].masks) == len(several["ann_id"]) - 1
    assert str(single["ref_id"]) not in by_ref  # nothing of it is left, and that is not a no-target
    assert report.problems["empty mask"] >= 2


def test_every_kind_of_problem_is_counted_and_the_rest_is_used(root):
    expected = archives.refcocog(root)
    refs = refs_of(root)
    val = [ref for ref in refs if ref["split"] == "val"]
    by_image = {}
    for ref in val:
        by_image.setdefault(ref["image_id"], []).append(ref)
    alone = [entries[0] for entries in by_image.values()]
    folder = root / "images/mscoco/images/train2014"

    def file_of(ref):
        return folder / f"{ref['image_id']:012d}.jpg"

    file_of(alone[0]).unlink()
    file_of(alone[1]).write_bytes(b"not an image")
    Image.new("RGB", (3, 5)).save(file_of(alone[2]))
    spoiled = {alone[3]["ann_id"]: [[1, 1, 5, 5]], alone[4]["ann_id"]: {"size": [1, 1], "counts": [1]}}

    def spoil(data):
        for annotation in data["annotations"]:
            annotation["segmentation"] = spoiled.get(annotation["id"], annotation["segmentation"])
        data["annotations"].append(next(a for a in data["annotations"] if a["id"] == alone[5]["ann_id"]))
        data["annotations"] = [a for a in data["annotations"] if a["id"] != alone[6]["ann_id"]]

    change(root / "refcocog/instances.json", spoil)
    alone[7]["sentences"][0]["sent"] = "  "
    alone[8]["sentences"][0]["sent_id"] = alone[8]["sentences"][1]["sent_id"]
    (root / "refcocog/refs(umd).p").write_bytes(pickle.dumps([*refs, alone[9]]))
    examples, report = benchmarks.load("refcocog", root, "val")
    of_image = [2 * len(by_image[ref["image_id"]]) for ref in alone]
    of_annotation = [2 * sum(ref["ann_id"] == a["ann_id"] for ref in val) for a in alone]
    assert report.problems == {
        "missing image": of_image[0],
        "unreadable image": of_image[1],
        "wrong image size": of_image[2],
        "empty mask": of_annotation[3],
        "unreadable mask": of_annotation[4],
        "duplicate id": of_annotation[5] + 2 + 4,  # an annotation, a sentence, and a reference given twice
        "missing annotation": of_annotation[6],
        "empty expression": 1,
    }
    assert len(examples) == expected + 2 - sum(report.problems.values())
    assert f"there is no file {file_of(alone[0])}" in str(report)
    with pytest.raises(benchmarks.ArchiveError, match="left out, missing image"):
        benchmarks.load("refcocog", root, "val", strict=True)


def test_a_second_load_reads_the_cache_and_a_changed_archive_does_not(root, monkeypatch):
    archives.refcocog(root)
    first, _ = benchmarks.load("refcocog", root, "val")
    with monkeypatch.context() as patch:
        patch.setattr("genseg_hub.benchmarks.refcoco.load_plain", lambda file: pytest.fail("read again"))
        again, _ = benchmarks.load("refcocog", root, "val")
    assert again.data.equals(first.data)
    Path(next(from_dataset(first)).image).unlink()
    _, report = benchmarks.load("refcocog", root, "val")
    assert list(report.problems) == ["missing image"]


def test_what_is_not_there_is_explained(root):
    with pytest.raises(benchmarks.ArchiveError, match=r"no benchmark 'refcocoh'; choose one of .*refcocog"):
        benchmarks.load("refcocoh", root, "val")
    with pytest.raises(benchmarks.ArchiveError, match="refcocog has no split 'testA'; choose one of train, val, test"):
        benchmarks.load("refcocog", root, "testA")
    with pytest.raises(benchmarks.ArchiveError, match=r"there is no .*refs\(umd\).p; needed is, under .*refcocog.zip"):
        benchmarks.load("refcocog", root, "val")
    archives.grefcoco(root)
    with pytest.raises(benchmarks.ArchiveError, match="no expression of the split 'testA'"):
        benchmarks.load("grefcoco", root, "testA")
    (root / "grefcoco/grefs(unc).json").write_text('[{"split": "val"}]')
    with pytest.raises(benchmarks.ArchiveError, match="not a list of references as REFER writes them"):
        benchmarks.load("grefcoco", root, "val")
    (root / "grefcoco/instances.json").write_text("{}")
    with pytest.raises(benchmarks.ArchiveError, match="not a COCO annotation file"):
        benchmarks.load("grefcoco", root, "val")


class _Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def _classes():
    """Pickles that are more than plain data, each by another road."""
    yield pickle.dumps(_Evil())
    yield pickle.dumps([{"sent": _Evil()}], protocol=0)
    yield pickle.dumps(np.int64(3))
    yield pickle.dumps(print)
    yield pickle.dumps({1, 2}, protocol=2)  # builtins.set
    yield b"cos\nsystem\n(S'touch pwned'\ntR."
    yield b"(S'touch pwned'\nios\nsystem\n."  # INST
    yield b"(cos\nsystem\nS'touch pwned'\no."  # OBJ
    yield b"\x80\x02\x82\x01."  # an extension
    yield b"P0\n."  # a persistent id
    yield b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch pwned\x85R."  # STACK_GLOBAL


@pytest.mark.parametrize("content", list(_classes()), ids=range(len(list(_classes()))))
def test_a_pickle_that_names_anything_is_refused_and_nothing_runs(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "refs(umd).p"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="not a pickle of plain data"):
        _unpickling.load_plain(file)
    assert not (tmp_path / "pwned").exists()


def test_a_pickle_of_python_2_is_read(tmp_path):
    file = tmp_path / "refs.p"
    # cPickle.dump([{'sent': 'caf\xe9', u'raw': u'caf\xe9', 'ref_id': 7L, 'split': 'val'}], f), protocol 0
    file.write_bytes(
        b"(lp1\n(dp2\nS'sent'\np3\nS'caf\\xe9'\np4\nsVraw\np5\nVcaf\xe9\np6\nsS'ref_id'\np7\nL7L\nsS'split'\np8\nS'val'\np9\nsa."
    )
    assert _unpickling.load_plain(file) == [{"sent": "café", "raw": "café", "ref_id": 7, "split": "val"}]


@given(st.binary(max_size=200))
def test_bytes_that_are_no_pickle_are_an_error(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("pickles") / "refs.p"
    file.write_bytes(content)
    try:
        _unpickling.load_plain(file)
    except ValueError as error:
        assert str(file) in str(error)  # noqa: PT017


def test_a_pickle_that_claims_to_be_huge_is_an_error(tmp_path):
    file = tmp_path / "refs.p"
    file.write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.")
    with pytest.raises(ValueError, match="not a pickle of plain data"):
        _unpickling.load_plain(file)


def test_reasonseg_paints_the_largest_first_and_ignores_what_is_ambiguous(root):
    archives.reasonseg(root)
    examples, report = benchmarks.load("reasonseg", root, "val")
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
    # Whatever is predicted there changes nothing.
    with_hole = measure(first.masks, target, ignore=first.ignore)
    filled = measure(first.masks, target | ignore, ignore=first.ignore)
    assert with_hole == filled
    assert filled.intersection == filled.prediction_area == target.sum()
    assert measure(first.masks, target | ignore).prediction_area == target.sum() + ignore.sum()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["target", "ignore", "something", "flag"]),
            st.lists(st.tuples(st.floats(-5, 45), st.floats(-5, 35)), min_size=1, max_size=6),
        ),
        max_size=5,
    )
)
def test_reasonseg_is_painted_as_lisa_paints_it(shapes):
    shapes = [{"label": label, "points": [list(point) for point in points]} for label, points in shapes]
    painted = reasonseg.paint(shapes, 30, 40)
    # An own slow account of LISA's rule: of the regions that cover a pixel, the smallest decides.
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


def test_a_users_own_table_is_read(root):
    expected = archives.coco(root)
    examples, report = benchmarks.load("coco", root, "data")
    assert len(examples) == expected == report.counts["expressions"]
    assert {len(example.masks) for example in from_dataset(examples)} >= {0, 1}
    lines = (root / "expressions.csv").read_text().splitlines()
    (root / "expressions.csv").write_text("\n".join([*lines[:3], "nowhere.jpg,a thing,"]) + "\n")
    _, report = benchmarks.load("coco", root, "data")
    assert report.problems == {"missing annotation": 1}
    (root / "expressions.csv").rename(root / "aside.csv")
    rows = [
        {"image": line.split(",")[0], "expression": "a thing", "annotations": [], "id": f"row-{i}"}
        for i, line in enumerate(lines[1:4])
    ]
    (root / "expressions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples, _ = benchmarks.load("coco", root, "data")
    assert sorted(examples["example_id"]) == ["row-0", "row-1", "row-2"]
    (root / "expressions.jsonl").write_text('{"image": "a.jpg"}\n')
    with pytest.raises(benchmarks.ArchiveError, match=r"row 0 of .*.jsonl cannot be read: it has no 'expression'"):
        benchmarks.load("coco", root, "data")
    (root / "aside.csv").rename(root / "expressions.csv")
    with pytest.raises(benchmarks.ArchiveError, match=r"both expressions.csv and expressions.jsonl; leave one"):
        benchmarks.load("coco", root, "data")


def test_images_may_lie_in_subfolders_and_nowhere_else(root):
    archives.coco(root)
    data = json.loads((root / "instances.json").read_text())
    first, second = data["images"][:2]
    (root / "images/sub").mkdir()
    (root / "images" / first["file_name"]).rename(root / "images/sub" / second["file_name"])
    outside = root / "secret.jpg"
    (root / "images" / data["images"][2]["file_name"]).rename(outside)
    names = {first["file_name"]: f"sub/{second['file_name']}", data["images"][2]["file_name"]: "../secret.jpg"}
    for image in data["images"]:
        image["file_name"] = names.get(image["file_name"], image["file_name"])
    (root / "instances.json").write_text(json.dumps(data))
    table = (root / "expressions.csv").read_text()
    for before, after in names.items():
        table = table.replace(before, after)
    (root / "expressions.csv").write_text(table)
    examples, report = benchmarks.load("coco", root, "data")
    assert list(report.problems) == ["missing image"]
    found = {example.image_id: example.image for example in from_dataset(examples)}
    assert found[f"sub/{second['file_name']}"] == str(root.resolve() / "images/sub" / second["file_name"])
    assert found[second["file_name"]] == str(root.resolve() / "images" / second["file_name"])
    assert "../secret.jpg" not in found


def test_a_benchmark_goes_to_disk_and_comes_back_whole(root, tmp_path):
    archives.reasonseg(root)
    examples, _ = benchmarks.load("reasonseg", root, "val")
    own = datasets.Features({name: examples.features[name] for name in ("is_sentence", "ignore")})
    to_dataset(from_dataset(examples), own).save_to_disk(tmp_path / "saved")
    again = datasets.load_from_disk(tmp_path / "saved")
    assert again.features == examples.features
    for before, after in zip(from_dataset(examples), from_dataset(again), strict=True):
        assert (before.expression, before.masks, before.ignore, before.attributes) == (
            after.expression,
            after.masks,
            after.ignore,
            after.attributes,
        )
        assert np.array_equal(np.asarray(Image.open(before.image)), np.asarray(after.image))


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
    for counts in (rle["counts"], rle["counts"].encode(), runs):
        found = _coco.to_rle({"size": [height, width], "counts": counts}, height, width)
        assert (found is None) == (not mask.any())
        if found:
            assert np.array_equal(decode_mask(found), mask)


@given(st.lists(st.lists(st.integers(0, 20), max_size=9), max_size=4))
def test_polygons_give_their_union_and_too_short_ones_nothing(polygons):
    found = _coco.to_rle(polygons, 20, 20)
    usable = [polygon for polygon in polygons if len(polygon) >= 6 and len(polygon) % 2 == 0]
    expected = np.zeros((20, 20), bool)
    for polygon in usable:
        expected |= coco_mask.decode(coco_mask.frPyObjects([polygon], 20, 20)[0]).astype(bool)
    assert np.array_equal(decode_mask(found) if found else np.zeros((20, 20), bool), expected)


@pytest.mark.parametrize(
    "segmentation",
    [None, 3, "text", [[0, 0, 1e9, 0, 0, 1e9]], [[0, 0, 1, 0, 1, float("nan")]], [[0, 0, float("inf"), 0, 1, 1]],
     [["a"] * 6], {"size": [5, 5], "counts": [1]}, {"size": [4, 4], "counts": [1, 2]}, {"counts": "0"},
     {"size": [4, 4], "counts": "zzzz"}, {"size": [4, 4], "counts": [-1, 17]}, {"size": [4, 4], "counts": None}],
)  # fmt: skip
def test_a_segmentation_that_is_none_is_an_error(segmentation):
    with pytest.raises(ValueError, match="the segmentation cannot be read"):
        _coco.to_rle(segmentation, 4, 4)
