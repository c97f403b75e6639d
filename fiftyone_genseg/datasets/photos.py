"""The example photographs (COCO 2017, CC BY) as a FiftyOne dataset."""

from __future__ import annotations

import json
from pathlib import Path

import fiftyone as fo
import numpy as np
from genseg_hub.schema import encode_mask
from PIL import Image

from fiftyone_genseg import appearance, labels
from fiftyone_genseg.fields import DESCRIPTIONS


def photos_dataset(name: str, folder: Path) -> fo.Dataset:
    """Load `examples/photos` as a persistent dataset.

    Samples have the fields `expression`, `kind`, `image_id` and `ground_truth`. The ground truth is Detections with
    the COCO category as label, empty for no-target.

    Args:
        name: name of the dataset; an existing dataset of this name is replaced.
        folder: holds annotations.json, images/ and panoptic/.
    """
    annotations = json.loads((folder / "annotations.json").read_text())
    categories = {segment["segment_id"]: segment["category"] for segment in annotations["segments"]}
    files = {image["id"]: image["file_name"] for image in annotations["images"]}
    dataset = fo.Dataset(name, persistent=True, overwrite=True)
    samples = []
    for ref in annotations["refs"]:
        file = files[ref["image_id"]]
        with Image.open(folder / "panoptic" / Path(file).with_suffix(".png")) as picture:
            segments = np.asarray(picture.convert("RGB")).astype(np.int64) @ (1, 256, 65536)
        found = []
        for segment in ref["segment_ids"]:
            found += labels.ground_truth([encode_mask(segments == segment)], categories[segment]).detections
        samples.append(
            fo.Sample(
                filepath=str((folder / "images" / file).resolve()),
                image_id=str(ref["image_id"]),
                expression=ref["expression"],
                kind=ref["kind"],
                ground_truth=fo.Detections(detections=found),
            )
        )
    dataset.add_samples(samples, progress=False)
    appearance.describe(dataset, DESCRIPTIONS)
    return dataset
