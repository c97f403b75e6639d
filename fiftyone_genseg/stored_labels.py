"""Labels as columns, without FiftyOne's objects.

FiftyOne makes an object of each sample and of each label, which took more time than all other work of an export.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fiftyone as fo
from genseg_hub.errors import MaskError
from genseg_hub.schema import Box
from pymongo.errors import CursorNotFound

from fiftyone_genseg import labels
from fiftyone_genseg.cutouts import Cutout, cutout, read_mask

_SMALLEST = 1e-6  # share of an image that a box with a mask takes
_ATTRIBUTES = ("id", "bounding_box", "mask", "mask_path", "expression", "prompt_box", "confidence", "label")


@dataclass
class StoredLabels:
    """One sample's Detections, as columns."""

    exists: bool
    ids: list[str]
    boxes: dict[str, Sequence[float]]
    masks: dict[str, Any]
    expression: dict[str, Any]
    prompt_box: dict[str, Any]
    confidence: dict[str, float | None]
    label: dict[str, str | None]
    unreadable: dict[str, str] = field(default_factory=dict)
    loaded: set[str] = field(default_factory=set)

    def of(self, expression: str) -> list[str]:
        """Return the ids of the labels that name an expression.

        All ids are returned when no label names any.
        """
        if all(value is None for value in self.expression.values()):
            return self.ids
        return [i for i in self.ids if labels.names(self.expression[i], expression)]

    def meant(self, expression: str, several: bool) -> list[str]:
        """Return the ids of the labels that an expression of the sample means.

        Args:
            expression: normalized.
            several: whether the sample may have other expressions. If not, all labels belong to the expression, unless
                some name it.
        """
        named = self.of(expression)
        return named if several else named or self.ids

    def hides(self, stored: StoredLabels | None, expression: str, several: bool) -> bool:
        """Return whether a view hides all labels of an expression.

        The expression then only seems to refer to nothing.

        Args:
            stored: the sample's labels as they are stored; None if the view shows them so.
            expression: normalized.
            several: see `meant`.
        """
        return stored is not None and not self.meant(expression, several) and bool(stored.meant(expression, several))

    def load_masks(self, ids: Sequence[str] | None = None) -> dict[str, str]:
        """Read masks as bool[h, w], each once.

        Args:
            ids: ids of their labels; None for all.

        Returns:
            Label id -> reason for each mask read so far that cannot be read.
        """
        for i in self.ids if ids is None else ids:
            if i not in self.loaded:
                self.loaded.add(i)
                try:
                    self.masks[i] = read_mask(self.masks[i])
                except MaskError as error:
                    self.masks[i], self.unreadable[i] = None, str(error)
        return self.unreadable

    def image_size(self) -> tuple[int, int] | None:
        """Return (width, height) of the image, from a mask and its box's share.

        Return None without masks.
        """
        for i, mask in self.masks.items():
            box = self.boxes[i]
            if mask is not None and _is_box(box) and min(box[2:]) > _SMALLEST:
                return round(mask.shape[1] / box[2]), round(mask.shape[0] / box[3])
        return None

    def cutouts(self, ids: Sequence[str], size: tuple[int, int]) -> tuple[dict[str, Cutout], int]:
        """Return the non-empty masks of labels by id, and the number of resized masks.

        Raises:
            MaskError: a mask or a box cannot be read.
        """
        found: dict[str, Cutout] = {}
        resized = 0
        unreadable = self.load_masks(ids)
        for i in ids:
            try:
                if i in unreadable:
                    raise MaskError(unreadable[i])
                part, other = cutout(self.boxes[i], self.masks[i], size)
            except MaskError as error:
                raise MaskError(f"the mask of the detection {i} cannot be used: {error}") from error
            resized += other
            if part:
                found[i] = part
        return found, resized

    def box(self, i: str, size: tuple[int, int]) -> Box:
        """Return the reasoner's box in xyxy pixels if it is known, else the Detection's."""
        said = self.prompt_box[i]
        x, y, w, h = said if _is_box(said) else self.boxes[i]
        return x * size[0], y * size[1], (x + w) * size[0], (y + h) * size[1]


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(math.isfinite(number) for number in value)


def read_labels(
    view: fo.Dataset | fo.DatasetView, name: str, attributes: Sequence[str] = _ATTRIBUTES
) -> list[StoredLabels]:
    """Return the Detections of a field, one item per sample in the view's order.

    One query reads all of them.

    Args:
        view: the samples.
        name: field of the Detections.
        attributes: attributes that are read, "id" first; the others are None.
    """
    paths = {attribute: f"{name}.detections.{attribute}" for attribute in attributes}
    known = {attribute: path for attribute, path in paths.items() if view.get_field(path) is not None}
    columns = dict(zip(known, view.values(list(known.values())), strict=True))
    read = []
    for number, ids in enumerate(columns["id"]):
        own = {attribute: column[number] or [None] * len(ids or ()) for attribute, column in columns.items()}
        read.append(_stored(ids, own))
    return read


def read_meanings(view: fo.Dataset | fo.DatasetView, name: str) -> list[StoredLabels]:
    """Return the Detections of a field, with their ids and expressions alone."""
    return read_labels(view, name, ("id", "expression"))


def documents(view: fo.DatasetView) -> Iterator[dict[str, Any]]:
    """Yield the samples of a view as MongoDB has them, in the order of `iter_samples`.

    The documents have the fields and labels that the view shows.
    """
    read = 0
    while True:
        try:
            for document in view.skip(read)._aggregate(detach_frames=True, detach_groups=True):
                read += 1
                yield document
            return
        except CursorNotFound:  # MongoDB forgets a query that nobody has read from for ten minutes
            continue


def value_at(document: Mapping[str, Any], path: str) -> Any:
    """Return the value of a document at a path; None if there is none.

    A path is a name, or names with dots between them, such as "caption.text".
    """
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def from_document(stored: Mapping[str, Any] | None) -> StoredLabels:
    """Return the Detections of a sample, as MongoDB has them in the sample's document.

    Masks in the database stay compressed until they are needed. A label without an id, or with the id of another, gets
    its number as well.
    """
    if stored is None:
        return _stored(None, {})
    found: dict[str, Mapping[str, Any]] = {}
    for number, each in enumerate(stored.get("detections") or (), 1):
        name = str(each.get("_id", "without an id"))
        found[f"{name} (number {number})" if name in found else name] = each
    columns = {attribute: [each.get(attribute) for each in found.values()] for attribute in _ATTRIBUTES}
    return _stored(list(found), columns)


def _stored(ids: list[str] | None, columns: Mapping[str, Sequence[Any]]) -> StoredLabels:
    """Return labels from the columns of `_ATTRIBUTES`; `ids` is None without a field."""
    exists, ids = ids is not None, ids or []

    def values(attribute: str) -> dict[str, Any]:
        return dict(zip(ids, columns.get(attribute) or [None] * len(ids), strict=True))

    files = values("mask_path")
    stored = {i: files[i] or None if mask is None else mask for i, mask in values("mask").items()}
    return StoredLabels(
        exists,
        ids,
        values("bounding_box"),
        stored,
        expression=values("expression"),
        prompt_box=values("prompt_box"),
        confidence=values("confidence"),
        label=values("label"),
    )
