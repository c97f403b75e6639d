"""Referring examples as a FiftyOne dataset, one sample per image and expression."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import fiftyone as fo
import fiftyone.core.fields as fof
import fiftyone.utils.data as foud
import numpy as np
from genseg_hub.evaluation import prediction_files, predictions
from genseg_hub.image_files import swapped
from genseg_hub.images import image_size, load_image
from genseg_hub.referring_dataset import check_columns, from_dataset
from genseg_hub.schema import Failure, ImageLike, Prediction, ReferringExample, normalize_expression
from genseg_hub.whole import disk_full_in_words
from PIL import Image

from fiftyone_genseg import labels, outputs
from fiftyone_genseg.datasets import columns, unusable
from fiftyone_genseg.fields import DESCRIPTIONS, EXPRESSION, GROUND_TRUTH, check_view, every_image, flat
from fiftyone_genseg.segmentation.run import Target, write
from fiftyone_genseg.segmentation.summary import Summary
from fiftyone_genseg.sizes import size_of

_CHUNK = 100
_UNKNOWN = (0, 0)  # image size of a prediction that has no masks and does not state its size


def to_sample(example: ReferringExample, file: Path) -> fo.Sample:
    """Return a referring example as a sample, with a field for each attribute.

    The sample has the fields `expression` (normalized), `example_id`, `image_id` and `ground_truth`. The ground truth
    is Detections, empty for no-target, labelled with the attribute `category` if there is one. Pixels that count
    neither way become Detections in the field `ignore`.

    Args:
        example: attributes that are None get no field.
        file: the image.
    """
    sample = fo.Sample(
        filepath=str(file),
        expression=normalize_expression(_text(example.expression)),
        example_id=_text(example.example_id),
        image_id=_text(example.image_id),
        ground_truth=labels.ground_truth(example.masks or (), _label(example.attributes.get("category"))),
    )
    for name, value in example.attributes.items():
        if value is not None:
            sample[name] = value
    if example.ignore:
        sample[labels.IGNORE] = labels.ground_truth([example.ignore], labels.IGNORE)
    return sample


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _label(category: Any) -> str:
    return ", ".join(map(str, category)) if isinstance(category, list) else _text(category) or labels.LABEL


class ReferringDatasetImporter(foud.GenericSampleDatasetImporter):
    """Referring examples as samples (see `to_sample`).

    The importer leaves out examples that cannot be used, and counts them. It raises ValueError after the last example
    if more than half cannot be used. Columns become fields with the nearest name that a field can have (see `columns`).
    Columns whose values no field can hold are left out. A column `tags` of lists of strings becomes the tags of the
    samples.

    Args:
        examples: have `genseg_hub.referring_dataset.FEATURES`; other columns become fields.
        images: folder for the images that the examples hold as bytes. Images that are files stay where they are.
        max_samples: number of examples to read; None for all.

    Attributes:
        fields: column -> field, for each column beside `FEATURES`.
        left_out: columns whose values no field can hold.
        read: number of examples read so far.
        unusable: reason -> number of examples left out.

    Examples:
        >>> examples, _ = genseg_hub.archives.load_archive("refcocog", Path("data"), "val")
        >>> importer = ReferringDatasetImporter(examples, Path("images"))
        >>> dataset = fo.Dataset.from_importer(importer, name="refcocog-val")
        >>> print(importer.report)
    """

    def __init__(self, examples: datasets.Dataset, images: Path, max_samples: int | None = None):
        super().__init__(max_samples=max_samples)
        check_columns(examples)
        self.fields, self.left_out = columns.to_fields(examples.features)
        renamed = {column: field for column, field in self.fields.items() if column != field}
        self._examples = examples.remove_columns(self.left_out).rename_columns(renamed)
        self._images = images
        self._last: tuple[Any, Path, tuple[int, int]] | None = None
        iter(self)

    def __iter__(self) -> ReferringDatasetImporter:
        self.read = 0
        self.unusable = unusable.Unusable()
        self._samples = self._usable()
        return self

    def __len__(self) -> int:
        return min(len(self._examples), self.max_samples or len(self._examples))

    def __next__(self) -> fo.Sample:
        return next(self._samples)

    @property
    def has_dataset_info(self) -> bool:
        """Return False: there is no information about the dataset as a whole."""
        return False

    @property
    def has_sample_field_schema(self) -> bool:
        """Return True: see `get_sample_field_schema`."""
        return True

    def get_sample_field_schema(self) -> dict[str, fof.Field]:
        """Return the fields of the samples, also fields without any value."""
        schema: dict[str, fof.Field] = {
            name: fo.StringField(description=DESCRIPTIONS[name]) for name in (EXPRESSION, "example_id", "image_id")
        }
        for field in self.fields.values():
            schema[field] = columns.to_field(self._examples.features[field]) or _detections(labels.IGNORE)
        return schema | {GROUND_TRUTH: _detections(GROUND_TRUTH)}

    @property
    def report(self) -> str:
        """Return sentences about left-out and renamed values; "" for none."""
        said = [self.unusable.report(self.read)]
        said += [
            f"The column {column!r} is the field {field!r}." for column, field in self.fields.items() if column != field
        ]
        said += [f"The column {column!r} was left out: no field holds its values." for column in self.left_out]
        return " ".join(filter(None, said))

    def _usable(self) -> Iterator[fo.Sample]:
        examples: Iterator[ReferringExample] | None = None
        while self.read < len(self):
            if examples is None:  # a generator that raised has ended: a new one reads the rest
                examples = from_dataset(self._examples.select(range(self.read, len(self))))
            self.read += 1
            try:
                example = next(examples)
            except Exception as error:  # noqa: BLE001 - one bad row is no reason to stop
                examples = None
                self._leave_out(unusable.IMAGE if isinstance(error, OSError) else unusable.ROW, error)
                continue
            why = unusable.ROW
            try:
                if not normalize_expression(_text(example.expression)):
                    raise ValueError("it has no expression")
                why = unusable.IMAGE
                file, size = self._find(example.image)
                why = unusable.MASK
                sample = self._sample(example, file, size)
            except OSError:  # the disk that receives the images
                raise
            except Exception as error:  # noqa: BLE001
                self._leave_out(why, error)
            else:
                yield sample
        self.unusable.check(self.read)

    def _leave_out(self, why: str, error: Exception) -> None:
        self.unusable.note(why, f"number {self.read}, {error}")

    def _sample(self, example: ReferringExample, file: Path, size: tuple[int, int]) -> fo.Sample:
        for rle in (*(example.masks or ()), *([example.ignore] if example.ignore else ())):
            if tuple(rle["size"]) != size[::-1]:
                its = rle["size"][::-1]
                raise ValueError(
                    f"a mask is of {its} pixels, its image of {size} (width, height){swapped(size, tuple(its))}"
                )
        features = self._examples.features
        values = {name: columns.to_value(features[name], value) for name, value in example.attributes.items()}
        sample = to_sample(replace(example, attributes=values), file)
        if example.masks and not sample.ground_truth.detections:
            raise ValueError("its masks are empty; for no-target give no mask at all")
        return sample

    def _find(self, image: ImageLike) -> tuple[Path, tuple[int, int]]:
        """Return the file and the (width, height) of an image.

        Neighbours that share an image share the work.
        """
        if self._last is None or image != self._last[0]:
            if isinstance(image, str | Path):
                file = Path(image).absolute()  # a link may point to a name without a suffix
                self._last = image, file, image_size(file)
            else:
                opened = load_image(image)
                self._last = image, self._store(opened), opened.size
        return self._last[1:]

    def _store(self, image: Image.Image) -> Path:
        name = hashlib.sha256(f"{image.size}".encode() + np.asarray(image).tobytes()).hexdigest()[:16]
        file = self._images.resolve() / f"{name}.png"
        if not file.is_file():
            unfinished = file.with_suffix(f".{os.getpid()}")
            with disk_full_in_words(f"the images in {file.parent} are incomplete"):
                file.parent.mkdir(parents=True, exist_ok=True)
                try:
                    image.save(unfinished, "PNG")
                    unfinished.rename(file)
                except BaseException:
                    unfinished.unlink(missing_ok=True)
                    raise
        return file


def _detections(name: str) -> fof.Field:
    return fo.EmbeddedDocumentField(fo.Detections, description=DESCRIPTIONS[name])


def add_predictions(
    samples: fo.Dataset | fo.DatasetView, file: Path, field: str, checkpoint: str = ""
) -> Iterator[Summary]:
    """Store predictions of another system as "Referring segment" stores its own.

    Args:
        samples: have `example_id` and `expression`, as the importer makes them.
        file: see `genseg_hub.evaluation.prediction_files.read`; a run of `genseg benchmark` writes such a file.
            Predictions about other examples are left out.
        field: field of the masks. Results of the same expressions are replaced.
        checkpoint: name stored as the origin of the predictions; the file's name by default.

    Yields:
        The running summary, once at the start and then after every write.

    Raises:
        ValueError: before anything is written. The field is missing or holds something else. The file cannot be read,
            or is about none of the samples. Several samples share an `example_id`, or a prediction is for an image of
            another size.
    """
    check_view(samples)
    samples = flat(samples)
    for name in ("example_id", "expression"):
        if not isinstance(samples.get_field(name), fo.StringField):
            raise ValueError(
                f"predictions are told apart by `example_id`, and the samples have no {name!r} of strings: load them "
                "with the operator Load referring dataset"
            )
    outputs.check_fields(samples, field)
    example_ids, sample_ids = samples.values(["example_id", "id"])
    places = dict(zip(example_ids, sample_ids, strict=True))
    images = samples.values("image_id") if samples.get_field("image_id") is not None else [None] * len(example_ids)
    expressions = [expression or "" for expression in samples.values("expression")]
    known = dict(zip(example_ids, zip(example_ids, images, expressions, strict=True), strict=True))
    last = {}  # a run that asked again has several lines about an example: the last one counts
    for number, line in enumerate(prediction_files.read(file)):
        example_id = line["example_id"]
        if example_id in known and predictions.is_about(predictions.asked(line), *known[example_id]):
            last[example_id] = number
    if not last:
        example = next(iter(places), None)
        raise ValueError(f"no prediction in {file} is about these samples; their `example_id`s are like {example!r}")
    several = [example_id for example_id, count in Counter(example_ids).items() if count > 1 and example_id in last]
    if several:
        raise ValueError(
            f"{len(several)} predictions in {file} could be about several samples each, the first has the example_id "
            f"{several[0]!r}: choose a view in which no two samples have the same example_id"
        )
    for chunk in _chunks(file, last):
        sizes = _sizes(samples, [places[example_id] for example_id in chunk])
        for example_id, result in chunk.items():
            size = sizes.get(places[example_id])
            if size and isinstance(result, Prediction) and result.image_size not in (size, _UNKNOWN):
                raise ValueError(
                    f"the prediction of {example_id!r} in {file} is for an image of {result.image_size} (width, "
                    f"height), the sample's is {size}{swapped(size, result.image_size)}; predict on the same images"
                )
    outputs.declare_fields(samples._dataset, field)
    target = Target(field, checkpoint or file.name)
    summary = Summary(total=len(last))
    yield summary
    for chunk in _chunks(file, last):
        results = {places[i]: [(normalize_expression(known[i][2]), result)] for i, result in chunk.items()}
        write(samples._dataset, results, target, summary)
        yield summary


def _chunks(file: Path, numbers: dict[str, int]) -> Iterator[dict[str, Prediction | Failure]]:
    """Yield example id -> prediction, in chunks, for the lines with these numbers."""
    chunk: dict[str, Prediction | Failure] = {}
    for number, line in enumerate(prediction_files.read(file)):
        if numbers.get(line["example_id"]) == number:
            chunk[line["example_id"]] = predictions.from_line(line)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = {}
    if chunk:
        yield chunk


def _sizes(samples: fo.Dataset | fo.DatasetView, sample_ids: list[str]) -> dict[str, tuple[int, int]]:
    """Return sample id -> (width, height) of the images whose size is known."""
    found = {}
    chosen = every_image(samples._dataset).select(sample_ids)
    for sample_id, file, width, height in zip(
        *chosen.values(["id", "filepath", "metadata.width", "metadata.height"]), strict=True
    ):
        if size := size_of(file, width, height):
            found[sample_id] = size
    return found
