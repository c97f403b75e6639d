"""COCO annotation files: images and masks of instances."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image
from pycocotools import mask as coco_mask

from genseg_hub.benchmarks._benchmark import Problem, Unusable
from genseg_hub.schema import Rle, check_counts

_FAR = 4  # times the image's longer side
_EXIF_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)


class CocoInstances:
    """An `instances.json` and the folder of its images.

    Args:
        file: COCO annotation file.
        folder: of the images.

    Raises:
        ValueError: for a file of another kind.
    """

    def __init__(self, file: Path, folder: Path):
        self.folder = folder
        try:
            data = json.loads(file.read_bytes())
            self._images = _by_id(data["images"])
            self._annotations = _by_id(data["annotations"])
            self._categories = {entry["id"]: str(entry["name"]) for entry in data.get("categories", [])}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{file} is not a COCO annotation file with images and annotations ({error!r}); fetch it again"
            ) from error
        self._checked: tuple[Any, Path | Unusable] = (None, Path())

    @cached_property
    def ids_by_file_name(self) -> dict[str, Any]:
        """File name -> id of the image."""
        return {str(entries[0]["file_name"]): key for key, entries in self._images.items()}

    def image(self, image_id: Any) -> Path:
        """The file of an image, which has the size that the annotations say.

        Raises:
            Unusable: no such image, or its file is missing, unreadable or of another size.
        """
        if self._checked[0] != image_id:
            try:
                self._checked = (image_id, self._find_image(image_id))
            except Unusable as problem:
                self._checked = (image_id, problem)
        found = self._checked[1]
        if isinstance(found, Unusable):
            raise found
        return found

    def _find_image(self, image_id: Any) -> Path:
        entry = self._one(self._images, "image", image_id)
        name = Path(str(entry["file_name"]))
        file = self.folder / (name if not (name.is_absolute() or ".." in name.parts) else name.name)
        if not file.is_file():
            raise Unusable(Problem.MISSING_IMAGE, f"there is no file {file}")
        found, annotated = image_size(file), (entry["width"], entry["height"])
        if found != annotated:
            raise Unusable(Problem.WRONG_IMAGE_SIZE, f"{file} is {found}, annotated as {annotated} (width, height)")
        return file

    def masks(self, annotation_ids: Sequence[Any], image_id: Any, skip_crowds: bool = False) -> tuple[Rle, ...]:
        """The masks of annotations, all of one image.

        Raises:
            Unusable: an annotation that is missing, of another image, unreadable or empty; nothing but crowds to skip.
        """
        image = self._one(self._images, "image", image_id)
        found: list[Rle] = []
        for annotation_id in annotation_ids:
            entry = self._one(self._annotations, "annotation", annotation_id)
            if entry["image_id"] != image_id:
                detail = f"annotation {annotation_id} is of image {entry['image_id']}, not {image_id}"
                raise Unusable(Problem.MISSING_ANNOTATION, detail)
            if skip_crowds and entry.get("iscrowd"):
                continue
            try:
                rle = to_rle(entry.get("segmentation"), image["height"], image["width"])
            except ValueError as error:
                raise Unusable(Problem.UNREADABLE_MASK, f"annotation {annotation_id}: {error}") from error
            if rle is None:
                raise Unusable(Problem.EMPTY_MASK, f"annotation {annotation_id} has no polygon with an area")
            found.append(rle)
        if annotation_ids and not found:
            raise Unusable(Problem.EMPTY_MASK, f"the annotations {list(annotation_ids)} are crowds")
        return tuple(found)

    def category(self, category_id: Any) -> str:
        """Its name, "" for an unknown one."""
        return self._categories.get(category_id, "")

    @staticmethod
    def _one(table: dict[Any, list[dict]], what: str, key: Any) -> dict:
        entries = table.get(key, [])
        if not entries:
            raise Unusable(Problem.MISSING_ANNOTATION, f"the annotation file has no {what} {key}")
        if len(entries) > 1:
            raise Unusable(Problem.DUPLICATE_ID, f"the annotation file has {len(entries)} times {what} {key}")
        return entries[0]


def _by_id(entries: list[dict]) -> dict[Any, list[dict]]:
    table: dict[Any, list[dict]] = {}
    for entry in entries:
        table.setdefault(entry["id"], []).append(entry)
    return table


def image_size(file: Path) -> tuple[int, int]:
    """(width, height) of the upright image; reads the header alone.

    Raises:
        Unusable: for a file that is no image.
    """
    try:
        with Image.open(file) as image:
            sideways = image.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS
            return (image.height, image.width) if sideways else image.size
    except Exception as error:
        raise Unusable(Problem.UNREADABLE_IMAGE, f"{file}: {error}") from error


def to_rle(segmentation: Any, height: int, width: int) -> Rle | None:
    """The mask of an annotation: polygons, a COCO RLE, or an uncompressed RLE (crowds).

    Args:
        segmentation: a list of polygons [x1, y1, x2, y2, ...] in pixels; or {"size", "counts"}, counts a list or str.

    Returns:
        COCO RLE, or None when nothing of it is left: no polygon of at least three corners, or no pixel.

    Raises:
        ValueError: for a segmentation that is none of these, or an RLE of another size.
    """
    try:
        if isinstance(segmentation, dict):
            size, counts = list(segmentation["size"]), segmentation["counts"]
            if size != [height, width]:
                raise ValueError(f"its RLE is {size} (height, width), its image [{height}, {width}]")
            rle: dict[str, Any] = {"size": size, "counts": counts.encode() if isinstance(counts, str) else counts}
            if isinstance(counts, list):
                if sum(counts) != height * width or min(counts) < 0:
                    raise ValueError(f"its RLE counts {sum(counts)} pixels, its image has {height * width}")
                rle = coco_mask.frPyObjects(rle, height, width)
            check_counts(rle["counts"])
            coco_mask.decode(rle)  # raises where the counts do not fill the image
        elif isinstance(segmentation, list):
            polygons = [polygon for polygon in segmentation if len(polygon) >= 6 and len(polygon) % 2 == 0]
            if not polygons:
                return None
            limit = _FAR * max(height, width)  # pycocotools takes memory for every pixel on the way
            if not all(abs(value) <= limit for polygon in polygons for value in polygon):  # NaN is not, either
                raise ValueError("it has a corner far outside the image")
            rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        else:
            raise ValueError("it is neither polygons nor an RLE")
    except Exception as error:  # whatever pycocotools makes of it
        raise ValueError(f"the segmentation cannot be read ({error})") from error
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")} if coco_mask.area(rle) else None
