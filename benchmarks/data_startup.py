"""Measure a training run's start, from an official archive to the rows of TRL.

python benchmarks/data_startup.py --expressions 80000

The script writes an archive in RefCOCOg's or gRefCOCO's format, with as many references, images and annotations for its
expressions as RefCOCOg has. Its images are 640 x 480 pixels of one colour, so the archive is small. Two new processes
prepare the training rows and 400 held-out expressions one after the other. The first process reads the archive, the
second process finds the rows in the cache of `datasets`. Imports are not counted. Needs Linux or macOS, because it
reads the peak memory from `resource`.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

WIDTH, HEIGHT = 640, 480
PER_REFERENCE, REFERENCES_PER_IMAGE, ANNOTATIONS_PER_IMAGE, CORNERS = 1.9, 2, 8, 30
HELD_OUT = 0.06  # share of the images in the split val
WORDS = (
    "man",
    "woman",
    "left",
    "red",
    "chair",
    "behind",
    "the",
    "standing",
    "near",
    "with",
    "a",
    "blue",
    "table",
    "on",
)
START = """
import resource, sys, time
from pathlib import Path
from genseg_training import data
scale = 1024 if sys.platform == "linux" else 1024 * 1024
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
wall, cpu = time.perf_counter(), time.process_time()
name, root = sys.argv[1:]
request = data.Request([name + ":train"], root=root, held_out=name + ":val:400", exclude=[name + ":val"])
loaded = data.load(request, seed=1)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
print(loaded.report, file=sys.stderr)
print(len(loaded.rows), round(wall, 1), round(cpu, 1), round(before), round(peak))
"""


def write(root: Path, expressions: int, name: str) -> None:
    """Write an archive in an official format.

    Args:
        root: empty folder.
        expressions: expressions of the split train.
        name: refcocog or grefcoco.
    """
    rng = random.Random(0)
    folder = root / "images/mscoco/images/train2014"
    folder.mkdir(parents=True)
    buffer = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), "grey").save(buffer, "JPEG", quality=10)
    images, annotations, refs, written = [], [], [], 0
    while written < expressions:
        number = len(images) + 1
        split = "val" if rng.random() < HELD_OUT else "train"
        file = f"COCO_train2014_{number:012d}.jpg"
        (folder / file).write_bytes(buffer.getvalue())
        images.append(
            {"id": number, "file_name": file, "width": WIDTH, "height": HEIGHT, "license": 1, "flickr_url": ""}
        )
        its = list(_annotations(rng, number, len(annotations) + 1))
        annotations += its
        for k in range(REFERENCES_PER_IMAGE):
            sentences = list(_sentences(rng, 2 * len(refs)))
            written += len(sentences) if split == "train" else 0
            refs.append(_reference(rng, name, len(refs), number, file, split, its, k, sentences))
    (root / name).mkdir()
    tables = {"info": {}, "images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (root / name / "instances.json").write_text(json.dumps(tables))
    if name == "grefcoco":
        (root / name / "grefs(unc).json").write_text(json.dumps(refs))
    else:
        (root / name / "refs(umd).p").write_bytes(pickle.dumps(refs, protocol=2))


def _annotations(rng: random.Random, image: int, first: int) -> Iterator[dict[str, Any]]:
    for number in range(first, first + ANNOTATIONS_PER_IMAGE):
        radius = rng.uniform(20, 120)
        x, y = rng.uniform(radius, WIDTH - radius), rng.uniform(radius, HEIGHT - radius)
        polygon = []
        for corner in range(CORNERS):
            angle, distance = 2 * math.pi * corner / CORNERS, radius * rng.uniform(0.6, 1)
            polygon += [round(x + distance * math.cos(angle), 2), round(y + distance * math.sin(angle), 2)]
        yield {
            "id": number,
            "image_id": image,
            "category_id": 1,
            "iscrowd": 0,
            "area": radius**2,
            "bbox": [x - radius, y - radius, 2 * radius, 2 * radius],
            "segmentation": [polygon],
        }


def _sentences(rng: random.Random, first: int) -> Iterator[dict[str, Any]]:
    count = 2 if rng.random() < PER_REFERENCE - 1 else 1
    for number in range(first, first + count):
        tokens = rng.choices(WORDS, k=rng.randint(3, 13))
        text = " ".join(tokens)
        yield {"tokens": tokens, "raw": text.capitalize() + ".", "sent_id": number, "sent": text}


def _reference(
    rng: random.Random, name: str, number: int, image: int, file: str, split: str, its: list, k: int, sentences: list
) -> dict[str, Any]:
    """Return a reference as RefCOCOg or gRefCOCO writes it.

    A fifth of gRefCOCO's references refer to nothing, and another fifth refer to two instances.
    """
    annotated = its[k]["id"]
    drawn = rng.random() if name == "grefcoco" else 1.0
    several = [-1] if drawn < 0.2 else [annotated, its[k + 2]["id"]] if drawn < 0.4 else [annotated]
    generalized = {"no_target": several == [-1], "category_id": [-1] if several == [-1] else [1] * len(several)}
    return {
        "ref_id": number,
        "ann_id": several if name == "grefcoco" else annotated,
        "image_id": image,
        "category_id": 1,
        "file_name": file.replace(".jpg", f"_{annotated}.jpg"),
        "split": split,
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "sentences": sentences,
    } | (generalized if name == "grefcoco" else {})


def main() -> None:
    """Write the archive, start twice and print a row of figures for each start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expressions", type=int, default=80_000)
    parser.add_argument("--format", choices=("refcocog", "grefcoco"), default="refcocog")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # A process of its own, because the peak memory of this one would be inherited by the measured ones.
        writer = multiprocessing.get_context("spawn").Process(
            target=write, args=(Path(folder), options.expressions, options.format)
        )
        writer.start()
        writer.join()
        size = sum(file.stat().st_size for file in Path(folder, options.format).iterdir()) / 1e6
        print(f"{options.format}: {size:.0f} MB of annotations and references\n")
        print("| start | expressions | wall, s | CPU, s | MB before | peak MB |\n|---|---:|---:|---:|---:|---:|")
        environment = os.environ | {"HF_DATASETS_CACHE": f"{folder}/cache", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        for start in ("first", "second"):
            done = subprocess.run(
                [sys.executable, "-c", START, options.format, folder],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            print(f"| {start} | {' | '.join(done.stdout.split())} |", flush=True)


if __name__ == "__main__":
    main()
