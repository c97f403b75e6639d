"""Read the REFER archives: sentences about annotations of COCO train2014."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from genseg_hub.archives.base import Entry, Problem, Unusable
from genseg_hub.archives.coco_instances import CocoInstances
from genseg_hub.archives.records import as_id, as_records, as_text, id_of, malformed, text_of
from genseg_hub.errors import ArchiveError
from genseg_hub.schema import Rle

ATTRIBUTES = datasets.Features({"ref_id": datasets.Value("string"), "category": datasets.Value("string")})
COLLECTION = "COCO"
# Usual places of COCO's train2014 beside these archives; the first is REFER's own layout.
_IMAGE_FOLDERS = ("images/mscoco/images/train2014", "images/mscoco/train2014", "images/train2014", "train2014")
_NOTHING = ["-1"]


def image_folder(root: Path) -> Path:
    """Return the folder of COCO train2014 under a root folder.

    If the folder is missing, return the folder of REFER's layout.
    """
    folders = [root / name for name in _IMAGE_FOLDERS]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def entries(refs: Any, instances: CocoInstances, split: str, where: Path, generalized: bool = False) -> Iterator[Entry]:
    """Yield the expressions of a split, grouped by image.

    Args:
        refs: list of references: `ref_id`, `image_id`, `split`, `sentences` with `sent_id` and `sent`, `ann_id` (one or
            a list) and `category_id` (one or a list; may be missing). A reference without a split is in every split.
        instances: annotations and images.
        split: split of the benchmark.
        where: the file of the references, for errors.
        generalized: whether, as in gRefCOCO, the `ann_id` [-1] is a no-target and crowds are no part of a target.

    Raises:
        ArchiveError: the references are no list, or more than the file can hold.
    """
    listed = as_records(refs)
    if listed is None:
        raise ArchiveError(f"{where} is not a list of references as REFER writes them; fetch the archive again")
    lists = (ref.get(name) for ref in listed for name in ("sentences", "ann_id", "category_id"))
    if sum(len(found) for found in lists if isinstance(found, list)) > where.stat().st_size:
        raise ArchiveError(f"{where} has the same list in many references; fetch the archive again")
    times_ref = Counter(as_id(ref.get("ref_id")) for ref in listed)
    chosen = [(i, ref) for i, ref in enumerate(listed) if ref.get("split") == split or not _has_split(ref)]
    times_sentence = Counter(as_id(said.get("sent_id")) for _, ref in chosen for said in _sentences(ref))
    for i, ref in sorted(chosen, key=lambda numbered: _order(numbered[1])):
        what = f"reference {i} of {where}"
        categories = dict.fromkeys(filter(None, map(instances.category, _ids(ref.get("category_id")))))
        attributes = {"ref_id": as_id(ref.get("ref_id")), "category": ", ".join(categories)}
        image: Path | None = None
        masks: tuple[Rle, ...] = ()
        unusable: Unusable | None = None
        try:
            image_id = _check_reference(ref, what, times_ref)
            image = instances.image(image_id)
            masks = instances.masks(_annotations(ref, what, generalized), image_id, skip_crowds=generalized)
        except Unusable as error:
            unusable = error
        for said in _sentences(ref):
            yield Entry(
                expression=as_text(said.get("sent")) or "",
                example_id=as_id(said.get("sent_id")) or "",
                image_id=as_id(ref.get("image_id")),
                image=image,
                masks=masks,
                attributes=attributes,
                unusable=unusable or _wrong_sentence(said, f"a sentence of {what}", times_sentence),
            )


def _has_split(ref: dict[str, Any]) -> bool:
    return isinstance(ref.get("split"), str)


def _sentences(ref: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the sentences of a reference.

    A reference without a list has [{}], so that it is counted.
    """
    found = as_records(ref.get("sentences"))
    return [{}] if found is None else found


def _order(ref: dict[str, Any]) -> str:
    """Return a sort key that groups the references of an image.

    The key orders numeric ids by value.
    """
    image_id, ref_id = (as_id(ref.get(name)) or "" for name in ("image_id", "ref_id"))
    return f"{image_id:>20}\0{ref_id:>20}"


def _check_reference(ref: dict[str, Any], what: str, times: Counter[str | None]) -> str:
    """Return the image id of a reference.

    Raise Unusable if the reference is incomplete or a duplicate.
    """
    text_of(ref, "split", what)
    ref_id = id_of(ref, "ref_id", what)
    if times[ref_id] > 1:
        raise Unusable(Problem.DUPLICATE_ID, f"{what} is one of {times[ref_id]} with the ref_id {ref_id}")
    if as_records(ref.get("sentences")) is None:
        raise malformed(ref, "sentences", what, "a list")
    return id_of(ref, "image_id", what)


def _wrong_sentence(said: dict[str, Any], what: str, times: Counter[str | None]) -> Unusable | None:
    try:
        sent_id = id_of(said, "sent_id", what)
        if times[sent_id] > 1:
            return Unusable(Problem.DUPLICATE_ID, f"{what} is one of {times[sent_id]} with the sent_id {sent_id}")
        if not text_of(said, "sent", what):
            return Unusable(Problem.EMPTY_EXPRESSION, f"{what}, {sent_id}, is empty")
    except Unusable as error:
        return error
    return None


def _ids(value: Any) -> list[str | None]:
    """Return one id or a list of ids as a list; None for a value that is no id."""
    return [as_id(one) for one in (value if isinstance(value, list) else [value])]


def _annotations(ref: dict[str, Any], what: str, generalized: bool) -> list[str]:
    """Return the ids of a reference's annotations; [] for a no-target."""
    ids, no_target = _ids(ref.get("ann_id")), ref.get("no_target")
    named = [found for found in ids if found is not None]
    if not named or len(named) < len(ids):
        raise malformed(ref, "ann_id", what, "an id or a list of ids")
    if no_target is not None and bool(no_target) != (named == _NOTHING):
        detail = f"the 'no_target' of {what} says another thing than its 'ann_id'"
        raise Unusable(Problem.MALFORMED_RECORD, detail)
    if named == _NOTHING and generalized:
        return []
    return list(dict.fromkeys(named))
