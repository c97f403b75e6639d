"""Write RefScenes as small archives in the formats of RefCOCOg and gRefCOCO.

python examples/small_archives.py data/small
genseg-train data --overlap --root data/small
"""

from __future__ import annotations

import argparse
import json
import pickle
from pathlib import Path
from typing import Any

from genseg_training.nano import refscenes
from PIL import Image

# Last digit of an image's number -> its split. As with the real archives, one trains on images that the other scores.
REFCOCOG = ("val", "test", *["train"] * 8)
GREFCOCO = ("train", "train", "val", "testA", "testB", *["train"] * 5)


def write(root: Path, count: int) -> None:
    """Write both archives.

    Args:
        root: folder of the archives.
        count: expressions of gRefCOCO. RefCOCOg has only the expressions that refer to one instance.
    """
    folder = root / "images/mscoco/images/train2014"
    folder.mkdir(parents=True, exist_ok=True)
    images: dict[str, dict[str, Any]] = {}
    annotations: dict[tuple[str, str], dict[str, Any]] = {}
    refs: list[dict[str, Any]] = []
    for number, example in enumerate(refscenes.training_examples(count, seed=7), 1):
        if example.image_id not in images:
            identifier = len(images) + 1
            height, width = example.image.shape[:2]
            name = f"COCO_train2014_{identifier:012d}.png"
            images[example.image_id] = {"id": identifier, "file_name": name, "height": height, "width": width}
            Image.fromarray(example.image).save(folder / name)
        image = images[example.image_id]["id"]
        for rle in example.masks:
            known = {"id": len(annotations) + 1, "image_id": image, "category_id": 1, "iscrowd": 0, "segmentation": rle}
            annotations.setdefault((example.image_id, rle["counts"]), known)
        meant = [annotations[example.image_id, rle["counts"]]["id"] for rle in example.masks]
        sentence = {"sent_id": number, "sent": example.expression, "raw": example.expression}
        refs.append({"ref_id": number, "image_id": image, "ann_id": meant or [-1], "sentences": [sentence]})

    tables = {"images": [*images.values()], "annotations": [*annotations.values()]}
    tables["categories"] = [{"id": 1, "name": "shape"}]
    for archive in ("refcocog", "grefcoco"):
        (root / archive).mkdir(exist_ok=True)
        (root / archive / "instances.json").write_text(json.dumps(tables))
    generalized = [
        ref | {"split": GREFCOCO[ref["image_id"] % 10], "category_id": [1 if i > 0 else -1 for i in ref["ann_id"]]}
        for ref in refs
    ]
    (root / "grefcoco/grefs(unc).json").write_text(json.dumps(generalized))
    single = [
        ref | {"split": REFCOCOG[ref["image_id"] % 10], "ann_id": ref["ann_id"][0], "category_id": 1}
        for ref in refs
        if len(ref["ann_id"]) == 1 and ref["ann_id"] != [-1]
    ]
    (root / "refcocog/refs(umd).p").write_bytes(pickle.dumps(single, protocol=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of the archives")
    parser.add_argument("--count", type=int, default=240, help="how many expressions")
    arguments = parser.parse_args()
    write(arguments.root, arguments.count)
    print(f"wrote refcocog/ and grefcoco/ to {arguments.root}")
