"""Read ReasonSeg: a JSON file of polygons beside each image.

Paper: LISA, arXiv 2308.00692. Archive: github.com/dvlab-research/LISA. `text` lists the expressions of the image; val
and test use only the first. A shape labelled `flag` is no region. A shape whose label contains `ignore` marks pixels
that no metric counts. Every other shape is the target. As in LISA's `get_mask_from_json`, OpenCV paints the outline and
the filling of each shape. The largest shape is first, so that a small shape stays visible in it. An image without a
target has a no-target expression.

A shape is a polygon, or by its `shape_type` a rectangle or a circle, as LabelMe writes them. ReasonSeg itself has
polygons only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np

from genseg_hub.archives.base import Benchmark, Entry, Problem, Unusable
from genseg_hub.archives.coco_instances import image_size
from genseg_hub.archives.records import as_records, as_text, malformed, read_json, text_of
from genseg_hub.errors import ArchiveError
from genseg_hub.referring_dataset import RLE
from genseg_hub.schema import Rle, encode_mask

_IGNORED = 255
_POLYGON, _RECTANGLE, _CIRCLE = _SHAPES = ("polygon", "rectangle", "circle")
_IMAGES = (".jpg", ".jpeg", ".png")


def _files(root: Path, split: str) -> list[Path]:
    return [root / "ReasonSeg" / split]


def _entries(root: Path, split: str) -> Iterator[Entry]:
    (folder,) = _files(root, split)
    for name, images in sorted(_by_name(folder).items()):
        file = folder / f"{name}.json"
        texts: list[Any] = [""]
        masks: tuple[Rle, ...] = ()
        attributes: dict[str, Any] = {"is_sentence": None, "ignore": []}
        unusable: Unusable | None = None
        try:
            annotation = _read(file)
            texts = annotation["text"] if split == "train" else annotation["text"][:1]
            if not images:
                raise Unusable(Problem.MISSING_IMAGE, f"there is no image beside {file}")
            if len(images) > 1:
                raise Unusable(
                    Problem.DUPLICATE_ID, f"{file} belongs to {' and '.join(image.name for image in images)}"
                )
            width, height = image_size(images[0])
            painted = paint(annotation["shapes"], height, width)
            masks = (encode_mask(painted == 1),) if (painted == 1).any() else ()
            ignored = [encode_mask(painted == _IGNORED)] if (painted == _IGNORED).any() else []
            is_sentence = annotation.get("is_sentence")
            attributes = {"is_sentence": is_sentence if isinstance(is_sentence, bool) else None, "ignore": ignored}
        except Unusable as error:
            unusable = error
        for i, text in enumerate(texts):
            yield Entry(
                expression=as_text(text) or "",
                example_id=f"{name}/{i}",
                image_id=name,
                image=None if unusable else images[0],
                masks=masks,
                attributes=attributes,
                unusable=unusable or _wrong_text(text, f"text {i} of {file}"),
            )


def _by_name(folder: Path) -> dict[str, list[Path]]:
    """Return the images of each name without suffix, of all images and annotations."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        is_image = file.suffix.lower() in _IMAGES
        # LISA's glob skips hidden files, such as the files that macOS adds to archives
        if (is_image or file.suffix == ".json") and not file.name.startswith(".") and file.is_file():
            if as_text(file.name) is None:
                raise ArchiveError(f"the name of {str(file)!a} is not in UTF-8; give it another")
            found.setdefault(file.stem, []).extend([file] if is_image else [])
    return found


def _wrong_text(text: Any, what: str) -> Unusable | None:
    if as_text(text) is None:
        return Unusable(Problem.MALFORMED_RECORD, f"{what} is a {type(text).__name__}; expected text")
    return None if as_text(text) else Unusable(Problem.EMPTY_EXPRESSION, f"{what} is empty")


def _read(file: Path) -> dict[str, Any]:
    """Return an annotation with a list `text` and `shapes` for `paint`.

    Raise Unusable if the annotation is malformed.
    """
    if not file.is_file():
        raise Unusable(Problem.MISSING_ANNOTATION, f"there is no file {file}")
    try:
        found = read_json(file, fallback="cp1252")
    except ValueError as error:
        raise Unusable(Problem.MALFORMED_RECORD, str(error)) from error
    annotation = found if isinstance(found, dict) else {}
    shapes = as_records(annotation.get("shapes"))
    if not annotation.get("text") or not isinstance(annotation["text"], list):
        raise malformed(annotation, "text", str(file), "a list of one or more expressions")
    if shapes is None:
        raise malformed(annotation, "shapes", str(file), "a list of shapes")
    for shape in shapes:
        text_of(shape, "label", f"a shape of {file}")
        try:
            points = np.asarray(shape.get("points"), dtype=np.float64)
        except (ValueError, TypeError, OverflowError):
            points = np.empty(0)
        if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
            raise malformed(shape, "points", f"a shape of {file}", "a list of [x, y] in pixels")
        if _is_region(shape):
            kind = _kind(shape)
            if kind not in _SHAPES:
                raise malformed(shape, "shape_type", f"a shape of {file}", "polygon, rectangle or circle")
            if kind != _POLYGON and len(points) != 2:
                raise malformed(shape, "points", f"a {kind} of {file}", "two points")
    return annotation | {"shapes": shapes}


def _is_region(shape: dict[str, Any]) -> bool:
    return shape["label"].lower() != "flag"


def _kind(shape: dict[str, Any]) -> Any:
    """Return the `shape_type` of a shape; a rectangle of four corners is a polygon."""
    kind = shape.get("shape_type") or _POLYGON
    return _POLYGON if kind == _RECTANGLE and len(shape["points"]) == 4 else kind


def paint(shapes: list[dict[str, Any]], height: int, width: int) -> np.ndarray:
    """Paint shapes into uint8[H, W].

    A pixel is 1 in the target, 255 if no metric counts it, and 0 elsewhere.

    Args:
        shapes: shapes with `label` and `points` [[x, y], ...] in pixels. The points of a `shape_type` rectangle are two
            opposite corners, or all four. The points of a circle are its centre and a point of its edge.
        height: height of the image in pixels.
        width: width of the image in pixels.
    """

    def drawn(canvas: np.ndarray, shape: dict[str, Any], value: int) -> np.ndarray:
        points: Any = np.array([shape["points"]], dtype=np.float64).clip(-1e6, 1e6)
        kind = _kind(shape)
        if kind == _CIRCLE:
            centre, edge = points[0]
            cv2.circle(canvas, centre.astype(int).tolist(), round(float(np.hypot(*(edge - centre)))), value, -1)
            return canvas
        if kind == _RECTANGLE:
            (left, top), (right, bottom) = points[0]
            points = np.array([[[left, top], [right, top], [right, bottom], [left, bottom]]])
        points = points.astype(np.int32)
        cv2.polylines(canvas, points, True, value, 1)
        cv2.fillPoly(canvas, points, value)
        return canvas

    regions = [shape for shape in shapes if _is_region(shape)]
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
