"""A user's own annotations and table of expressions."""

import json
import re
import unicodedata
from contextlib import nullcontext

import pytest
from genseg_hub import archives
from genseg_hub.errors import ArchiveError
from genseg_hub.referring_dataset import from_dataset
from hypothesis import HealthCheck, given, settings
from PIL import Image

from tests.helpers import archive_files, strategies


def test_a_users_own_table_is_read(root):
    expected = archive_files.coco(root)
    examples, report = archives.load_archive("coco", root, "data")
    assert len(examples) == expected == report.counts["expressions"]
    assert {len(example.masks) for example in from_dataset(examples)} >= {0, 1}
    lines = (root / "expressions.csv").read_text().splitlines()
    (root / "expressions.csv").write_text("\n".join([*lines[:3], "nowhere.jpg,a thing,"]) + "\n")
    _, report = archives.load_archive("coco", root, "data")
    assert report.problems == {"missing annotation": 1}
    (root / "expressions.csv").rename(root / "aside.csv")
    rows = [
        {"image": line.split(",")[0], "expression": "a thing", "annotations": [], "id": f"row-{i}"}
        for i, line in enumerate(lines[1:4])
    ]
    (root / "expressions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples, _ = archives.load_archive("coco", root, "data")
    assert sorted(examples["example_id"]) == ["row-0", "row-1", "row-2"]
    (root / "aside.csv").rename(root / "expressions.csv")
    with pytest.raises(ArchiveError, match=r"both expressions.csv and expressions.jsonl; leave one"):
        archives.load_archive("coco", root, "data")


@pytest.fixture
def table(root):
    """Return a function that writes a table beside the annotations, with a known {image} and {id}."""
    archive_files.coco(root)
    (root / "expressions.csv").unlink()
    data = json.loads((root / "instances.json").read_text())
    known = {"image": data["images"][0]["file_name"], "id": data["annotations"][0]["id"]}

    def write(content, name="expressions.csv", encoding="utf-8"):
        for what, value in known.items():
            content = content.replace(f"{{{what}}}", str(value))
        (root / name).write_bytes(content.encode(encoding))

    return write


HEAD = "image,expression,annotations\n"
GOOD = "{image},a thing,{id}\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("expressions.csv", "\ufeff" + HEAD + GOOD),
        ("expressions.csv", (HEAD + GOOD + "\n").replace("\n", "\r\n")),
        ("expressions.csv", "image, expression, annotations, note\n{image}, a thing, {id}, hello\n"),
        ("expressions.csv", HEAD + '{image},"a thing",{id}'),
        ("expressions.jsonl", '\n{"image": "{image}", "expression": "a thing", "annotations": [{id}]}\n\n'),
        (
            "expressions.jsonl",
            '\ufeff{"image": "{image}", "expression": "a thing", "annotations": ["{id}"], "id": null}',
        ),
        ("expressions.jsonl", '{"image": "{image}", "expression": " a thing ", "annotations": [{id}.0]}'),
        ("expressions.jsonl", '{"image": "{image}", "expression": "a thing", "annotations": {id}.0}'),
        ("expressions.csv", HEAD + "{image},a thing,{id}.0\n"),
        ("expressions.csv", HEAD + "{image},a thing,\"['{id}']\"\n"),
        ("expressions.csv", ",image,expression,annotations,id\n0,{image},a thing,np.int64({id}),0.0\n"),
    ],
)
def test_a_table_may_be_written_in_these_ways(root, table, name, content):
    table(content, name)
    examples, report = archives.load_archive("coco", root, "data")
    assert not report.problems
    (example,) = from_dataset(examples)
    assert (example.expression, example.example_id, len(example.masks)) == ("a thing", "0", 1)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("{image},the cup, left,{id}", "malformed record: line 3 of .*csv has more cells than columns; quote cells"),
        ("{image},the cup", "malformed record: line 3 of .*csv has no 'annotations'; expected a list of ids"),
        ("{image}, ,{id}", "empty expression: the expression of line 3 of .*csv is empty"),
        ("nowhere.jpg,a cup,{id}", "missing annotation: .*instances.json has 0 images with the file_name nowhere.jpg"),
        ("{image},a cup,999999", "missing annotation: .*instances.json has no annotation 999999"),
        ("{image},a cup,{id}.5", r"missing annotation: .*instances.json has no annotation \d+\.5"),
    ],
)
def test_a_bad_row_of_csv_is_counted(root, table, row, why):
    table(HEAD + GOOD + row + "\n")
    examples, report = archives.load_archive("coco", root, "data")
    assert len(examples) == 1
    assert re.search(f"1 left out, {why}", str(report))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ('{"image": "{image}"', "line 2 of .*jsonl is no JSON object"),
        ("7", r"line 2 of .*jsonl is no JSON object \(it is a int\)"),
        ("[" * 100_000, "line 2 of .*jsonl is no JSON object .*recursion"),
        ('{"expression": "a cup", "annotations": []}', "line 2 of .*jsonl has no 'image'"),
        ('{"image": "{image}", "annotations": []}', "line 2 of .*jsonl has no 'expression'"),
        ('{"image": "{image}", "expression": 7, "annotations": []}', "the 'expression' of line 2 of .* something else"),
        ('{"image": "{image}", "expression": "a cup"}', "line 2 of .*jsonl has no 'annotations'"),
        ('{"image": "{image}", "expression": "a cup", "annotations": {}}', "the 'annotations' of line 2 of .*jsonl"),
        ('{"image": "{image}", "expression": "a cup", "annotations": [Infinity]}', "the 'annotations' of line 2 of .*"),
        (
            '{"image": "{image}", "expression": "a cup", "annotations": [1], "annotations": []}',
            r"line 2 of .*jsonl is no JSON object \(a key is repeated\)",
        ),
        ('{"image": "{image}", "expression": "a cup", "annotations": [1.7]}', "the 'annotations' of line 2 of .*jsonl"),
    ],
)
def test_a_bad_row_of_jsonl_is_counted(root, table, row, why):
    table('{"image": "{image}", "expression": "a thing", "annotations": [{id}]}\n' + row, "expressions.jsonl")
    examples, report = archives.load_archive("coco", root, "data")
    assert len(examples) == 1
    assert re.search(f"1 left out, malformed record: {why}", str(report))


