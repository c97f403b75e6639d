"""RefScenes on the Hub is RefScenes: its files load as the examples that `genseg evaluate refscenes` renders."""

import datasets
import huggingface_hub
import numpy as np
import pytest
import yaml
from genseg_hub.errors import PublishError
from genseg_hub.referring_dataset import from_dataset
from genseg_training.nano import refscenes, refscenes_on_hub
from genseg_training.nano.expressions import EXPRESSION_KINDS
from huggingface_hub import DatasetCard
from PIL import Image

from tests.helpers.checkpoints import run
from tests.helpers.hub_server import READER, WRITER

REPO = "me/refscenes"
KEPT = f"datasets/{REPO}"  # as the Hub of the tests calls it


@pytest.fixture
def few(monkeypatch):
    """Render 3 scenes of each split."""
    monkeypatch.setattr(refscenes, "SCENES_PER_SPLIT", 3)


@pytest.mark.parametrize("split", refscenes.SPLITS)
def test_what_is_published_are_the_rendered_examples(hub, few, tmp_path, split):
    refscenes_on_hub.push(REPO)
    folder = huggingface_hub.snapshot_download(REPO, repo_type="dataset", local_dir=tmp_path / "data")
    loaded = datasets.load_dataset(folder, split=split, cache_dir=str(tmp_path / "cache"))
    stored, rendered = list(from_dataset(loaded)), list(refscenes.refscenes(split))
    assert len(stored) == 12
    for ours, theirs in zip(stored, rendered, strict=True):
        assert (ours.expression, ours.masks, ours.example_id, ours.image_id, ours.attributes) == (
            theirs.expression,
            theirs.masks,
            theirs.example_id,
            theirs.image_id,
            theirs.attributes,
        )
    assert all(isinstance(picture, Image.Image) for picture in loaded["image"])
    assert np.array_equal(np.array(loaded[4]["image"]), rendered[4].image)


def test_the_card_says_what_is_in_it(hub, few):
    refscenes_on_hub.push(REPO)
    card = DatasetCard(hub.content(KEPT, "README.md").decode())
    assert (card.data.license, card.data.task_categories) == ("apache-2.0", ["image-segmentation"])
    assert [file["split"] for file in card.data.configs[0]["data_files"]] == list(refscenes.SPLITS)
    for part in (
        "| val | 3 | 12 |",
        "| test | 3 | 12 |",
        *(f"| {kind} | {weight} |" for kind, weight in EXPRESSION_KINDS.items()),
        f'load_dataset("{REPO}", split="val")',
        "red star",
        "## Licence",
        "## How it was made",
        f"genseg push-dataset refscenes {REPO}",
    ):
        assert part in card.text
    columns = {*refscenes_on_hub.ATTRIBUTES, "image", "expression", "masks", "example_id", "image_id"}
    assert all(f"| {column} | " in card.text for column in columns)


def test_the_splits_are_tasks_of_a_benchmark(hub, few):
    refscenes_on_hub.push(REPO)
    tasks = yaml.safe_load(hub.content(KEPT, "eval.yaml"))["tasks"]
    assert tasks == [{"id": split, "config": "default", "split": split} for split in refscenes.SPLITS]


def test_the_same_dataset_makes_no_second_commit(hub, few):
    first = run("push-dataset", "refscenes", REPO)
    assert first.exit_code == 0, first.output
    assert "published 4 files, " in first.output
    assert f"{hub.endpoint}/datasets/{REPO}/tree/main, commit {hub.heads()[KEPT]['main']}" in first.output
    assert "no new commit" in run("push-dataset", "refscenes", REPO).output


def test_earlier_data_does_not_stay_and_other_files_do(hub, few, monkeypatch):
    refscenes_on_hub.push(REPO)
    repository = hub.repositories[KEPT]
    tree = dict(repository.commits[repository.refs["main"]])
    tree |= {path: hub.store(b"old") for path in ("data/train-00000-of-00001.parquet", "notes.md")}
    repository.commit("main", tree, "by hand")
    refscenes_on_hub.push(REPO)
    assert {path for path in hub.paths(KEPT) if path.startswith("data/")} == {
        "data/val-00000-of-00001.parquet",
        "data/test-00000-of-00001.parquet",
    }
    assert "notes.md" in hub.paths(KEPT)


def test_a_dry_run_asks_nobody(hub, few, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    listed = run("push-dataset", "refscenes", REPO, "--dry-run")
    assert listed.exit_code == 0, listed.output
    assert "would publish 4 files" in listed.output
    assert hub.requests == []


@pytest.mark.parametrize(
    ("repo_id", "token", "message"),
    [("refscenes", WRITER, "is not a Hub id"), (REPO, "two words", "token for the Hub is malformed")],
)
def test_name_and_token_are_checked_before_rendering(hub, monkeypatch, repo_id, token, message):
    monkeypatch.setattr(refscenes_on_hub, "files", lambda _: pytest.fail("rendered too early"))
    with pytest.raises(PublishError, match=message):
        refscenes_on_hub.push(repo_id, token=token)
    assert hub.requests == []


def test_a_token_without_the_right_publishes_nothing(hub, few):
    with pytest.raises(PublishError, match=f"may not write to {REPO}, nothing was published"):
        refscenes_on_hub.push(REPO, token=READER)
    assert hub.heads() == {}
