"""Write RefScenes in the form of your own data, for `genseg benchmark coco`.

python examples/own_benchmark.py data/scenes
genseg benchmark coco --split data --root data/scenes
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

from genseg_training.nano import refscenes
from PIL import Image


def write(folder: Path, count: int) -> None:
    """Write `images/`, `instances.json` and `expressions.csv`.

    `instances.json` has an annotation per mask, and `expressions.csv` names them.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: dict[str, dict] = {}
    annotations: dict[tuple[str, str], dict] = {}
    with (folder / "expressions.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["image", "expression", "annotations", "kind"])
        for example in refscenes.refscenes("val", count):
            name = f"{example.image_id}.png"
            if name not in images:
                height, width = example.image.shape[:2]
                images[name] = {"id": len(images) + 1, "file_name": name, "height": height, "width": width}
                Image.fromarray(example.image).save(folder / "images" / name)
            for rle in example.masks:
                annotations.setdefault(
                    (name, rle["counts"]),
                    {
                        "id": len(annotations) + 1,
                        "image_id": images[name]["id"],
                        "category_id": 1,
                        "iscrowd": 0,
                        "segmentation": rle,
                    },
                )
            referred = " ".join(str(annotations[name, rle["counts"]]["id"]) for rle in example.masks)
            table.writerow([name, example.expression, referred, example.attributes["kind"]])
    coco = {"images": [*images.values()], "annotations": [*annotations.values()]}
    coco["categories"] = [{"id": 1, "name": "shape"}]
    (folder / "instances.json").write_text(json.dumps(coco))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for the data")
    parser.add_argument("--count", type=int, default=200, help="how many expressions")
    arguments = parser.parse_args()
    write(arguments.folder, arguments.count)
    print(f"wrote {arguments.count} expressions to {arguments.folder}")