@pytest.mark.parametrize(
    ("content", "encoding", "why"),
    [
        (HEAD + "{image},café,{id}\n", "latin1", "expressions.csv is not in UTF-8 .*position"),
        (HEAD + GOOD, "utf-16", "expressions.csv is not in UTF-8"),
        (
            (HEAD + GOOD).replace(",", ";"),
            "utf-8",
            "has the columns image;expression;annotations; expected image,",
        ),
        ("", "utf-8", "has the columns none; expected image, expression, annotations"),
        (HEAD, "utf-8", "has no expression of the split 'data'"),
        (
            "image,expression,annotations,annotations\n{image},a thing,{id},\n",
            "utf-8",
            "expressions.csv has the column 'annotations' twice; leave one, or give the other another name",
        ),
        ("id,image,expression,annotations,id\n1,{image},a thing,{id},2\n", "utf-8", "has the column 'id' twice"),
        (HEAD + GOOD + '{image},"the big,{id}\n' + GOOD, "utf-8", "the rows after line 2 of .* are not CSV .*quotes"),
        (HEAD + GOOD + "{image}," + "a" * 200_000, "utf-8", "the rows after line 2 of .* are not CSV .*field limit"),
    ],
)
def test_a_file_that_is_no_table_is_an_error_that_names_it(root, table, content, encoding, why):
    table(content, encoding=encoding)
    with pytest.raises(ArchiveError, match=why):
        archives.load_archive("coco", root, "data")


