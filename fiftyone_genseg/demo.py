"""Demo: RefScenes or photographs, segmented, scored, drawn and opened."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
from genseg_hub import checkpoints, whole
from genseg_hub.options import HubOptions, pick
from genseg_hub.overlay import contact_sheet, draw_masks
from genseg_hub.schema import ReferringExample
from PIL import Image

from fiftyone_genseg import appearance, labels, plugin, uris
from fiftyone_genseg.datasets import importing
from fiftyone_genseg.datasets.photos import photos_dataset
from fiftyone_genseg.evaluation.run import evaluate
from fiftyone_genseg.fields import DESCRIPTIONS, EXPRESSION, RENDERED
from fiftyone_genseg.segmentation.request import OVERWRITE, SegmentRequest
from fiftyone_genseg.statuses import FAILED

DATASET, PHOTOS = "genseg-demo", "genseg-photos"
EVAL_KEY = "demo"
_VERSIONS = ("fiftyone-genseg", "fiftyone", "huggingface-hub", "transformers", "torch", "rf-sam-2")


def refscenes_dataset(name: str, folder: Path, scenes_count: int, split: str = "val") -> fo.Dataset:
    """Make a dataset of the first scenes of RefScenes; see `rendered_dataset`."""
    from genseg_training.nano import refscenes

    return rendered_dataset(name, folder, refscenes.refscenes(split, scenes_count * refscenes.EXPRESSIONS_PER_SCENE))


def rendered_dataset(name: str, folder: Path, examples: Iterable[ReferringExample]) -> fo.Dataset:
    """Make a persistent dataset with a sample for each rendered example.

    Args:
        name: name of the dataset; an existing dataset of this name is replaced.
        folder: folder for the images, as PNG files.
        examples: see `importing.to_sample` for the sample fields. Examples about one image follow each other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dataset = fo.Dataset(name, persistent=True, overwrite=True)
    dataset.info[RENDERED] = True
    dataset.save()
    samples: list[fo.Sample] = []
    for example in examples:
        path = folder.resolve() / f"{example.image_id}.png"
        if not samples or samples[-1].filepath != str(path):
            Image.fromarray(np.asarray(example.image)).save(path)
        samples.append(importing.to_sample(example, path))
    dataset.add_samples(samples, progress=False)
    appearance.describe(dataset, DESCRIPTIONS)
    return dataset


def score(dataset: fo.Dataset, field: str) -> dict:
    """Evaluate as the run `EVAL_KEY`; return the figures of all samples and by kind.

    Raises:
        ValueError: every expression failed.
    """
    responses = labels.responses_field(field)
    if set(dataset.count_values(f"{responses}.status")) == {FAILED}:
        ((error, count),) = Counter(dataset.count_values(f"{responses}.error")).most_common(1)
        raise ValueError(f"all {len(dataset)} expressions failed; {count} x {error}")
    results = evaluate(dataset, field, eval_key=EVAL_KEY, progress=False)
    kinds = np.array(dataset.values("kind"))
    return results.figures() | {
        "by": {"kind": {str(kind): results.figures(kinds == kind) for kind in np.unique(kinds)}}
    }


def draw_overview(dataset: fo.Dataset, field: str, path: Path, count: int = 12) -> None:
    """Draw samples of different images, each with its expression and masks.

    Args:
        dataset: has the fields `expression` and `image_id`.
        field: field of the masks that "Referring segment" wrote.
        path: PNG file to write.
        count: number of images.
    """
    panels = []
    ids = [group.first().id for group in dataset.group_by("image_id").iter_dynamic_groups()][:count]
    for sample in dataset.select(ids, ordered=True):
        with Image.open(sample.filepath) as image:
            masks = labels.instance_masks(sample[field], image.size)
            picture = draw_masks(image, masks)
        response = sample[labels.responses_field(field)][0]
        outcome = f"{len(masks)} mask{'s' if len(masks) != 1 else ''}" if masks else response.status.replace("_", "-")
        panels.append((picture, f"{sample['expression']}\n{outcome}"))
    with whole.written_file(path) as new:
        contact_sheet(panels).save(new, "PNG")


def run(out: Path, scenes_count: int, checkpoint: str, **options: Any) -> dict:
    """Make the dataset of RefScenes, segment and score it, and write the report.

    Args:
        out: folder for images, report.json and overview.png.
        scenes_count: number of scenes, with 4 expressions each.
        checkpoint: name of a checkpoint.
        **options: further fields of `SegmentRequest`, such as `device` and `server`.

    Returns:
        The contents of report.json.

    Raises:
        CheckpointError, ReasonerError, ValueError: the request cannot be run.
        DiskFullError: the disk is full.
    """
    make = partial(refscenes_dataset, DATASET, out / "images", scenes_count)
    request = _request(checkpoint=checkpoint, batch_size=32, **options)
    return _run(out, f"RefScenes val, first {scenes_count} scenes", make, request)


def run_on_photos(out: Path, checkpoint: str, **options: Any) -> dict:
    """Do the same as `run` with the example photographs.

    nano's masks on them mean nothing.
    """
    folder = plugin.source() / "examples" / "photos"
    request = _request(checkpoint=checkpoint, **options)
    return _run(out, "16 photographs of COCO 2017", partial(photos_dataset, PHOTOS, folder), request, pictures=16)


def _request(**options: Any) -> SegmentRequest:
    return SegmentRequest(expression_field=EXPRESSION, existing=OVERWRITE, **options)


def _run(
    out: Path, benchmark: str, make: Callable[[], fo.Dataset], request: SegmentRequest, pictures: int = 12
) -> dict:
    seconds: dict[str, float] = {}

    def timed(stage: str, function, *args, **options):
        started = time.monotonic()
        print(f"{stage} ...", flush=True)
        with whole.disk_full_in_words(f"the demo, whose files are in {out}, could not {stage}"):
            result = function(*args, **options)
        seconds[stage] = round(time.monotonic() - started, 2)
        return result

    if request.name is not None:
        timed(
            "get the checkpoint",
            checkpoints.pull,
            request.name,
            with_reasoner=request.server is None,
            dialect=request.model_options.get("dialect"),
            options=pick(HubOptions, request.model_options),
        )
    timed("link the plugin", plugin.install)
    dataset = timed("make the dataset", make)
    params = request.to_params() | {"raise_errors": True}
    timed("segment", foo.execute_operator, uris.SEGMENT, {"dataset": dataset}, params=params)
    dataset.reload()
    figures = timed("score", score, dataset, request.output_field)
    timed("draw", draw_overview, dataset, request.output_field, out / "overview.png", pictures)
    report = {
        "benchmark": benchmark,
        "model": request.name or dataset.distinct(f"{labels.responses_field(request.output_field)}.checkpoint")[0],
        **figures,
        "responses": dataset.count_values(f"{labels.responses_field(request.output_field)}.status"),
        "seconds": seconds,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _VERSIONS},
    }
    whole.write_text(out / "report.json", json.dumps(report, indent=2) + "\n")
    return report


def open_app(port: int, name: str = DATASET) -> None:
    """Open the App on a dataset of the demo, and stay until it is closed."""
    session = fo.launch_app(fo.load_dataset(name), port=port)
    print(f"The App is open at http://localhost:{port}: press ` and type Referring segment")
    session.wait(-1)
