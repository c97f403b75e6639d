"""Nano and unreadable answers in the App: a form and a result say what to do, and no run looks like a success."""

import json

import pytest

from fiftyone_genseg.datasets.photos import photos_dataset
from fiftyone_genseg.messages import NANO_IN_A_FORM
from tests.conftest import PHOTOS
from tests.fiftyone_genseg.operators.test_pull_checkpoint import SEGMENT, messages
from tests.fiftyone_genseg.operators.test_referring_segment import form
from tests.helpers.families import save_family


@pytest.fixture
def photos():
    """Two expressions about a photograph."""
    dataset = photos_dataset("test-about-nano", PHOTOS)
    dataset.delete_samples(dataset[2:])
    yield dataset
    dataset.delete()


def notified(dataset, **params) -> tuple[str, str]:
    (told,) = [params for name, params in messages(SEGMENT, dataset, device="cpu", **params) if name == "notify"]
    return told["variant"], told["message"]


def test_a_form_warns_of_nano_where_the_dataset_is_not_rendered(photos, dataset):
    shown = form(photos)
    assert next(iter(shown)) == "about_nano"
    assert NANO_IN_A_FORM in json.dumps(shown["about_nano"])
    assert "about_nano" not in form(photos, checkpoint="Qwen/Qwen3-VL-4B-Instruct")
    assert "about_nano" not in form(dataset)
    assert "about_nano" not in form(dataset.clone(f"{dataset.name}-clone"))


def test_where_another_checkpoint_is_the_default_nano_was_chosen(photos, monkeypatch):
    monkeypatch.setenv("GENSEG_CHECKPOINT", "me/mine")
    assert form(photos)["checkpoint"]["default"] == "me/mine"
    assert "about_nano" not in form(photos, checkpoint="nano")


def test_a_run_of_nano_on_a_photograph_is_no_success(photos, plugin):
    variant, message = notified(photos)
    assert variant == "warning"
    assert message.endswith(f". {NANO_IN_A_FORM}")


def test_a_run_whose_answers_cannot_be_read_is_no_success(dataset, plugin, tmp_path):
    folder = save_family(tmp_path / "qwen", "qwen3_vl")
    variant, message = notified(dataset, checkpoint=str(folder), expressions="all shapes")
    assert variant == "warning"
    assert "16 unparsable (16 x the answer" in message
    assert "More than half of the answers could not be read. Try another dialect" in message
    assert NANO_IN_A_FORM not in message


def test_a_run_that_went_well_is_a_success(dataset, plugin):
    dataset.delete_samples(dataset[2:])
    variant, message = notified(dataset, checkpoint="nano")
    assert variant == "success"
    assert "nano" not in message
