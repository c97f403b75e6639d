"""What the tests of importing, loading, exporting and predictions share."""

import datasets
import fiftyone as fo
import pytest
from genseg_hub import archives
from genseg_hub.referring_dataset import from_dataset

from fiftyone_genseg.datasets.importing import ReferringDatasetImporter
from tests.helpers import archive_files


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(fo.config, "default_dataset_dir", str(tmp_path / "fiftyone"))


@pytest.fixture
def name(tmp_path):
    yield tmp_path.name
    for made in fo.list_datasets(f"{tmp_path.name}*"):
        fo.delete_dataset(made)


@pytest.fixture
def photos(name, tmp_path):
    archive_files.grefcoco(tmp_path / "data")
    examples, _ = archives.load_archive("grefcoco", tmp_path / "data", "val")
    dataset = fo.Dataset.from_importer(ReferringDatasetImporter(examples, tmp_path / "images"), name=name)
    return dataset, list(from_dataset(examples))
