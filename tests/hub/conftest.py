"""Fixtures of the tests of the model."""

import pytest
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.segmenters.sam2 import load_sam2


@pytest.fixture(scope="session")
def nano_sam2():
    """Load nano's SAM 2, a model of the sam2 package."""
    return load_sam2(EMBEDDED["nano"] / "segmenter")
