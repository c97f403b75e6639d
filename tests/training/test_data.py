"""Data of a run: exclusion, the refusal of shared images, ignored pixels, and what the report says."""

from pathlib import Path

import pytest
from genseg_hub.referring_dataset import FEATURES, from_dataset, to_dataset
from genseg_training import data, sources

from tests.helpers import archive_files
from tests.helpers.referring import example


def test_the_report_says_what_was_read_and_drawn(root):
    archive_files.divided(root)
    request = data.Request(["refcocog:train", "grefcoco:train"], [3, 1], str(root), held_out="refcocog:val:4")
    loaded = data.load(request, seed=3)
    counts = {name: list(loaded.rows["source"]).count(name) for name in ("refcocog:train", "grefcoco:train")}
    assert len(loaded.held_out) == 4
    lines = loaded.report.splitlines()
    assert lines[2].startswith(f"trained on: {len(loaded.rows)} expressions about")
    said = ", ".join(f"{name} {counts[name]} (weight {weight})" for name, weight in zip(counts, (3, 1), strict=True))
    assert lines[2].endswith(f"without a target, drawn with seed 3: {said}")
    assert "held out, refcocog:val:4: 4 of " in lines[3]
    assert lines[3].endswith("drawn with seed 0")
    assert lines[4] == "refcocog:val:4: no image is trained on"
    again = data.load(request, seed=3)
    assert again.rows.to_dict() == loaded.rows.to_dict()


def test_held_out_images_are_refused_left_out_or_accepted(root):
    val = archive_files.divided(root)
    both = data.Request(["grefcoco:train", "grefcoco:val"], None, str(root), held_out="refcocog:val")
    with pytest.raises(ValueError, match=rf"{len(val)} images of the held-out refcocog:val are also .* COCO \d+ "):
        data.load(both, 0)
    single = data.Request(["grefcoco:val"], None, str(root), ["refcocog:val"])
    with pytest.raises(ValueError, match="no example of grefcoco:val is left after --exclude"):
        data.load(single, 0)
    accepted = data.load(data.Request(both.data, None, str(root), held_out="refcocog:val", allow_shared_images=True), 0)
    assert val & set(accepted.rows["image_id"])
    excluded = data.load(
        data.Request(["grefcoco:train"], None, str(root), ["refcocog:val"], held_out="refcocog:val"), 0
    )
    assert not val & set(excluded.rows["image_id"])


def test_excluded_images_are_left_out_of_every_source(root):
    archive_files.divided(root)
    both = ["grefcoco:train", "refcocog:train"]
    excluded = set(sources.load_source("refcocog:train:1", root=root)["image_id"])
    whole, rest = (data.load(data.Request(both, None, str(root), e), 0) for e in ([], ["refcocog:train:1"]))
    assert excluded < set(whole.rows["image_id"])
    assert not excluded & set(rest.rows["image_id"])
    assert sum("expressions about excluded images left out" in line for line in rest.report.splitlines()) == 2


def test_what_an_archive_leaves_out_is_reported_and_not_trained_on(root):
    archive_files.divided(root)
    request = data.Request(["refcocog:train"], None, str(root))
    whole = data.load(request, 0)
    missing = whole.rows[0]
    Path(missing["image"]["path"]).unlink()
    rest = data.load(request, 0)
    gone = list(whole.rows["image_id"]).count(missing["image_id"])
    assert f"refcocog:train: {gone} left out, missing image: there is no file {missing['image']['path']}" in rest.report
    assert len(rest.rows) == len(whole.rows) - gone
    for row in rest.rows:
        assert row["image"]["path"].endswith(f"{int(row['image_id']):012d}.jpg")


def test_ignored_pixels_reach_held_out_examples(root):
    archive_files.reasonseg(root)
    request = data.Request(["reasonseg:val"], None, str(root), held_out="reasonseg:val", allow_shared_images=True)
    examples = data.examples_of(data.load(request, 0).held_out)
    assert set(examples.column_names) == {*FEATURES, "ignore"}
    assert [example.ignore is None for example in from_dataset(examples)] == [False, True]


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_wrong_share_is_named_before_anything_is_read(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        data.Request(["refscenes:8"], no_target_share=share).check()


def test_hub_datasets_are_told_from_folders_archives_and_scenes(root, tmp_path, monkeypatch):
    """A folder can have the form of a Hub id, and no card may take it for one."""
    archive_files.divided(root)
    monkeypatch.chdir(tmp_path)
    to_dataset([example()]).save_to_disk("me/local")
    named = ["me/scenes:train:5", "refscenes:10", "me/local", "refcocog:train", "me/other", "me/scenes:test"]
    request = data.Request(named, root=str(root))
    assert request.hub_datasets() == ("me/scenes", "me/other")


@pytest.mark.parametrize(
    ("held_out", "stated"),
    [
        ("me/scenes:test", {"dataset": {"id": "me/scenes", "task_id": "test"}}),
        ("me/scenes", {"dataset": {"id": "me/scenes", "task_id": "train"}}),
        ("me/scenes:test:400", {}),
        ("refscenes:val", {}),
        (None, {}),
    ],
)
def test_only_a_whole_split_of_the_hub_is_stated_as_such(held_out, stated):
    assert data.Request(["refscenes:10"], held_out=held_out).scored_on() == stated
