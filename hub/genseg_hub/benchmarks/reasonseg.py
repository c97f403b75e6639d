"""ReasonSeg (LISA, arXiv 2308.00692; github.com/dvlab-research/LISA): a JSON file of polygons beside each image.

`text` lists the expressions of the image, of which val and test use the first alone. A shape labelled `flag` is no
region, one whose label holds `ignore` marks pixels that count neither way, any other is the target. Shapes are painted
the largest first, so that a small one stays visible in a large one, with OpenCV's outline and filling, as LISA's
`get_mask_from_json` does. An image without a target has a no-target expression.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np

from genseg_hub.benchmarks._benchmark import Benchmark, Entry, Problem, Unusable
from genseg_hub.benchmarks._coco import image_size
from genseg_hub.referring_dataset import RLE
from genseg_hub.schema import Rle, encode_mask

_IGNORED = 255


def _files(root: Path, split: str) -> list[Path]:
    folder = root / "ReasonSeg" / split
    return [folder, *sorted(folder.glob("*.json"))]


def _entries(root: Path, split: str) -> Iterator[Entry]:
    folder = root / "ReasonSeg" / split
    for image in sorted(folder.glob("*.jpg")):
        texts, problem, detail = [""], None, ""
        masks: tuple[Rle, ...] = ()
        attributes: dict[str, Any] = {"is_sentence": None, "ignore": []}
        try:
            annotation = _read(image.with_suffix(".json"))
            texts = annotation["text"] if split == "train" else annotation["text"][:1]
            width, height = image_size(image)
            painted = paint(annotation["shapes"], height, width)
            masks = (encode_mask(painted == 1),) if (painted == 1).any() else ()
            ignored = [encode_mask(painted == _IGNORED)] if (painted == _IGNORED).any() else []
            attributes = {"is_sentence": bool(annotation["is_sentence"]), "ignore": ignored}
        except Unusable as error:
            problem, detail = error.problem, str(error)
        for number, text in enumerate(texts):
            expression = str(text).strip()
            found: tuple[Problem | None, str] = problem, detail
            if not (expression or problem):
                found = Problem.EMPTY_EXPRESSION, f"text {number} of {image.with_suffix('.json')} is empty"
            yield Entry(expression, f"{image.stem}/{number}", image.stem, image, masks, attributes, *found)


def _read(file: Path) -> dict[str, Any]:
    try:
        raw = file.read_bytes()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("cp1252")
        annotation = json.loads(text)
        if not annotation["text"] or not isinstance(annotation["text"], list):
            raise ValueError("its text is no list of expressions")
        for shape in annotation["shapes"]:
            if np.asarray(shape["points"], dtype=np.float64).shape[1:] != (2,) or not isinstance(shape["label"], str):
                raise ValueError("a shape has no label and points [[x, y], ...]")
        annotation["is_sentence"]
    except FileNotFoundError:
        raise Unusable(Problem.MISSING_ANNOTATION, f"there is no file {file}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Unusable(Problem.UNREADABLE_MASK, f"{file}: {error!r}") from error
    return annotation


def paint(shapes: list[dict[str, Any]], height: int, width: int) -> np.ndarray:
    """uint8[H, W]: 1 the target, 255 what is ignored, 0 elsewhere.

    Args:
        shapes: with `label` and `points` [[x, y], ...] in pixels.
    """

    def drawn(canvas: np.ndarray, shape: dict[str, Any], value: int) -> np.ndarray:
        points: Any = np.array([shape["points"]], dtype=np.float64).clip(-1e6, 1e6).astype(np.int32)
        cv2.polylines(canvas, points, True, value, 1)
        cv2.fillPoly(canvas, points, value)
        return canvas

    regions = [shape for shape in shapes if shape["label"].lower() != "flag" and len(shape["points"])]
    areas = [int(drawn(np.zeros((height, width), np.uint8), shape, 1).sum()) for shape in regions]
    canvas = np.zeros((height, width), dtype=np.uint8)
    for i in np.argsort(areas)[::-1]:
        drawn(canvas, regions[i], _IGNORED if "ignore" in regions[i]["label"].lower() else 1)
    return canvas


BENCHMARKS = (
    Benchmark(
        name="reasonseg",
        archive="ReasonSeg/train, ReasonSeg/val and ReasonSeg/test of github.com/dvlab-research/LISA: images with JSON",
        policy="reasonseg",
        splits={"train": {"images": 239}, "val": {"images": 200}, "test": {"images": 779}},
        counts_source="README of github.com/dvlab-research/LISA",
        attributes=datasets.Features({"is_sentence": datasets.Value("bool"), "ignore": datasets.List(RLE)}),
        files=_files,
        entries=_entries,
    ),
)