def test_a_row_without_an_id_has_its_number_for_one(root, table):
    table("image,expression,annotations,id\n{image},a,{id},\n{image},b,{id},\n{image},c,{id},x\n{image},d,{id},1\n")
    examples, report = archives.load_archive("coco", root, "data")
    assert sorted(zip(examples["example_id"], examples["expression"], strict=True)) == [
        ("0", "a"),
        ("1", "d"),
        ("2", "b"),
        ("x", "c"),
    ]
    assert not report.problems


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["1.0", "", "3.0"], ["1", "2", "3"]),  # what pandas writes for 1, nan, 3
        (["1", "", ""], ["1", "3", "2"]),
        (["4", "", "1", "2", "nan"], ["4", "3", "1", "2", "5"]),
        (["b", "", "None", "a"], ["b", "1", "2", "a"]),
        (["", "", "0", "1"], ["2", "3", "0", "1"]),
    ],
)
def test_blank_ids_get_numbers_that_no_row_has(root, table, given, expected):
    rows = [f"{{image}},thing {i},{{id}},{id_}\n" for i, id_ in enumerate(given)]
    table("image,expression,annotations,id\n" + "".join(rows))
    examples, report = archives.load_archive("coco", root, "data")
    assert not report.problems
    assert dict(zip(examples["expression"], examples["example_id"], strict=True)) == {
        f"thing {i}": id_ for i, id_ in enumerate(expected)
    }


def test_two_rows_with_the_same_id_are_still_left_out(root, table):
    table("image,expression,annotations,id\n{image},a,{id},1\n{image},b,{id},1\n{image},c,{id},\n{image},d,{id},\n")
    examples, report = archives.load_archive("coco", root, "data")
    assert report.problems == {"duplicate id": 2}
    assert sorted(examples["example_id"]) == ["2", "3"]


@pytest.mark.parametrize(
    ("cell", "masks"),
    [
        ("41 41", 1),
        ("42 41 42.0", 2),
        ("[41. 42.]", 2),
        ("[4.1e+01 4.2e+01]", 2),
        ("[4.10000000e+01 4.20000000e+01]", 2),
        ("array([41., 42.])", 2),
        ("frozenset({41, 42})", 2),
        ("{41, 42}", 2),
        ("[41 nan]", 1),
        ("set()", 0),
        ("frozenset()", 0),
        ("array([], dtype=int64)", 0),
        ("{}", 0),
        ("()", 0),
        ("[nan]", 0),
        ("[NaN]", 0),
    ],
)
def test_each_form_of_a_cell_refers_to_its_annotations_once(root, cell, masks):
    own(root, "a.jpg")
    picture(root)
    (root / "expressions.csv").write_text(f'{HEAD}a.jpg,a thing,"{cell}"\n')
    (example,) = from_dataset(archives.load_archive("coco", root, "data")[0])
    assert len(example.masks) == masks


@pytest.mark.parametrize(
    ("value", "masks"), [("NaN", 0), ("[NaN]", 0), ("null", 0), ("[41, 41]", 1), ('[41, "41", 41.0, 42]', 2)]
)
def test_each_value_of_json_refers_to_its_annotations_once(root, value, masks):
    own(root, "a.jpg")
    picture(root)
    (root / "expressions.jsonl").write_text(f'{{"image": "a.jpg", "expression": "a thing", "annotations": {value}}}')
    (example,) = from_dataset(archives.load_archive("coco", root, "data")[0])
    assert len(example.masks) == masks


def test_a_number_that_numpy_may_have_rounded_is_no_id(root):
    own(root, "a.jpg")
    picture(root)
    data = json.loads((root / "instances.json").read_text())
    data["annotations"][0]["id"] = 900100574000
    (root / "instances.json").write_text(json.dumps(data))
    (root / "expressions.csv").write_text(f"{HEAD}a.jpg,a thing,[9.00100574e+11]\n")  # np.array([900100574478.])
    with pytest.raises(ArchiveError, match=r"has no annotation 9.00100574e\+11"):
        archives.load_archive("coco", root, "data")


