"""Read a dataset for an evaluation: labels as columns, many in one query."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import fiftyone as fo
from genseg_hub.errors import MaskError
from genseg_hub.schema import normalize_expression

from fiftyone_genseg import labels
from fiftyone_genseg.evaluation.config import ReferringEvaluationConfig
from fiftyone_genseg.evaluation.table import COSTS
from fiftyone_genseg.fields import holds_several
from fiftyone_genseg.sizes import size_of
from fiftyone_genseg.statuses import MISSING, NO_TARGET, SEGMENTED
from fiftyone_genseg.stored_labels import StoredLabels, read_labels, read_meanings


class Reader:
    """Reader of some samples, in one query per label field.

    FiftyOne would read a document per sample. Expressions are normalized as they are read. Nothing is written.

    Args:
        view: the samples.
        config: names the fields.
        stored: the same samples as they are stored; None if the view shows them so.
    """

    def __init__(self, view: fo.DatasetView, config: ReferringEvaluationConfig, stored: fo.DatasetView | None = None):
        self.several = holds_several(view, config.expression_field)
        self.ids, self.filepaths, self._widths, self._heights = view.values(
            ["id", "filepath", "metadata.width", "metadata.height"]
        )
        self.gt, self.pred = read_labels(view, config.gt_field), read_labels(view, config.pred_field)
        self._stored_truth = None if stored is None else read_meanings(stored, config.gt_field)
        self._exists = [read.exists for read in self.pred]
        if stored is not None:  # a field that the view hides exists
            self._exists = stored.values(fo.ViewField(config.pred_field).exists())
        _add_prompt_boxes(view, config.pred_field, self.pred)
        self.objects = read_labels(view, config.objects_field) if config.objects_field else None
        self.ignored = read_labels(view, config.ignore_field) if config.ignore_field else None
        self._compared = {config.gt_field: self.gt, config.pred_field: self.pred, config.ignore_field: self.ignored}
        self._expressions = view.values(config.expression_field) if config.expression_field else None
        responses = labels.responses_field(config.pred_field)
        own = view if stored is None else stored  # the responses count even if the view hides their field
        self._costs = _read_costs(own, responses)
        self._status: list[dict[str, str]] | None = None
        paths = [f"{responses}.expression", f"{responses}.status"]
        if all(own.get_field(path) is not None for path in paths):
            answered, ended = own.values(paths)
            self._status = [
                dict(zip(map(normalize_expression, e or ()), s or (), strict=True))
                for e, s in zip(answered, ended, strict=True)
            ]

    def check_masks(self) -> None:
        """Raise ValueError if a detection that is compared has no mask."""
        for name, read in self._compared.items():
            stored = [mask for its in read or () for mask in its.masks.values()]
            bare = sum(mask is None for mask in stored)
            if bare:
                raise ValueError(
                    f"{bare} of the {len(stored)} detections in {name!r} have no mask, counted in "
                    f"{len(self.ids)} samples; masks are compared"
                )

    def size(self, number: int) -> tuple[int, int] | None:
        """Return (width, height) of the image from its file or metadata, or None."""
        return size_of(self.filepaths[number], self._widths[number], self._heights[number])

    def expressions(self, number: int) -> list[str]:
        """Return the expressions of a sample, each once, without empty ones."""
        if self._expressions is None:
            found: list[str] = []
            for value in self.gt[number].expression.values():
                found += [value] if isinstance(value, str) else value or []
        else:
            value = self._expressions[number]
            found = [value] if isinstance(value, str) else value or []
        normalized = (normalize_expression(expression) for expression in found if expression)
        return list(dict.fromkeys(expression for expression in normalized if expression))

    def true_ids(self, number: int, expression: str) -> list[str]:
        """Return the ids of the true labels of an expression; none for no-target.

        Raises:
            MaskError: the view hides all of them, so the expression only seems to refer to nothing.
        """
        shown = self.gt[number]
        if shown.hides(self._stored_truth[number] if self._stored_truth else None, expression, self.several):
            raise MaskError("the view hides its true masks")
        return shown.meant(expression, self.several)

    def asked(self, number: int) -> set[str]:
        """Return the expressions that have a response."""
        return set(self._status[number]) if self._status else set()

    def status(self, number: int, expression: str, has_mask: bool) -> str:
        """Return the status of the stored response; without responses, of the labels.

        A segmented expression is missing if the sample's field of masks was cleared, deleted or renamed.
        """
        exists = self._exists[number]
        if self._status is not None:
            status = self._status[number].get(expression, SEGMENTED if has_mask else MISSING)
            return status if exists or status != SEGMENTED else MISSING
        if not exists:
            return MISSING
        return SEGMENTED if has_mask else NO_TARGET

    def costs(self, number: int, expression: str) -> dict[str, float]:
        """Return `table.COSTS` of a stored response; NaN for unknown costs."""
        known = self._costs[number].get(expression) if self._costs else None
        return dict(zip(COSTS, known or (math.nan,) * len(COSTS), strict=True))

    def distractors(self, number: int, target_ids: list[str]) -> int:
        """Count the objects of a target's class that are no target.

        Return -1 when the objects are not known. A target is one of the objects, so the targets of each class are taken
        off its count.
        """
        if self.objects is None or not target_ids:
            return -1
        classes = Counter(self.gt[number].label[i] for i in target_ids)
        present = Counter(self.objects[number].label.values())
        return sum(max(0, present[name] - count) for name, count in classes.items())


def _read_costs(view: fo.DatasetView, responses: str) -> list[dict[str, list[float]]] | None:
    """Return expression -> `table.COSTS` for each sample; None for responses without."""
    paths = [f"{responses}.expression", *(f"{responses}.{name}" for name in COSTS)]
    if any(view.get_field(path) is None for path in paths):
        return None
    read = []
    for columns in zip(*view.values(paths), strict=True):
        rows = [column or () for column in columns]
        alike = len({len(row) for row in rows}) == 1  # responses of earlier versions have no costs
        costs = zip(*rows, strict=True) if alike else ()
        read.append({normalize_expression(e): [math.nan if v is None else v for v in values] for e, *values in costs})
    return read


def _add_prompt_boxes(view: fo.DatasetView, name: str, read: Sequence[StoredLabels]) -> None:
    """Give masks the reasoner's boxes of the same expression and index.

    The boxes have a field of their own.
    """
    boxes = f"{labels.boxes_field(name)}.detections"
    if view.get_field(f"{boxes}.expression") is None:
        return
    paths = (f"{name}.detections.index", f"{boxes}.expression", f"{boxes}.index", f"{boxes}.bounding_box")
    for stored, numbers, *columns in zip(read, *view.values(list(paths)), strict=True):
        said = {(e, n): box for e, n, box in zip(*(column or () for column in columns), strict=True) if n is not None}
        for i, number in zip(stored.ids, numbers or (), strict=True):
            expression = stored.expression[i]
            if isinstance(expression, str) and (expression, number) in said:
                stored.prompt_box[i] = said[expression, number]
