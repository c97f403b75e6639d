"""Readers of the official archives, on small archives of the example photographs."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from genseg_hub import archives
from genseg_hub.archives import unpickling
from genseg_hub.errors import ArchiveError
from genseg_hub.referring_dataset import FEATURES, from_dataset
from genseg_hub.schema import Failure, Prediction, decode_mask
from PIL import Image

from tests.helpers import archive_files

REFS, INSTANCES, PHOTOS = "grefcoco/grefs(unc).json", "grefcoco/instances.json", "images/mscoco/images/train2014"


def change(file, edit):
    """Rewrite a JSON file in place."""
    data = json.loads(file.read_text())
    edit(data)
    file.write_text(json.dumps(data))


def refs_of(root):
    return unpickling.load_plain(root / "refcocog/refs(umd).p")


def test_refcocog_is_read_with_the_masks_of_its_annotations(root):
    expected = archive_files.refcocog(root)
    examples, report = archives.load_archive("refcocog", root, "val")
    assert len(examples) == expected == report.counts["expressions"]
    assert not report.problems
    assert not report.as_published  # the published split has 2,573 refs
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
    expected = archive_files.grefcoco(root)
    examples, report = archives.load_archive("grefcoco", root, "val")
    assert len(examples) == expected
    assert report.as_published  # no counts are published for its file
    refs = {str(ref["ref_id"]): ref for ref in json.loads((root / "grefcoco/grefs(unc).json").read_text())}
    numbers = {}
    for example in from_dataset(examples):
        ref = refs[example.attributes["ref_id"]]
        assert len(example.masks) == sum(i != -1 for i in ref["ann_id"])
        numbers[len(example.masks)] = numbers.get(len(example.masks), 0) + 1
    assert numbers[0] == 32
    assert max(numbers) > 1


def test_grefcoco_leaves_crowds_out_and_skips_references_without_sentences(root):
    archive_files.grefcoco(root)
    refs = json.loads((root / "grefcoco/grefs(unc).json").read_text())
    several = next(ref for ref in refs if len(ref["ann_id"]) > 1)
    single = next(ref for ref in refs if len(ref["ann_id"]) == 1 and ref["ann_id"] != [-1])
    crowds = {several["ann_id"][0], single["ann_id"][0]}

    def crowd(data):
        for annotation in data["annotations"]:
            annotation["iscrowd"] = int(annotation["id"] in crowds)

    change(root / "grefcoco/instances.json", crowd)
    change(root / "grefcoco/grefs(unc).json", lambda data: data[-1].update(sentences=[]))
    examples, report = archives.load_archive("grefcoco", root, "val")
    assert report.counts["expressions"] == 2 * len(refs) - 2
    by_ref = {example.attributes["ref_id"]: example for example in from_dataset(examples)}
    assert len(by_ref[str(several["ref_id"])].masks) == len(several["ann_id"]) - 1
    assert str(single["ref_id"]) not in by_ref  # without its crowd it is unusable, and no no-target
    assert report.problems["empty mask"] >= 2


def test_every_kind_of_problem_is_counted_and_the_rest_is_used(root):
    expected = archive_files.refcocog(root)
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
    examples, report = archives.load_archive("refcocog", root, "val")
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
    with pytest.raises(ArchiveError, match="left out, missing image"):
        archives.load_archive("refcocog", root, "val", strict=True)


def without(name):
    return lambda record: record.pop(name)


def having(**values):
    return lambda record: record.update(values)


@pytest.mark.parametrize(
    ("spoil", "lost", "why"),
    [
        (without("ref_id"), 2, "malformed record: reference 0 of .* has no 'ref_id'; expected a number or text"),
        (having(ref_id=True), 2, "malformed record: the 'ref_id' of reference 0 of .* is something else"),
        (without("image_id"), 2, "malformed record: reference 0 of .* has no 'image_id'"),
        (having(image_id=[30]), 2, "malformed record: the 'image_id' of reference 0"),
        (having(image_id=31), 2, "missing annotation: .*instances.json has no image 31"),
        (without("split"), 2, "malformed record: reference 0 of .* has no 'split'"),
        (without("sentences"), 1, "malformed record: reference 0 of .* has no 'sentences'; expected a list"),
        (having(sentences=["it"]), 1, "malformed record: a sentence of reference 0 of .* has no 'sent_id'"),
        (without("ann_id"), 2, "malformed record: reference 0 of .* has no 'ann_id'"),
        (having(ann_id=[]), 2, "malformed record: the 'ann_id' of reference 0 .* is something else"),
        (having(ann_id=[1.5]), 2, "malformed record: the 'ann_id' of reference 0 .* is something else"),
        (having(ann_id=[-1, 1]), 2, "missing annotation: .* has no annotation -1"),
        (having(ann_id=[-1]), 2, "malformed record: the 'no_target' of reference 0 .* another thing than its 'ann_id'"),
        (lambda ref: ref["sentences"][0].pop("sent"), 1, "malformed record: a sentence of reference 0 .* no 'sent'"),
        (lambda ref: ref["sentences"][0].update(sent=None), 1, "malformed record: a sentence of .* no 'sent'"),
        (
            lambda ref: ref["sentences"][0].update(sent=7),
            1,
            "malformed record: the 'sent' of a sentence of reference 0",
        ),
        (lambda ref: ref["sentences"][0].update(sent="\ud800"), 1, "malformed record: the 'sent' of a sentence"),
        (lambda ref: ref["sentences"][0].update(sent="a" * 10_001), 1, "malformed record: the 'sent' of a sentence"),
        (lambda ref: ref["sentences"][0].pop("sent_id"), 1, "malformed record: a sentence of .* no 'sent_id'"),
    ],
)
def test_a_malformed_reference_is_counted_and_the_rest_is_used(root, spoil, lost, why):
    archive_files.grefcoco(root)
    change(root / REFS, lambda refs: spoil(refs[0]))
    examples, report = archives.load_archive("grefcoco", root, "val")
    assert list(report.problems.values()) == [lost]
    assert len(examples) == report.counts["expressions"] - lost
    assert "None" not in examples["expression"]
    with pytest.raises(ArchiveError, match=f"{lost} left out, {why}"):
        archives.load_archive("grefcoco", root, "val", strict=True)


@pytest.mark.parametrize(
    ("table", "spoil", "why"),
    [
        ("images", without("width"), "malformed record: image 30 of .* has no 'width'; expected a number of pixels"),
        ("images", having(height="428"), "malformed record: the 'height' of image 30 of .* is something else"),
        ("images", without("file_name"), "malformed record: image 30 of .* has no 'file_name'"),
        ("images", having(file_name="a" * 5000), "missing image: there is no file"),
        ("images", having(file_name="a\0b"), "missing image: there is no file"),
        ("images", without("id"), "missing annotation: .* has no image 30, but 1 without an id"),
        ("annotations", without("image_id"), "malformed record: annotation 1 of .* has no 'image_id'"),
        ("annotations", without("id"), "missing annotation: .* has no annotation 1, but 1 without an id"),
        ("annotations", without("segmentation"), "unreadable mask: annotation 1: .* neither polygons nor an RLE"),
    ],
)
def test_a_malformed_annotation_is_counted_and_the_rest_is_used(root, table, spoil, why):
    archive_files.grefcoco(root)
    change(root / INSTANCES, lambda data: spoil(data[table][0]))
    examples, report = archives.load_archive("grefcoco", root, "val")
    assert 0 < len(examples) == report.counts["expressions"] - sum(report.problems.values())
    with pytest.raises(ArchiveError, match=f"left out, {why}"):
        archives.load_archive("grefcoco", root, "val", strict=True)


def test_ids_are_the_same_as_numbers_and_as_text(root):
    archive_files.grefcoco(root)
    examples, _ = archives.load_archive("grefcoco", root, "val")

    def as_text(refs):
        for ref in refs:
            for name in ("ref_id", "image_id"):
                ref[name] = str(ref[name])
            for name in ("ann_id", "category_id"):
                ref[name] = [str(number) for number in ref[name]]
            for sentence in ref["sentences"]:
                sentence["sent_id"] = float(sentence["sent_id"])

    change(root / REFS, as_text)
    again, report = archives.load_archive("grefcoco", root, "val")
    assert not report.problems
    assert again.data.equals(examples.data)


def test_a_category_may_be_missing(root):
    archive_files.grefcoco(root)
    change(root / REFS, lambda refs: [ref.pop("category_id") for ref in refs])
    change(root / INSTANCES, lambda data: data.update(categories=None))
    examples, report = archives.load_archive("grefcoco", root, "val")
    assert not report.problems
    assert set(examples["category"]) == {""}


def test_only_grefcoco_has_references_to_nothing(root):
    archive_files.refcocog(root)
    refs = refs_of(root)
    del refs[0]["no_target"]
    refs[0]["ann_id"] = -1
    (root / "refcocog/refs(umd).p").write_bytes(pickle.dumps(refs))
    examples, report = archives.load_archive("refcocog", root, "val")
    assert report.problems == {"missing annotation": 2}
    assert all(example.masks for example in from_dataset(examples))


def test_a_second_load_reads_the_cache_and_a_changed_archive_does_not(root, monkeypatch):
    archive_files.refcocog(root)
    first, _ = archives.load_archive("refcocog", root, "val")
    with monkeypatch.context() as patch:
        patch.setattr("genseg_hub.archives.readers.refcoco.load_plain", lambda file: pytest.fail("read again"))
        again, _ = archives.load_archive("refcocog", root, "val")
    assert again.data.equals(first.data)
    image = Path(next(from_dataset(first)).image)
    good, before = image.read_bytes(), image.stat()

    def problems():
        _, report = archives.load_archive("refcocog", root, "val")
        return list(report.problems)

    image.unlink()
    assert problems() == ["missing image"]
    image.write_bytes(good[:100])
    assert problems() == ["unreadable image"]
    image.write_bytes(good)
    assert problems() == []
    Image.new("RGB", (9, 9)).save(image)
    assert problems() == ["wrong image size"]
    image.write_bytes(good)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert problems() == []
    change(root / "refcocog/instances.json", lambda data: data["annotations"][0].pop("segmentation"))
    assert problems() == ["unreadable mask"]


def test_a_disk_that_fails_is_not_remembered_as_a_bad_image(root):
    archive_files.refcocog(root)
    examples, _ = archives.load_archive("refcocog", root, "val")
    image = Path(next(from_dataset(examples)).image)
    aside = image.rename(image.with_suffix(".aside"))
    image.symlink_to("/proc/self/mem")  # a regular file whose reading is an input/output error
    with pytest.raises(ArchiveError, match=rf"{image} cannot be read .*Input/output error"):
        archives.load_archive("refcocog", root, "val")
    aside.replace(image)
    _, report = archives.load_archive("refcocog", root, "val")
    assert not report.problems


def test_links_may_lead_in_circles_or_nowhere(root):
    archive_files.refcocog(root)
    (root / PHOTOS / "again").symlink_to(root / PHOTOS)
    (root / PHOTOS / "nowhere.jpg").symlink_to(root / "nowhere")
    _, report = archives.load_archive("refcocog", root, "val")
    assert not report.problems


def test_an_image_that_is_damaged_further_in_is_a_failure_of_its_expressions(root, nano):
    archive_files.refcocog(root)
    image = min((root / PHOTOS).iterdir())
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    examples, report = archives.load_archive("refcocog", root, "val")
    assert not report.problems  # its header is whole
    of_image = [example for example in from_dataset(examples) if example.image == str(image.resolve())]
    other = next(example for example in from_dataset(examples) if example.image != str(image.resolve()))
    *failures, result = nano.segment_many([*of_image, other])
    assert {type(failure) for failure in failures} == {Failure}
    assert str(image.name) in failures[0].message
    assert isinstance(result, Prediction)


def test_missing_and_malformed_files_are_explained(root):
    with pytest.raises(ArchiveError, match=r"no benchmark 'refcocoh'; choose one of .*refcocog"):
        archives.load_archive("refcocoh", root, "val")
    with pytest.raises(ArchiveError, match="refcocog has no split 'testA'; choose one of train, val, test"):
        archives.load_archive("refcocog", root, "testA")
    with pytest.raises(ArchiveError, match=r"there is no .*refs\(umd\).p; expected under .*refcocog.zip"):
        archives.load_archive("refcocog", root, "val")
    archive_files.grefcoco(root)
    with pytest.raises(ArchiveError, match="no expression of the split 'testA'"):
        archives.load_archive("grefcoco", root, "testA")
    for content, said in (
        ('{"split": "val"}', "not a list of references as REFER writes them"),
        ('[{"split": "val"}]', r"no usable example.*\n1 left out, malformed record: reference 0 .* has no 'ref_id'"),
        ("[" * 100_000, r"grefs\(unc\).json is not JSON .*recursion"),
        ("", r"grefs\(unc\).json is not JSON"),
    ):
        (root / REFS).write_text(content)
        with pytest.raises(ArchiveError, match=said):
            archives.load_archive("grefcoco", root, "val")
    (root / REFS).write_text("[]")
    (root / INSTANCES).write_text("{}")
    with pytest.raises(ArchiveError, match="not a COCO annotation file"):
        archives.load_archive("grefcoco", root, "val")
