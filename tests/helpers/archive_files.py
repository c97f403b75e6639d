"""Write small archives in the official formats, made of the example photographs."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from genseg_hub.schema import encode_mask
from PIL import Image

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


def photos() -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return COCO's `images` and `annotations` (compressed RLE) of the photographs, and their expressions.

    An annotation has the id of its panoptic segment. An expression has `image_id`, `expression` and `segment_ids`.
    """
    return copy.deepcopy(_photos())


@cache
def _photos() -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    listed = json.loads((PHOTOS / "annotations.json").read_text())
    images, annotations = [], []
    for image in listed["images"]:
        with Image.open(PHOTOS / "panoptic" / Path(image["file_name"]).with_suffix(".png")) as picture:
            segments = np.asarray(picture.convert("RGB")).astype(np.int64) @ (1, 256, 65536)
        height, width = segments.shape
        images.append({"id": image["id"], "file_name": image["file_name"], "height": height, "width": width})
        for segment in listed["segments"]:
            if segment["image_id"] == image["id"]:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "segment": segment["segment_id"],
                        "image_id": image["id"],
                        "category_id": 1,
                        "iscrowd": 0,
                        "segmentation": encode_mask(segments == segment["segment_id"]),
                    }
                )
    return images, annotations, listed["refs"]


def as_refs(annotations: list[dict[str, Any]], refs: list[dict[str, Any]], split: str = "val") -> list[dict[str, Any]]:
    """Return references in gRefCOCO's form, one per expression."""
    ids = {(a["image_id"], a["segment"]): a["id"] for a in annotations}
    return [
        {
            "ref_id": number,
            "image_id": ref["image_id"],
            "file_name": f"COCO_train2014_{ref['image_id']:012d}_{number}.jpg",
            "ann_id": [ids[ref["image_id"], segment] for segment in ref["segment_ids"]] or [-1],
            "category_id": [1] * len(ref["segment_ids"]) or [-1],
            "no_target": not ref["segment_ids"],
            "split": split,
            "sent_ids": [2 * number, 2 * number + 1],
            "sentences": [
                {"tokens": text.split(), "raw": text.upper(), "sent_id": 2 * number + i, "sent": text}
                for i, text in enumerate((ref["expression"], f"{ref['expression']} please"))
            ],
        }
        for number, ref in enumerate(refs)
    ]


def write_images(root: Path) -> None:
    """Copy the photographs to the place of COCO train2014 in REFER's layout."""
    shutil.copytree(PHOTOS / "images", root / "images/mscoco/images/train2014")


def write_instances(file: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    categories = [{"id": 1, "name": "thing", "supercategory": "thing"}]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def refcocog(root: Path) -> int:
    """Write the contents of `refcocog.zip`, val and one reference of test; return val's number of expressions."""
    images, annotations, refs = photos()
    write_images(root)
    write_instances(root / "refcocog/instances.json", images, annotations)
    single = [ref | {"ann_id": ref["ann_id"][0], "category_id": 1} for ref in as_refs(annotations, refs)]
    single = [ref for ref in single if ref["ann_id"] != -1]
    other = single[0] | {"split": "test", "ref_id": 10_000, "sentences": [{"sent_id": 10_000, "sent": "x", "raw": "x"}]}
    (root / "refcocog/refs(umd).p").write_bytes(pickle.dumps([*single, other], protocol=2))
    return 2 * len(single)


def grefcoco(root: Path) -> int:
    """Write the two files of gRefCOCO; return val's number of expressions."""
    images, annotations, refs = photos()
    write_images(root)
    write_instances(root / "grefcoco/instances.json", images, annotations)
    (root / "grefcoco/grefs(unc).json").write_text(json.dumps(as_refs(annotations, refs)))
    return 2 * len(refs)


def divided(root: Path, held_out: int = 2) -> set[str]:
    """Write RefCOCOg and gRefCOCO of the same images, the first of which are in val and the others in train.

    Args:
        root: empty folder.
        held_out: number of images in val.

    Returns:
        The ids of val's images.
    """
    refcocog(root)
    images, annotations, refs = photos()
    first = {image["id"] for image in sorted(images, key=lambda image: image["id"])[:held_out]}

    def split(ref: dict[str, Any]) -> dict[str, Any]:
        return ref | {"split": "val" if ref["image_id"] in first else "train"}

    listed = list(map(split, as_refs(annotations, refs)))
    write_instances(root / "grefcoco/instances.json", images, annotations)
    (root / "grefcoco/grefs(unc).json").write_text(json.dumps(listed))
    single = [r | {"ann_id": r["ann_id"][0], "category_id": 1} for r in listed if r["ann_id"] != [-1]]
    (root / "refcocog/refs(umd).p").write_bytes(pickle.dumps(single, protocol=2))
    return set(map(str, first))


def reasonseg(root: Path) -> None:
    """Write two images of ReasonSeg val: one with two targets and an ignored part, and one without a target.

    The first file is in cp1252, as some files of LISA are.
    """
    folder = root / "ReasonSeg/val"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (40, 30)).save(folder / f"{name}.jpg")

    def square(label: str, x: int, y: int, side: int) -> dict[str, Any]:
        corners = [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]
        return {"label": label, "labels": [label], "shape_type": "polygon", "points": corners, "flags": {}}

    shapes = [square("ignore", 12, 12, 3), square("target", 5, 5, 20), square("flag", 0, 0, 4)]
    shapes.append(square("Target", 30, 5, 4))
    annotation = {"shapes": shapes, "text": ["the thing that opens a café", "another"], "is_sentence": True}
    (folder / "a.json").write_bytes(json.dumps(annotation, ensure_ascii=False).encode("cp1252"))
    (folder / "b.json").write_text(json.dumps({"shapes": [], "text": ["nothing"], "is_sentence": False}))


def coco(root: Path) -> int:
    """Write a user's own folder; return its number of expressions."""
    images, annotations, refs = photos()
    shutil.copytree(PHOTOS / "images", root / "images")
    write_instances(root / "instances.json", images, annotations)
    names = {image["id"]: image["file_name"] for image in images}
    listed = as_refs(annotations, refs)
    with (root / "expressions.csv").open("w", encoding="utf-8") as stream:
        stream.write("image,expression,annotations\n")
        for ref in listed:
            ids = " ".join(str(i) for i in ref["ann_id"] if i != -1)
            stream.write(f'{names[ref["image_id"]]},"{ref["sentences"][0]["sent"]}",{ids}\n')
    return len(listed)
