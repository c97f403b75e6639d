"""GenSeg-R1 as a fiftyone.Model."""

import fiftyone as fo
import numpy as np
import pytest

from fiftyone_genseg import labels
from fiftyone_genseg.model import ReferringSegmentationModel


@pytest.fixture(scope="module")
def model():
    return ReferringSegmentationModel("nano", device="cpu")


def test_apply_model_with_each_samples_expression(dataset, model, nano):
    dataset.apply_model(model, label_field="found", expression_field="expression", batch_size=5)
    for sample in dataset[:4]:
        expected = nano.segment(sample.filepath, sample["expression"])
        assert np.array_equal(labels.union_mask(sample["found"], expected.image_size), expected.mask)


def test_apply_model_with_one_expression_and_without_batches(dataset):
    model = ReferringSegmentationModel("nano", "all shapes", device="cpu")
    dataset[:3].apply_model(model, label_field="found")
    assert len(dataset.exists("found")) == 3
    assert set(dataset.distinct("found.detections.expression")) <= {"all shapes"}


def test_a_bad_sample_does_not_drop_its_batch(dataset, model):
    sample = dataset.first()
    sample["expression"] = ""
    sample.save()
    dataset[:4].apply_model(model, label_field="found", expression_field="expression", batch_size=4)
    assert len(dataset.exists("found")) == 3


def test_without_any_expression_the_error_says_what_to_pass(dataset, model):
    with pytest.raises(ValueError, match="expression_field="):
        dataset[:1].apply_model(model, label_field="found", skip_failures=False)


def test_it_is_a_fiftyone_model(model):
    assert isinstance(model, fo.Model)
    assert model.media_type == "image"