def test_annotations_may_have_text_for_ids_and_no_categories(root, table):
    table(HEAD + GOOD + "{image},another thing,a\n")
    data = json.loads((root / "instances.json").read_text())
    data["annotations"][1]["id"] = "a"
    data["categories"] = [{"id": 1}]
    (root / "instances.json").write_text(json.dumps(data))
    examples, report = archives.load_archive("coco", root, "data")
    assert not report.problems
    assert len(examples) == 2


def test_a_file_name_that_two_images_have_is_ambiguous(root, table):
    table(HEAD + GOOD)
    data = json.loads((root / "instances.json").read_text())
    data["images"].append(data["images"][0] | {"id": 999_999})
    (root / "instances.json").write_text(json.dumps(data))
    with pytest.raises(ArchiveError, match=r"duplicate id: .*json has 2 images with the file_name"):
        archives.load_archive("coco", root, "data")


def test_images_may_lie_in_subfolders_and_nowhere_else(root):
    archive_files.coco(root)
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
    examples, report = archives.load_archive("coco", root, "data")
    assert list(report.problems) == ["missing image"]
    found = {example.image_id: example.image for example in from_dataset(examples)}
    assert found[f"sub/{second['file_name']}"] == str(root.resolve() / "images/sub" / second["file_name"])
    assert found[second["file_name"]] == str(root.resolve() / "images" / second["file_name"])
    assert "../secret.jpg" not in found


def own(root, *names):
    """Write annotations of images with these file names, each of 64 x 48 with the annotations 41 and 42."""
    images = [{"id": i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(names)]
    annotations = [
        {"id": id_ + 100 * i, "image_id": i, "category_id": 1, "iscrowd": 0, "segmentation": [[5, 5, 15, 5, 15, id_]]}
        for i in range(len(names))
        for id_ in (41, 42)
    ]
    (root / "images").mkdir(exist_ok=True)
    (root / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations}))


def picture(root, name="a.jpg", size=(64, 48), **options):
    file = root / "images" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(file, **options)
    return file


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(strategies.tables())
def test_a_table_of_pandas_is_read_as_it_was_meant(root, tmp_path_factory, table):
    name, content, rows = table
    folder = tmp_path_factory.mktemp("own")
    own(folder, "a.jpg")
    picture(folder)
    (folder / name).write_text(content)
    examples, report = archives.load_archive("coco", folder, "data")
    assert not report.problems
    found = {example.expression: len(example.masks) for example in from_dataset(examples)}
    assert found == {f"thing {i}": len(ids) for i, ids in enumerate(rows)}


def test_an_id_of_an_annotation_may_look_like_a_number_of_pandas(root):
    own(root, "a.jpg")
    picture(root)
    data = json.loads((root / "instances.json").read_text())
    data["annotations"][1]["id"] = "41.0"
    (root / "instances.json").write_text(json.dumps(data))
    (root / "expressions.csv").write_text(HEAD + "a.jpg,a thing,41.0\n")
    (example,) = from_dataset(archives.load_archive("coco", root, "data")[0])
    (root / "expressions.csv").write_text(HEAD + "a.jpg,a thing,41\n")
    (other,) = from_dataset(archives.load_archive("coco", root, "data")[0])
    assert other.masks != example.masks


