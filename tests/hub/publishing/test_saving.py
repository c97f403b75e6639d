"""`save_pretrained` and `push_to_hub` write what `from_pretrained` loads."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from genseg_hub import GenSegR1, checkpoints
from genseg_hub.errors import CheckpointError, PublishError
from genseg_hub.reasoners.loading import ServerReasoner
from PIL import Image, ImageDraw

from tests.helpers.chat_server import said, serving
from tests.helpers.checkpoints import NANO, weights
from tests.helpers.hub_server import REPO


def scene() -> Image.Image:
    drawn = Image.new("RGB", (192, 160), "white")
    ImageDraw.Draw(drawn).ellipse((40, 40, 110, 110), fill="red")
    return drawn


def check_same(ours: GenSegR1, theirs: GenSegR1) -> None:
    for expression in ("the red circle", "the blue square"):
        mine, other = (model.segment(scene(), expression) for model in (ours, theirs))
        assert mine.response == other.response
        assert np.array_equal(mine.mask, other.mask)


def test_a_saved_model_answers_as_before(nano, tmp_path):
    nano.save_pretrained(tmp_path / "saved")
    loaded = GenSegR1.from_pretrained(str(tmp_path / "saved"), device="cpu")
    check_same(nano, loaded)
    settings = json.loads((tmp_path / "saved" / "genseg.json").read_text())
    assert (settings["dialect"], settings["segmenter"], settings["base_model"]) == ("genseg", "segmenter", "nano")
    assert settings["dtype"] == "float32"
    assert settings["versions"].keys() == {"fiftyone-genseg", "torch", "transformers", "rf-sam-2"}


def test_the_weights_in_memory_are_saved(tmp_path):
    model = GenSegR1.from_pretrained("nano", device="cpu")
    name, parameter = next(iter(model.reasoner.model.named_parameters()))
    with torch.no_grad():
        parameter.add_(1.0)
    model.save_pretrained(tmp_path)
    loaded = GenSegR1.from_pretrained(str(tmp_path), device="cpu")
    assert torch.equal(dict(loaded.reasoner.model.named_parameters())[name], parameter)


def test_saving_over_a_folder_drops_its_figures_and_keeps_other_files(nano, folder):
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "held_out.json").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    nano.save_pretrained(folder)
    assert not (folder / "evaluation" / "held_out.json").exists()
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_folder_can_be_saved_over_itself(folder):
    model = GenSegR1.from_pretrained(str(folder), device="cpu")
    model.save_pretrained(folder)
    check_same(model, GenSegR1.from_pretrained(str(folder), device="cpu"))


def test_options_that_change_answers_are_kept_and_those_of_the_machine_are_not(tmp_path):
    model = GenSegR1.from_pretrained(
        "nano", device="cpu", max_pixels=30_000, max_new_tokens=90, attn_implementation="eager"
    )
    model.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "genseg.json").read_text())
    assert (settings["max_pixels"], settings["max_new_tokens"]) == (30_000, 90)
    assert "attn_implementation" not in settings
    check_same(model, GenSegR1.from_pretrained(str(tmp_path), device="cpu"))


def test_a_model_of_a_server_is_refused(tmp_path):
    with serving(lambda request: said("<answer>[]</answer>")) as server:
        model = GenSegR1.from_pretrained("nano", server=server.url, device="cpu", served_model="served")
        assert isinstance(model.reasoner, ServerReasoner)
        for save in (lambda: model.save_pretrained(tmp_path / "saved"), lambda: model.push_to_hub(REPO)):
            with pytest.raises(CheckpointError, match="not in this process and cannot be saved: load the checkpoint"):
                save()
    assert not (tmp_path / "saved").exists()


def test_a_model_made_of_parts_is_refused(nano, tmp_path):
    model = GenSegR1(nano.reasoner, nano.segmenter, nano.dialect)
    with pytest.raises(CheckpointError, match="give GenSegR1 a checkpoint="):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_file_in_the_way_is_named(nano, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file: name a folder"):
        nano.save_pretrained(tmp_path / "file")


def test_a_model_is_pushed_and_loaded_by_its_name(hub, nano):
    pushed = nano.push_to_hub(REPO, commit_message="First words", revision="v1", private=True)
    repository = hub.repositories[REPO]
    assert repository.private
    assert (pushed.revision, pushed.commit) == ("v1", repository.refs["v1"])
    assert repository.titles[pushed.commit] == "First words"
    card = hub.content(REPO, "README.md", "v1").decode()
    assert "Started from `nano`." in card
    loaded = GenSegR1.from_pretrained(REPO, revision="v1", device="cpu")
    check_same(nano, loaded)
    assert weights(checkpoints.pull(REPO, "v1").reasoner).keys() == weights(NANO).keys()


@pytest.mark.parametrize(("name", "message"), [("nano", "is not a Hub id"), (REPO, "no token")])
def test_name_and_token_are_checked_before_anything_is_written(hub, nano, monkeypatch, name, message):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(GenSegR1, "save_pretrained", lambda *_: pytest.fail("written too early"))
    with pytest.raises(PublishError, match=message):
        nano.push_to_hub(name)
    assert hub.requests == []


def test_what_was_pushed_names_its_origin_when_it_is_saved_again(hub, nano, tmp_path):
    nano.push_to_hub(REPO)
    GenSegR1.from_pretrained(REPO, device="cpu").save_pretrained(tmp_path)
    assert json.loads(Path(tmp_path, "genseg.json").read_text())["base_model"] == REPO
