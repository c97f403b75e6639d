"""Read COCO annotation files: images and masks of instances."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from genseg_hub import images
from genseg_hub.archives.base import Problem, Unusable
from genseg_hub.archives.file_names import FileNames, relative
from genseg_hub.archives.records import as_id, as_records, as_text, id_of, read_json, size_of, text_of
from genseg_hub.errors import ArchiveError, ImageError, MaskError
from genseg_hub.image_files import swapped
from genseg_hub.masks import to_rle
from genseg_hub.schema import Rle

_READ = ("id", "image_id", "iscrowd")  # keys of an annotation that are read beside its segmentation


class CocoInstances:
    """An `instances.json` and the folder of its images; numeric ids become text.

    Args:
        file: COCO annotation file.
        folder: folder of the images.

    Raises:
        ArchiveError: the file is of another kind.
    """

    def __init__(self, file: Path, folder: Path):
        self.file, self.folder = file, folder
        data = read_json(file, hook=_packed)
        pictures, annotations = (
            as_records(data.get(name)) if isinstance(data, dict) else None for name in ("images", "annotations")
        )
        if pictures is None or annotations is None:
            raise ArchiveError(f"{file} is not a COCO annotation file with images and annotations; fetch it again")
        self._tables = {"image": _by_id(pictures), "annotation": _by_id(annotations)}
        self._categories = _by_id(as_records(data.get("categories")) or [])
        self._checked: tuple[str, Path | Unusable] = ("", Path())

    @cached_property
    def _files(self) -> FileNames:
        named = (
            (id_, as_text(entry.get("file_name"))) for id_, all_ in self._tables["image"].items() for entry in all_
        )
        return FileNames((id_, name) for id_, name in named if id_ is not None and name)

    def ids_of_file(self, name: str) -> list[str]:
        """Return the ids of the images with a file name, see `FileNames.ids`."""
        return self._files.ids(name)

    def has_annotation(self, annotation_id: str) -> bool:
        """Return whether there is an annotation with an id."""
        return annotation_id in self._tables["annotation"]

    def image(self, image_id: str) -> Path:
        """Return the file of an image, after a check of its size.

        Raises:
            Unusable: there is no such image, or its file is missing, unreadable or of another size than annotated.
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

    def _find_image(self, image_id: str) -> Path:
        entry = self._one("image", image_id)
        name = text_of(entry, "file_name", f"image {image_id} of {self.file}")
        file = self._files.find(name, self.folder)
        if file is None:
            raise Unusable(Problem.MISSING_IMAGE, f"there is no file {self.folder / relative(name)}")
        found, annotated = image_size(file), self._size(image_id)
        if found != annotated:
            detail = f"{file} is {found}, annotated as {annotated} (width, height){swapped(found, annotated)}"
            raise Unusable(Problem.WRONG_IMAGE_SIZE, detail)
        return file

    def _size(self, image_id: str) -> tuple[int, int]:
        """Return the annotated (width, height)."""
        entry = self._one("image", image_id)
        what = f"image {image_id} of {self.file}"
        return size_of(entry, "width", what), size_of(entry, "height", what)

    def masks(self, annotation_ids: Sequence[str], image_id: str, skip_crowds: bool = False) -> tuple[Rle, ...]:
        """Return the masks of annotations, all of one image.

        Args:
            annotation_ids: ids of the annotations.
            image_id: id of their image.
            skip_crowds: leave out annotations of crowds.

        Raises:
            Unusable: an annotation is missing, of another image, unreadable or empty, or all of them are crowds.
        """
        width, height = self._size(image_id)
        found: list[Rle] = []
        for annotation_id in annotation_ids:
            entry = self._one("annotation", annotation_id)
            its_image = id_of(entry, "image_id", f"annotation {annotation_id} of {self.file}")
            if its_image != image_id:
                detail = f"annotation {annotation_id} is of image {its_image}, not {image_id}"
                raise Unusable(Problem.MISSING_ANNOTATION, detail)
            if skip_crowds and entry.get("iscrowd"):
                continue
            try:
                rle = to_rle(_unpacked(entry.get("segmentation")), height, width)
            except MaskError as error:
                raise Unusable(Problem.UNREADABLE_MASK, f"annotation {annotation_id}: {error}") from error
            if not coco_mask.area(rle):
                raise Unusable(Problem.EMPTY_MASK, f"annotation {annotation_id} has no polygon with an area")
            found.append(rle)
        if annotation_ids and not found:
            raise Unusable(Problem.EMPTY_MASK, f"the annotations {', '.join(annotation_ids)} are crowds")
        return tuple(found)

    def category(self, category_id: str | None) -> str:
        """Return the name of a category, "" for an unknown id."""
        return as_text(self._categories.get(category_id, [{}])[0].get("name")) or "" if category_id else ""

    def _one(self, what: str, key: str) -> dict[str, Any]:
        table = self._tables[what]
        entries = table.get(key, [])
        if not entries:
            nameless = f", but {len(table[None])} without an id" if None in table else ""
            raise Unusable(Problem.MISSING_ANNOTATION, f"{self.file} has no {what} {key}{nameless}")
        if len(entries) > 1:
            raise Unusable(Problem.DUPLICATE_ID, f"{self.file} has {len(entries)} times {what} {key}")
        return entries[0]


def _packed(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of the file in less memory.

    An annotation keeps only the values that this class reads, and its polygons become arrays.
    """
    segmentation = record.get("segmentation")
    if not isinstance(segmentation, list):
        return record
    return {name: record[name] for name in _READ if name in record} | {"segmentation": list(map(_array, segmentation))}


def _array(polygon: Any) -> Any:
    """Return a list of numbers as an array.

    Any other value stays as it is, because `to_rle` names it in its error.
    """
    try:
        return array("d", polygon) if isinstance(polygon, list) else polygon
    except (TypeError, OverflowError):
        return polygon


def _unpacked(segmentation: Any) -> Any:
    if not isinstance(segmentation, list):
        return segmentation
    return [polygon.tolist() if isinstance(polygon, array) else polygon for polygon in segmentation]


def _by_id(entries: list[dict[str, Any]]) -> dict[str | None, list[dict[str, Any]]]:
    table: dict[str | None, list[dict[str, Any]]] = {}
    for entry in entries:
        table.setdefault(as_id(entry.get("id")), []).append(entry)
    return table


def image_size(file: Path) -> tuple[int, int]:
    """Return `images.image_size` of an image of an archive.

    Raises:
        Unusable: the file is no image.
        ArchiveError: the disk cannot read the file at this moment.
    """
    try:
        return images.image_size(file)
    except ImageError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno and not isinstance(cause, PermissionError):
            # An error of the disk must not be cached as an error of the image.
            raise ArchiveError(f"{file} cannot be read ({cause}); mend that and start again") from error
        raise Unusable(Problem.UNREADABLE_IMAGE, str(error)) from error
