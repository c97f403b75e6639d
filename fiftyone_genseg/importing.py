"""Referring examples as a FiftyOne dataset, one sample per image and expression."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import datasets
import fiftyone as fo
import fiftyone.utils.data as foud
import numpy as np
from genseg_hub import predictions
from genseg_hub.images import load_image
from genseg_hub.referring_dataset import check_columns, from_dataset
from genseg_hub.schema import Failure, Prediction, ReferringExample

from fiftyone_genseg import labels, segmentation

_CHUNK = 100


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
        sample[labels.IGNORE] = labels.ground_truth([example.ignore], labels.IGNORE)
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
            return Path(example.image).absolute()  # a link may point to a name without a suffix
        image = load_image(example.image)
        name = hashlib.sha256(np.asarray(image).tobytes()).hexdigest()[:16]
        file = self._images.resolve() / f"{name}.png"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file)
        return file


def add_predictions(
    samples: fo.Dataset | fo.DatasetView, file: Path, field: str, checkpoint: str = ""
) -> Iterator[segmentation.Summary]:
    """Store predictions that were made elsewhere as "Referring segment" stores its own, for the same evaluation.

    Args:
        samples: with `example_id` and `expression`, as the importer makes them.
        file: see `genseg_hub.predictions.read`; a run of `genseg benchmark` has such a file. What it says of other
            examples is left out.
        field: of the masks; results of the same expressions are replaced.
        checkpoint: what is named as their origin; the file's name by default.

    Yields:
        The running summary, once at the start and then after every write.

    Raises:
        ValueError: fields that are missing or hold something else, a file that cannot be read or is about none of these
            samples, or a mask of another size than its image; before anything is written.
    """
    segmentation.check_view(samples)
    for name in ("example_id", "expression"):
        if not isinstance(samples.get_field(name), fo.StringField):
            raise ValueError(f"predictions are told apart by `example_id`, and the samples have no {name!r} of strings")
    labels.check_fields(samples, field)
    places = dict(zip(*samples.values(["example_id", "id"]), strict=True))
    known = {line["example_id"] for line in predictions.read(file)} & set(places)
    if not known:
        example = next(iter(places), None)
        raise ValueError(f"no prediction in {file} is about these samples; their example_id are like {example!r}")
    for sample_ids, chunk in _chunks(file, places):
        sizes = _sizes(samples, sample_ids)
        for example_id, result in chunk.items():
            size = sizes[places[example_id]]
            if isinstance(result, Prediction) and result.masks and result.image_size != size:
                raise ValueError(
                    f"the masks of {example_id!r} in {file} are of an image of {result.image_size} (width, height), "
                    f"the sample's is {size}"
                )
    labels.declare_fields(samples._dataset, field)
    summary = segmentation.Summary(total=len(known))
    yield summary
    for sample_ids, chunk in _chunks(file, places):
        by_sample = {places[example_id]: result for example_id, result in chunk.items()}
        for sample in samples._dataset.select(sample_ids).iter_samples(autosave=True):
            result, expression = by_sample[sample.id], sample["expression"]
            segmentation.store(sample, field, checkpoint or file.name, [expression], [result], summary)
        yield summary


def _chunks(file: Path, places: dict[str, str]) -> Iterator[tuple[list[str], dict[str, Prediction | Failure]]]:
    """(sample ids, example id -> prediction) of the predictions that are about samples."""
    chunk: dict[str, Prediction | Failure] = {}
    for line in predictions.read(file):
        if line["example_id"] in places:
            chunk[line["example_id"]] = predictions.from_line(line)
        if len(chunk) == _CHUNK:
            yield [places[example_id] for example_id in chunk], chunk
            chunk = {}
    if chunk:
        yield [places[example_id] for example_id in chunk], chunk


def _sizes(samples: fo.Dataset | fo.DatasetView, sample_ids: list[str]) -> dict[str, tuple[int, int]]:
    """Sample id -> (width, height), of the metadata or else of the file."""
    found = {}
    chosen = samples._dataset.select(sample_ids)
    for sample_id, file, width, height in zip(
        *chosen.values(["id", "filepath", "metadata.width", "metadata.height"]), strict=True
    ):
        if not width:
            metadata = fo.ImageMetadata.build_for(file)
            width, height = metadata.width, metadata.height
        found[sample_id] = (width, height)
    return found
