"""What the archives of the REFER family share: references to annotations of COCO train2014, with sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets

from genseg_hub.benchmarks._benchmark import Entry, Problem, Unusable
from genseg_hub.benchmarks._coco import CocoInstances
from genseg_hub.schema import Rle

ATTRIBUTES = datasets.Features({"ref_id": datasets.Value("string"), "category": datasets.Value("string")})
# Where people keep COCO's train2014 beside these archives; the first is REFER's own layout.
_IMAGE_FOLDERS = ("images/mscoco/images/train2014", "images/mscoco/train2014", "images/train2014", "train2014")


def image_folder(root: Path) -> Path:
    """The folder of COCO train2014 under a root folder; REFER's own where there is none."""
    folders = [root / name for name in _IMAGE_FOLDERS]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def entries(refs: Any, instances: CocoInstances, split: str, where: Path, skip_crowds: bool = False) -> Iterator[Entry]:
    """The expressions of a split, those of one image together.

    Args:
        refs: list of references: `ref_id`, `image_id`, `split`, `sentences` with `sent_id` and `sent`, `ann_id` (one or
            a list; none or [-1] for no-target) and `category_id` (likewise).
        where: the file they come from, for errors.
        skip_crowds: leave annotations of crowds out of the target.

    Raises:
        ValueError: when they are something else.
    """
    try:
        chosen = sorted(
            (ref for ref in refs if ref["split"] == split), key=lambda ref: (int(ref["image_id"]), int(ref["ref_id"]))
        )
        times_ref = Counter(ref["ref_id"] for ref in refs)
        times_sentence = Counter(sentence["sent_id"] for ref in chosen for sentence in ref["sentences"])
        for ref in chosen:
            image_id, ref_id = ref["image_id"], ref["ref_id"]
            categories = dict.fromkeys(filter(None, map(instances.category, _several(ref["category_id"]))))
            attributes = {"ref_id": str(ref_id), "category": ", ".join(categories)}
            image: Path | None = None
            masks: tuple[Rle, ...] = ()
            problem, detail = None, ""
            try:
                if times_ref[ref_id] > 1:
                    raise Unusable(Problem.DUPLICATE_ID, f"{where} has {times_ref[ref_id]} times ref {ref_id}")
                image = instances.image(image_id)
                masks = instances.masks(_several(ref["ann_id"]), image_id, skip_crowds)
            except Unusable as error:
                problem, detail = error.problem, str(error)
            for sentence in ref["sentences"]:
                sent_id, expression = sentence["sent_id"], str(sentence["sent"]).strip()
                found: tuple[Problem | None, str] = problem, detail
                if times_sentence[sent_id] > 1:
                    found = Problem.DUPLICATE_ID, f"{where} has {times_sentence[sent_id]} times sentence {sent_id}"
                elif not expression:
                    found = found if problem else (Problem.EMPTY_EXPRESSION, f"sentence {sent_id} is empty")
                yield Entry(expression, str(sent_id), str(image_id), image, masks, attributes, *found)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where} is not a list of references as REFER writes them ({error!r})") from error


def _several(ids: Any) -> Sequence[Any]:
    """One id or a list of them; -1 and None are none."""
    values = ids if isinstance(ids, list | tuple) else [ids]
    return [value for value in values if value not in (-1, None)]
