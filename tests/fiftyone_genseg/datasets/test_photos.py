"""48 expressions about 16 real photographs: everything runs and is stored. The quality is not nano's business."""

import fiftyone.operators as foo
import pytest

from fiftyone_genseg.datasets.photos import photos_dataset
from tests.conftest import PHOTOS


@pytest.fixture
def photos():
    dataset = photos_dataset("test-photos", PHOTOS)
    yield dataset
    dataset.delete()


def test_the_ground_truth_is_stored_beside(photos):
    assert len(photos) == 48
    assert len(photos.distinct("filepath")) == 16
    no_target = [sample for sample in photos if not sample["ground_truth"].detections]
    assert len(no_target) == sum("no-target" in sample["kind"] for sample in photos) > 0


def test_the_operator_runs_over_real_photographs(photos, plugin):
    foo.execute_operator("@fiftyone-genseg/genseg/referring_segment", {"dataset": photos}, params={})
    photos.reload()
    statuses = photos.count_values("genseg_responses.status")
    assert sum(statuses.values()) == 48
    assert "failed" not in statuses
    for sample in photos:
        assert sample["genseg_responses"][0].expression == sample["expression"]
