"""Referring examples as a FiftyOne dataset, one sample per image and expression."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import datasets
import fiftyone as fo
import fiftyone.utils.data as foud
import numpy as np
from genseg_hub.images import load_image
from genseg_hub.referring_dataset import check_columns, from_dataset
from genseg_hub.schema import ReferringExample

from fiftyone_genseg import labels

IGNORE = "ignore"


def to_sample(example: ReferringExample, file: Path) -> fo.Sample:
    """A sample with `expression`, `example_id`, `image_id`, `ground_truth` and a field for each attribute.

    `ground_truth` are Detections, empty for no-target, labelled with the attribute `category` where there is one. Where
    pixels count neither way, `ignore` has them, as Detections.
    """
    label = example.attributes.get("category") or labels.LABEL
    sample = fo.Sample(
        filepath=str(file),
        expression=example.expression,
        example_id=example.example_id,
        image_id=example.image_id,
        ground_truth=labels.ground_truth(example.masks or (), label),
        **{name: value for name, value in example.attributes.items() if value is not None},
    )
    if example.ignore:
        sample[IGNORE] = labels.ground_truth([example.ignore], IGNORE)
    return sample


class ReferringDatasetImporter(foud.GenericSampleDatasetImporter):
    """Referring examples as samples (see `to_sample`).

    Args:
        examples: with `genseg_hub.referring_dataset.FEATURES`; other columns become fields.
        images: folder for images that are stored in the examples; those that are files stay where they are.
        max_samples: only the first ones.

    Example:
        >>> examples, _ = genseg_hub.benchmarks.load("refcocog", Path("data"), "val")
        >>> dataset = fo.Dataset.from_importer(ReferringDatasetImporter(examples, Path("images")), name="refcocog-val")
    """

    def __init__(self, examples: datasets.Dataset, images: Path, max_samples: int | None = None):
        super().__init__(max_samples=max_samples)
        check_columns(examples)
        self._examples, self._images = examples, images
        self._stream: Iterator[ReferringExample] = iter(())

    def __len__(self) -> int:
        return min(len(self._examples), self.max_samples or len(self._examples))

    def __iter__(self) -> ReferringDatasetImporter:
        self._stream = from_dataset(self._examples.select(range(len(self))))
        return self

    def __next__(self) -> fo.Sample:
        example = next(self._stream)
        return to_sample(example, self._file(example))

    @property
    def has_dataset_info(self) -> bool:
        return False

    @property
    def has_sample_field_schema(self) -> bool:
        return False

    def _file(self, example: ReferringExample) -> Path:
        if isinstance(example.image, str | Path):
            return Path(example.image).resolve()
        image = load_image(example.image)
        name = hashlib.sha256(np.asarray(image).tobytes()).hexdigest()[:16]
        file = self._images.resolve() / f"{name}.png"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file)
        return file
