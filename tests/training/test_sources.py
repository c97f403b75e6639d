"""Sources: archives, rendered scenes, folders and Hub datasets; a wrong one is named before anything is read."""

import contextlib

import datasets
import pytest
from genseg_hub import referring_dataset
from genseg_hub.referring_dataset import FEATURES, to_dataset
from genseg_training import sources
from genseg_training.nano import refscenes, scenes
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import archive_files
from tests.helpers.referring import example


def test_rendered_scenes_and_folders(tmp_path):
    rendered = sources.load_source("refscenes:8", seed=1)
    assert rendered.features == FEATURES
    assert rendered["expression"] == sources.load_source("refscenes:8", seed=1)["expression"]
    assert rendered["expression"] != sources.load_source("refscenes:8", seed=2)["expression"]
    rendered.save_to_disk(tmp_path / "set")
    assert sources.load_source(str(tmp_path / "set"))["expression"] == rendered["expression"]
    assert len(sources.load_source(f"{tmp_path / 'set'}:5")) == 5
    assert len(sources.load_source("refscenes:val:6")) == 6
    assert sources.load_source("refscenes:val:6")["example_id"][0].startswith("refscenes-val")
    mixed = sources.load_source("refscenes-new:40", seed=1)
    assert mixed["image_id"] == sources.load_source("refscenes:40", seed=1)["image_id"]
    assert any(" except " in expression for expression in mixed["expression"])
    assert sources.load_source("refscenes-new:val:6")["example_id"][0].startswith("refscenes-val")
    datasets.Dataset.from_dict({"image": [1]}).save_to_disk(tmp_path / "other")
    with pytest.raises(ValueError, match="no column"):
        sources.load_source(str(tmp_path / "other"))


def test_a_source_is_checked_without_loading_it(tmp_path):
    saved = to_dataset([example()])
    saved.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=saved).save_to_disk(tmp_path / "splits")
    for source in (
        "refscenes:8",
        "refscenes:val",
        "refscenes-new:8",
        str(tmp_path / "saved"),
        "owner/name",
        "owner/name:val",
        "o/n:val:9",
    ):
        sources.check_source(source)
    for source, message in (
        (tmp_path, "is not a folder that `save_to_disk` wrote"),
        (tmp_path / "splits", "holds several splits: name the folder of one"),
        ("refscene:8", "neither rendered scenes"),
        ("a/b/c", "neither rendered scenes"),
        ("nowhere", "nor a folder, .*; an archive is NAME:SPLIT, of .*refcocog"),
        ("~nosuch/x", "cannot be used as a path: .*home directory"),
        ("a" * 300, "cannot be used as a path: .*too long|neither rendered scenes"),
        ("refscenes:test", "final figures alone"),
        ("refscenes-new:test", "final figures alone"),
        *((f"refscenes{rest}", "is none of") for rest in ("", ":", ":0", ":x", ":val:", ":val:x")),
    ):
        with pytest.raises(ValueError, match=message):
            sources.check_source(str(source))


def test_an_archive_is_named_by_split_and_count(root):
    archive_files.divided(root)
    asked = sources.parse("refcocog:val:3", root)
    assert (asked.name, asked.count, asked.root, str(asked)) == ("refcocog:val", 3, root, "refcocog:val:3")
    whole = sources.load_source("refcocog:val", root=root)
    drawn = sources.load_source("refcocog:val:3", seed=5, root=root)
    assert drawn["example_id"] == sources.load_source("refcocog:val:3", seed=6, root=root)["example_id"]
    assert len(drawn) == 3
    assert set(drawn["example_id"]) < set(whole["example_id"])
    assert drawn["example_id"] != whole["example_id"][:3]
    with pytest.raises(ValueError, match=f"refcocog:val has {len(whole)} examples, not 100,000"):
        sources.load_source("refcocog:val:100000", root=root)


def test_the_environment_names_the_folder_of_the_archives(root, monkeypatch):
    archive_files.reasonseg(root)
    with pytest.raises(ValueError, match="name the folder of the archives with --root or GENSEG_BENCHMARKS"):
        sources.parse("reasonseg:val")
    monkeypatch.setenv("GENSEG_BENCHMARKS", str(root))
    assert sources.parse("reasonseg:val").root == root


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("refcocog", "names no split: write refcocog:SPLIT .* train, val, test"),
        ("refcocog:vall", "no split 'vall'; choose one of train, val, test"),
        ("refcocog:val:", "the count '' of .* is no number from 1"),
        ("refcocog:val:0", "the count '0'"),
        ("refcocog:val:1:2", "the count '1:2'"),
        ("refcoco:train", r"there is no .*refs\(unc\).p; expected under"),
    ],
)
def test_a_wrong_archive_is_named(root, text, message):
    archive_files.refcocog(root)
    with pytest.raises(ValueError, match=message):
        sources.parse(text, root)


def test_ignored_pixels_come_along(root):
    archive_files.reasonseg(root)
    assert [len(ignore) for ignore in sources.load_source("reasonseg:val", root=root)["ignore"]] == [1, 0]


@given(st.text(max_size=30) | st.from_regex(r"(refcocog|coco|refscenes|a/b|\.)(:[a-z0-9]*){0,3}", fullmatch=True))
def test_any_text_is_a_source_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        assert str(sources.parse(text, "/nowhere")) == text


def test_training_never_shows_held_out_combinations():
    for drawn in refscenes.training_examples(80, seed=0):
        assert drawn.image_id.startswith("training-0-")
        assert not any(f"{color} {kind}" in drawn.expression for color, kind in scenes.HELD_OUT)


def test_a_folder_by_path_is_a_source(root, tmp_path):
    archive_files.divided(root)
    examples = sources.load_source("refcocog:train", root=root)
    folder = tmp_path / "saved"
    folder.mkdir()
    referring_dataset.save(examples, folder)
    again = sources.load_source(str(folder))
    assert again.features == examples.features
    assert again.to_dict() == examples.to_dict()
    assert datasets.load_from_disk(folder)[0]["image"].size == examples[0]["image"].size
    images = sum(file.stat().st_size for file in root.rglob("*.jpg"))
    assert sum(file.stat().st_size for file in folder.iterdir()) < images / 2
