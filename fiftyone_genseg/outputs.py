"""Fields of a result: checks, declaration, and results of earlier versions.

A result takes five fields. `<field>` holds the masks, `<field>_boxes` and `<field>_points` the prompts that the
reasoner gave the segmenter, and `<field>_outcome` the outcome of the sample. A no-target or failed expression has no
label, so `<field>_responses` is a list with one entry per expression that was asked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import fiftyone.core.fields as fof
import fiftyone.core.odm as foo
from pymongo import UpdateOne

from fiftyone_genseg import appearance
from fiftyone_genseg.labels import boxes_field, is_detections, outcome_field, points_field, responses_field
from fiftyone_genseg.overlays import rounded
from fiftyone_genseg.responses import outcome
from fiftyone_genseg.statuses import FAILED, NO_TARGET, SEGMENTED, STATUSES, UNPARSABLE

_CHUNK = 1000  # samples completed at once
_FIELD_NAME = re.compile(r"[a-zA-Z]\w*")
_OLD_PROMPTS = ("points", "prompt_box")  # attributes of masks before there were fields of boxes and points
_LABEL_ATTRIBUTES = {
    "expression": "The expression that was asked.",
    "checkpoint": "The checkpoint that answered, with its commit on the Hub.",
}
_LABELS = {
    "": (
        fo.Detections,
        "detections",
        "Masks of the instances that the expressions mean. The confidence is the predicted IoU.",
    ),
    "_boxes": (fo.Detections, "detections", "Boxes that the reasoner gave the segmenter."),
    "_points": (fo.Keypoints, "keypoints", "Points that the reasoner gave the segmenter."),
}
_OUTCOME = "Outcome of the sample's expressions: segmented, no-target, unparsable, failed, or mixed."
_OUTCOME_COUNTS = {
    "expressions": "Number of expressions that were asked.",
    SEGMENTED: "Number of expressions that ended as segmented.",
    NO_TARGET: "Number of expressions that ended as no-target.",
    UNPARSABLE: "Number of expressions that ended as unparsable.",
    FAILED: "Number of expressions that ended as failed.",
}
_RESPONSES = "The response to each expression that was asked, with any outcome."
_RESPONSE_FIELDS = {
    "expression": (fo.StringField, "The expression that was asked."),
    "status": (fo.StringField, "Outcome of the expression: segmented, no_target, unparsable or failed."),
    "error": (fo.StringField, "The fault in the answer, or the reason why there is none."),
    "reasoning": (fo.StringField, "The reasoner's thought before its answer."),
    "instances": (fo.IntField, "Number of instances that the reasoner found."),
    "checkpoint": (fo.StringField, "The checkpoint that answered, with its commit on the Hub."),
    "stored_at": (fo.DateTimeField, "When the response was stored (UTC)."),
    "dialect": (fo.StringField, "The dialect that read the answer."),
    "options": (fo.StringField, "The given options that change answers; empty for the defaults."),
    "points_outside_box": (fo.IntField, "Number of points outside their box."),
    "no_target_in_words": (fo.BooleanField, "Whether the reasoner said in words that the image has no such thing."),
    "repeated": (fo.IntField, "Number of instances that the answer repeated exactly."),
    "cut": (fo.BooleanField, "Whether the answer was too long and its end is lost."),
    "tokens": (fo.IntField, "Number of tokens that the reasoner generated."),
    "seconds": (fo.FloatField, "Seconds of the answer; expressions that are answered together share their time."),
    "memory_bytes": (fo.IntField, "Bytes of memory of the process that answered: of its GPU, or all on a CPU."),
}


def check_fields(samples: fo.Dataset | fo.DatasetView, field: str) -> None:
    """Raise ValueError unless the fields of a result can be written.

    The name must be a field name, and no field may exist with another type. Labels that no run wrote there are never
    written into. Masks are a run's if `<field>_responses` stands beside them, because a person may have corrected a
    copy of them. Boxes and points are a run's if `<field>_outcome` stands beside them, too. A killed completion leaves
    them without it, and each of them then has the attribute `checkpoint`.
    """
    if not _FIELD_NAME.fullmatch(field):
        raise ValueError(f"{field!r} is not a field name: use letters, digits and underscores, starting with a letter")
    kinds = {f"{field}{suffix}": kind for suffix, (kind, _, _) in _LABELS.items()}
    kinds |= {outcome_field(field): fo.Classification, responses_field(field): fo.DynamicEmbeddedDocument}
    for name, kind in kinds.items():
        found = samples.get_field(name)
        inner = getattr(found, "field", None) if kind is fo.DynamicEmbeddedDocument else found
        if found is not None and getattr(inner, "document_type", None) is not kind:
            raise ValueError(f"the field {name!r} already holds something else; choose another name")
    answered = samples.get_field(f"{responses_field(field)}.status") is not None
    finished = samples.get_field(f"{outcome_field(field)}.expressions") is not None
    for suffix, (_, items, _) in _LABELS.items():
        name = f"{field}{suffix}"
        known = answered and (finished or not suffix)
        others = {"checkpoint": None} if answered else {}
        if samples.get_field(name) is not None and not known and _holds(samples._dataset, f"{name}.{items}", others):
            raise ValueError(
                f"the field {name!r} holds labels that no run wrote there, and they are never written into: "
                "name another output field, or rename this one with dataset.rename_sample_field()"
            )


def _holds(dataset: fo.Dataset, path: str, condition: Mapping[str, Any]) -> bool:
    """Return whether a list of labels has one that meets a condition of MongoDB."""
    return dataset._sample_collection.find_one({path: {"$elemMatch": condition}}, {"_id": True}) is not None


def declare_fields(dataset: fo.Dataset, field: str) -> None:
    """Add the fields of a result to a dataset's schema.

    Results of earlier versions are completed. The sidebar filters declared fields. A new field gets a group in the
    sidebar, and the App colours its labels by their expression unless the dataset has a color scheme. The attributes
    that a run wrote about an answer are read-only: its expression, checkpoint, status and the like. The App and
    `set_values()` refuse to change them, because they decide which expressions are asked again and how they are
    evaluated. Whole fields are not read-only: FiftyOne would then rename and delete none of them, tag no label of the
    dataset, and let no run write.

    Raises:
        ValueError: see `check_fields`.
    """
    check_fields(dataset, field)
    first = dataset.get_field(outcome_field(field)) is None
    if first and dataset.get_field(field) is not None:
        _complete(dataset, field)
    wanted: dict[str, fof.Field] = {}
    written_down = [f"{outcome_field(field)}.label"]

    def add(path: str, kind: type[fo.Field], description: str, **options: Any) -> None:
        name = path.rpartition(".")[2]
        wanted[path] = foo.create_field(name, kind, description=description, **options)

    def add_written_down(path: str, kind: type[fo.Field], description: str) -> None:
        add(path, kind, description, read_only=dataset.get_field(path) is None)
        written_down.append(path)

    for suffix, (kind, items, description) in _LABELS.items():
        name = f"{field}{suffix}"
        add(name, fo.EmbeddedDocumentField, description, embedded_doc_type=kind)
        for attribute, words in _LABEL_ATTRIBUTES.items():
            add_written_down(f"{name}.{items}.{attribute}", fo.StringField, words)
    add(f"{points_field(field)}.keypoints.negative", fo.BooleanField, "Whether the points lie outside the instance.")
    name, document = responses_field(field), fo.DynamicEmbeddedDocument
    add(name, fo.ListField, _RESPONSES, subfield=fo.EmbeddedDocumentField, embedded_doc_type=document)
    for attribute, (response_kind, words) in _RESPONSE_FIELDS.items():
        add_written_down(f"{name}.{attribute}", response_kind, words)
    name = outcome_field(field)
    add(name, fo.EmbeddedDocumentField, _OUTCOME, embedded_doc_type=fo.Classification)
    for attribute, words in _OUTCOME_COUNTS.items():
        add_written_down(f"{name}.{attribute}", fo.IntField, words)
    appearance.declare(
        dataset, wanted
    )  # attributes after whole fields: `check_fields` reads by them that all is declared
    described = {path: str(each.description) for path, each in wanted.items()}
    appearance.describe(dataset, described)  # fields that were there before
    appearance.protect(dataset, written_down)
    if first:
        old = [f"{field}.detections.{name}" for name in _OLD_PROMPTS]
        dataset.delete_sample_fields([path for path in old if dataset.get_field(path) is not None])
        overlays = [field, boxes_field(field), points_field(field)]
        appearance.group(dataset, field, [*overlays, outcome_field(field), responses_field(field)])
        appearance.colour_by_expression(dataset, overlays)


def complete(dataset: fo.Dataset, field: str) -> None:
    """Complete the fields of a result that an earlier version wrote.

    Any other field stays as it is.
    """
    answered = dataset.get_field(f"{responses_field(field)}.status") is not None
    if answered and is_detections(dataset, field) and dataset.get_field(outcome_field(field)) is None:
        declare_fields(dataset, field)


def _complete(dataset: fo.Dataset, field: str) -> None:
    """Give results of earlier versions their outcome, and labels for the prompts.

    Earlier versions kept the prompts as attributes of the masks, and these attributes go. A sample that has its outcome
    or boxes is complete, so this can be killed and started again. Masks are not read.
    """
    attributes = ("_id", "label", "expression", "checkpoint", *_OLD_PROMPTS)
    wanted = [*(f"{field}.detections.{name}" for name in attributes), f"{responses_field(field)}.status"]
    collection = dataset._sample_collection
    incomplete = {outcome_field(field): None, boxes_field(field): None}
    missing = [stored["_id"] for stored in collection.find(incomplete, {"_id": True})]
    for start in range(0, len(missing), _CHUNK):
        chunk = collection.find({"_id": {"$in": missing[start : start + _CHUNK]}}, dict.fromkeys(wanted, True))
        writes = {stored["_id"]: _completion(stored, field) for stored in chunk}
        found = {sample_id: write for sample_id, write in writes.items() if write}
        if found:
            dataset._bulk_write(list(found.values()), ids=list(found))


def _completion(stored: Mapping[str, Any], field: str) -> UpdateOne | None:
    """Return the write that completes a sample; None if it has no result."""
    masks = (stored.get(field) or {}).get("detections") or []
    statuses = [response.get("status") for response in stored.get(responses_field(field)) or ()]
    reached = outcome(status for status in statuses if status in STATUSES)
    if not masks and not reached:
        return None
    numbers: Counter[str] = Counter()
    for mask in masks:
        expression = mask.get("expression")
        numbers[expression] += 1
        mask["index"] = numbers[expression]
    values = {
        outcome_field(field): reached,
        boxes_field(field): fo.Detections(detections=[_box(mask) for mask in masks if mask.get("prompt_box")]),
        points_field(field): fo.Keypoints(keypoints=[_points(mask) for mask in masks if mask.get("points")]),
    }
    changed: dict[str, Any] = {name: value and value.to_mongo() for name, value in values.items()}
    changed["last_modified_at"] = datetime.now(UTC).replace(tzinfo=None)
    paths = {f"m{number}": f"{field}.detections.$[m{number}]" for number in range(len(masks))}
    changed |= {f"{path}.index": mask["index"] for path, mask in zip(paths.values(), masks, strict=True)}
    update = {"$set": changed}
    if masks:
        update["$unset"] = {f"{path}.{name}": "" for path in paths.values() for name in _OLD_PROMPTS}
    which: list[Mapping[str, Any]] = [{f"{name}._id": mask["_id"]} for name, mask in zip(paths, masks, strict=True)]
    return UpdateOne({"_id": stored["_id"]}, update, array_filters=which or None)


def _box(mask: Mapping[str, Any]) -> fo.Detection:
    return fo.Detection(bounding_box=rounded(mask["prompt_box"]), **_of(mask))


def _points(mask: Mapping[str, Any]) -> fo.Keypoint:
    return fo.Keypoint(points=[rounded(point) for point in mask["points"]], **_of(mask))


def _of(mask: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that a stored mask shares with its box and points."""
    return {name: mask.get(name) for name in ("label", "expression", "checkpoint", "index")}
