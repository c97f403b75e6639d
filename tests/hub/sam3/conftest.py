"""A tiny SAM 3 by words, in a folder and loaded."""

import pytest
from genseg_hub.segmenters.words import Words

from tests.helpers import sam3_words


@pytest.fixture(scope="session")
def sam3_folder(tmp_path_factory):
    """Return the folder of a `sam3` that finds something for `sam3_words.FOUND`."""
    return sam3_words.save(tmp_path_factory.mktemp("by-words") / "sam3")


@pytest.fixture(scope="session")
def words(sam3_folder) -> Words:
    return Words.load(sam3_folder, "cpu")
