"""Datasets made of samples."""

import fiftyone as fo
import pytest
from PIL import Image

from fiftyone_genseg.asking import answering
from fiftyone_genseg.segmentation.engines import resident
from tests.helpers.squares import HEIGHT, WIDTH


@pytest.fixture
def make(tmp_path):
    """Return a function that makes datasets of samples, each with a grey image of its own."""
    made = []

    def build(*samples):
        dataset = fo.Dataset(f"eval-{tmp_path.name}-{len(made)}")
        paths = [tmp_path / f"{len(made)}-{number}.png" for number in range(len(samples))]
        for path in paths:
            Image.new("RGB", (WIDTH, HEIGHT), "gray").save(path)
        images = [fo.Sample(filepath=str(path), **fields) for path, fields in zip(paths, samples, strict=True)]
        dataset.add_samples(images, progress=False)
        dataset.add_dynamic_sample_fields()
        made.append(dataset)
        return dataset

    yield build
    for dataset in made:
        if not dataset.deleted:
            dataset.delete()


@pytest.fixture
def new_questions():
    """Forget the questions that ended a moment ago, and free their model at the end."""
    answering._ended.clear()
    yield
    resident.release()
