"""Measure how CPU time and memory of loading an archive grow with its expressions.

python benchmarks/archives.py --expressions 3000 30000 300000

Each size is an archive in RefCOCO's format, with 5 references per image and 3 sentences per reference. Two new
processes load it one after the other: the first reads the archive, the second finds it in the cache of `datasets`.
Needs Linux or macOS, because it reads the peak memory from `resource`.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

LOAD = """
import resource, sys, time
from pathlib import Path
from genseg_hub.archives import load_archive
begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
examples, report = load_archive("refcoco", Path(sys.argv[1]), "train")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(examples), round(time.process_time() - begun, 2), round((after - before) / 1024))
"""


def write(root: Path, expressions: int) -> None:
    """Write an archive in RefCOCO's format with about so many expressions."""
    images, annotations, refs = [], [], []
    folder = root / "images/mscoco/images/train2014"
    folder.mkdir(parents=True)
    (root / "refcoco").mkdir()
    picture = Image.new("RGB", (64, 48), "grey")
    for number in range(expressions // 15):
        name = f"COCO_train2014_{number:012d}.jpg"
        picture.save(folder / name)
        images.append({"id": number, "file_name": name, "width": 64, "height": 48})
        for k in range(5):
            i = 5 * number + k
            polygon = [k * 10 + 1, 4, k * 10 + 9, 4, k * 10 + 9, 40, k * 10 + 1, 38]
            annotations.append({"id": i, "image_id": number, "category_id": 1, "iscrowd": 0, "segmentation": [polygon]})
            sentences = [
                {"sent_id": 3 * i + j, "sent": f"the thing number {k} of picture {number}", "raw": ""} for j in range(3)
            ]
            refs.append(
                {
                    "ref_id": i,
                    "ann_id": i,
                    "image_id": number,
                    "category_id": 1,
                    "split": "train",
                    "sentences": sentences,
                }
            )
    tables = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (root / "refcoco/instances.json").write_text(json.dumps(tables))
    (root / "refcoco/refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))


def main() -> None:
    """Print a row of figures for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expressions", type=int, nargs="+", default=[3000, 30000, 300000])
    options = parser.parse_args()
    print(
        "| expressions | annotations, MB | first: seconds | MB | again: seconds | MB |\n|---:|---:|---:|---:|---:|---:|"
    )
    for expressions in options.expressions:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            write(root, expressions)
            size = sum(file.stat().st_size for file in (root / "refcoco").iterdir()) / 1e6
            environment = os.environ | {"HF_DATASETS_CACHE": f"{name}/cache"}
            cells = []
            for _ in range(2):
                done = subprocess.run(
                    [sys.executable, "-c", LOAD, name], env=environment, capture_output=True, text=True, check=True
                )
                count, *measured = done.stdout.split()
                cells += measured
            print(f"| {int(count):,} | {size:.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
