"""SAM 2 and SAM 3 of Transformers: models, processors, segmenters and their folders."""

import pytest
from genseg_hub.segmenters.transformers import TransformersSegmenter

from tests.helpers import sam2_in_transformers, sam3_tracker


@pytest.fixture(scope="session")
def sam2_parts(nano_sam2):
    """Return nano's trained SAM 2 as Transformers' model, and its processor."""
    return sam2_in_transformers.convert(nano_sam2), sam2_in_transformers.processor(nano_sam2.image_size)


@pytest.fixture(scope="session")
def sam3_parts():
    return sam3_tracker.model(), sam3_tracker.processor()


@pytest.fixture(scope="session")
def sam2(sam2_parts):
    return TransformersSegmenter(*sam2_parts)


@pytest.fixture(scope="session")
def sam3(sam3_parts):
    return TransformersSegmenter(*sam3_parts)


@pytest.fixture(scope="session")
def sam2_folder(nano_sam2, tmp_path_factory):
    return sam2_in_transformers.save(nano_sam2, tmp_path_factory.mktemp("sam2") / "nano")


@pytest.fixture(scope="session")
def sam3_folder(sam3_parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam3") / "tracker"
    for part in sam3_parts:
        part.save_pretrained(folder)
    return folder