@pytest.mark.parametrize(
    ("annotated", "stored", "asked"),
    [
        ("images/a.jpg", "a.jpg", "images/a.jpg"),
        ("images/a.jpg", "a.jpg", "a.jpg"),
        ("images\\a.jpg", "a.jpg", "images\\a.jpg"),
        ("images\\a.jpg", "a.jpg", "images/a.jpg"),
        ("C:\\data\\images\\sub\\a.jpg", "sub/a.jpg", "a.jpg"),
        ("/data/images/a.jpg", "a.jpg", "/data/images/a.jpg"),
        ("./a.jpg", "a.jpg", "a.jpg"),
        ("a.jpg", "a.jpg", "images/a.jpg"),
        ("back\\slash.jpg", "back\\slash.jpg", "back\\slash.jpg"),
    ],
)
def test_file_names_may_have_folders_and_backslashes(root, annotated, stored, asked):
    own(root, annotated)
    file = picture(root, stored)
    (root / "expressions.csv").write_text(f"{HEAD}{asked},a thing,41\n")
    examples, report = archives.load_archive("coco", root, "data")
    assert not report.problems
    assert [example.image for example in from_dataset(examples)] == [str(file.resolve())]


NFC, NFD = (unicodedata.normalize(form, "säle/café.jpg") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("annotated", [NFC, NFD, f"/data/{NFD}"])
@pytest.mark.parametrize("stored", [NFC, NFD, unicodedata.normalize("NFC", "säle/") + NFD.rpartition("/")[2]])
@pytest.mark.parametrize("asked", [NFC, NFD, NFD.rpartition("/")[2]])
def test_both_unicode_forms_of_a_file_name_are_one_name(root, annotated, stored, asked):
    own(root, annotated)
    file = picture(root, stored)
    (root / "expressions.csv").write_text(f"{HEAD}{asked},a thing,41\n")
    examples, report = archives.load_archive("coco", root, "data")
    assert not report.problems
    assert [example.image for example in from_dataset(examples)] == [str(file.resolve())]


def test_two_files_whose_names_differ_only_in_their_unicode_form_are_told_apart(root):
    names = [name.rpartition("/")[2] for name in (NFC, NFD)]
    own(root, *names)
    files = [picture(root, name) for name in names]
    rows = [f"{name},thing {i},{41 + 100 * i}\n" for i, name in enumerate(names)]
    (root / "expressions.csv").write_text(HEAD + "".join(rows))
    found = from_dataset(archives.load_archive("coco", root, "data")[0])
    assert {example.expression: example.image for example in found} == {
        f"thing {i}": str(file.resolve()) for i, file in enumerate(files)
    }
    files[1].unlink()
    examples, report = archives.load_archive("coco", root, "data")
    assert report.problems == {"missing image": 1}
    assert list(examples["expression"]) == ["thing 0"]


@pytest.mark.parametrize(
    ("annotated", "stored", "asked"),
    [
        ("my%20photo.jpg", "my photo.jpg", "my%20photo.jpg"),
        ("my%20photo.jpg", "my photo.jpg", "my photo.jpg"),
        ("my photo.jpg", "my photo.jpg", "my%20photo.jpg"),
        ("my%20photo.jpg", "my%20photo.jpg", "my photo.jpg"),
        ("caf%C3%A9.jpg", NFD.rpartition("/")[2], "caf%C3%A9.jpg"),
        ("/data/local-files/?d=images%2Fa.jpg", "a.jpg", "a.jpg"),
        ("/data/local-files/?d=images/my%20photo.jpg", "my photo.jpg", "my photo.jpg"),
        ("http://host/data/local-files/?d=%2Fsrv%2Fsub%2Fa.jpg", "sub/a.jpg", "/data/local-files/?d=sub%2Fa.jpg"),
        ("file:///data/my%20photo.jpg", "my photo.jpg", "my photo.jpg"),
        ("100%.jpg", "100%.jpg", "100%.jpg"),
        ("%2fetc%2fa.jpg", "a.jpg", "a.jpg"),
    ],
)
def test_a_percent_encoded_file_name_is_decoded_last(root, annotated, stored, asked):
    own(root, annotated)
    file = picture(root, stored)
    (root / "expressions.csv").write_text(f"{HEAD}{asked},a thing,41\n")
    examples, report = archives.load_archive("coco", root, "data")
    assert not report.problems
    assert [example.image for example in from_dataset(examples)] == [str(file.resolve())]


def test_a_file_of_the_encoded_name_comes_first_and_never_another_images_file(root):
    names = ["my%20photo.jpg", "my photo.jpg"]
    own(root, *names)
    files = [picture(root, name) for name in names]
    (root / "expressions.csv").write_text(HEAD + "my%20photo.jpg,thing 0,41\nmy photo.jpg,thing 1,141\n")
    found = from_dataset(archives.load_archive("coco", root, "data")[0])
    assert {example.expression: example.image for example in found} == {
        f"thing {i}": str(file.resolve()) for i, file in enumerate(files)
    }
    files[0].unlink()
    examples, report = archives.load_archive("coco", root, "data")
    assert report.problems == {"missing image": 1}
    assert list(examples["expression"]) == ["thing 1"]


@pytest.mark.parametrize(
    "name",
    [
        "%2e%2e%2fsecret.jpg",
        "%2E%2E/secret.jpg",
        "sub/..%2f..%2fsecret.jpg",
        "..%5csecret.jpg",
        "%252e%252e%252fsecret.jpg",
        "/data/local-files/?d=..%2Fsecret.jpg",
        "/data/local-files/?d=%2e%2e%2fsecret.jpg",
        "secret.jpg%00.png",
        "{root}%2Fsecret.jpg",
    ],
)
def test_an_encoded_name_never_leads_out_of_the_folder(root, name):
    name = name.replace("{root}", str(root).replace("/", "%2F"))
    own(root, name)
    (root / "images/sub").mkdir()
    picture(root, "../secret.jpg")
    (root / "expressions.csv").write_text(f"{HEAD}{name},a thing,41\n")
    with pytest.raises(ArchiveError, match="1 left out, missing image"):
        archives.load_archive("coco", root, "data")


def test_names_that_lead_out_of_the_folder_do_not_stand_for_one_another(root):
    own(root, "%2e%2e%2fone.jpg")
    (root / "expressions.csv").write_text(HEAD + "%2e%2e%2fother.jpg,a thing,41\n")
    with pytest.raises(ArchiveError, match="has 0 images with the file_name"):
        archives.load_archive("coco", root, "data")


def test_a_file_that_two_images_could_mean_is_nobodys(root):
    own(root, "train/a.jpg", "val/a.jpg")
    picture(root)
    (root / "expressions.csv").write_text(HEAD + "train/a.jpg,x,41\nval/a.jpg,y,141\na.jpg,z,41\n")
    with pytest.raises(
        ArchiveError, match=r"(?s)no usable example: .*1 left out, duplicate.*2 left out, missing image"
    ):
        archives.load_archive("coco", root, "data")


def test_width_and_height_swapped_by_an_orientation_are_named(root):
    own(root, "a.jpg")
    picture(root, exif=strategies.oriented(6))
    (root / "expressions.csv").write_text(HEAD + "a.jpg,a thing,41\n")
    with pytest.raises(
        ArchiveError, match=r"a.jpg is \(48, 64\), annotated as \(64, 48\).*swapped, as an EXIF orientation"
    ):
        archives.load_archive("coco", root, "data")


@pytest.mark.parametrize("bad", [1, 2, 3, 4])
def test_a_table_of_which_more_than_half_is_unusable_is_an_error(root, bad):
    own(root, "a.jpg")
    picture(root)
    rows = ["a.jpg,a thing,41"] * (4 - bad) + ["a.jpg,a thing,999"] * bad
    (root / "expressions.csv").write_text(HEAD + "\n".join(rows))
    said = f"{bad} of 4 expressions are unusable.*missing annotation" if bad < 4 else "no usable example"
    with pytest.raises(ArchiveError, match=f"(?s){said}") if bad > 2 else nullcontext():
        archives.load_archive("coco", root, "data")
