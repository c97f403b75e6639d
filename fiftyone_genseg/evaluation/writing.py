"""Write a measurement: the run, then the fields on samples and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import fiftyone.constants as foc
import numpy as np
from bson import ObjectId, json_util
from fiftyone.core.odm.runs import RunDocument
from pymongo import UpdateOne

from fiftyone_genseg import labels
from fiftyone_genseg.database import make_durable
from fiftyone_genseg.evaluation.checks import check_current, fields_of_run
from fiftyone_genseg.evaluation.config import SAMPLE_FIELDS, ReferringEvaluationConfig
from fiftyone_genseg.evaluation.measuring import CHUNK, Measured, Verdicts
from fiftyone_genseg.evaluation.results import ReferringResults, custom_metrics
from fiftyone_genseg.evaluation.slicing import kinds
from fiftyone_genseg.fields import every_image, holds_several

WITHOUT_RESPONSE = "expressions_without_response"  # name of a count


def write(measured: Measured, eval_key: str | None) -> Generator[float, None, ReferringResults]:
    """Store a measurement as a FiftyOne evaluation run.

    The run is stored with its results, and one update of the dataset puts it in place of an earlier run of that name. A
    process that is killed leaves the earlier run, or the new run, whole. After that the fields on samples and labels
    are written; `ReferringEvaluationConfig.fields_written` says whether all of them are. The next evaluation of that
    name removes the leftovers of the killed one.

    Args:
        measured: see `measure`.
        eval_key: name of the run; None writes nothing.

    Yields:
        The share of the samples that is written, in (0, 1].

    Returns:
        The results.

    Raises:
        ValueError: labels have an attribute of the run's name, or another process changed the fields of the
            evaluation; nothing is written.
    """
    config, samples = measured.config, measured.samples
    check_current(samples, config)
    _note_lost_responses(measured)
    method = config.build()
    results = ReferringResults(samples, config, eval_key, measured.table, measured.matches, backend=method)
    results.custom_metrics = custom_metrics(results.figures())
    if eval_key is None:
        return results
    _check_attributes(samples, config, eval_key)
    config.fields_written = False
    earlier = _put_run(samples, eval_key, results)
    for replaced in _replaced(samples, eval_key, earlier):
        _remove(samples, eval_key, replaced)
    method.register_samples(samples, eval_key)
    writer = _Writer(measured, results, eval_key)
    for start in range(0, len(measured.ids), CHUNK):
        writer.write(measured.ids[start : start + CHUNK])
        yield min(1.0, (start + CHUNK) / len(measured.ids))
    config.fields_written = True
    method.update_run_config(samples, eval_key, config)
    method.add_fields_to_sidebar_group(samples, eval_key)
    make_durable(samples._dataset)
    return results


def _note_lost_responses(measured: Measured) -> None:
    """Note that a result stands without its responses, as a cloned field does."""
    config, dataset = measured.config, measured.samples._dataset
    name, responses = config.pred_field, labels.responses_field(config.pred_field)
    is_result = dataset.get_field(f"{name}.detections.checkpoint") is not None
    if is_result and dataset.get_field(responses) is None and len(measured.table):
        first = measured.table.iloc[0]
        config.counts[WITHOUT_RESPONSE] = len(measured.table)
        config.notes[WITHOUT_RESPONSE] = (
            f"{first['expression']!r} on sample {first['sample_id']}: there is no field {responses!r}, so a failed or "
            f"unreadable answer may count as a no-target answer. If {name!r} is a clone, clone the responses as well: "
            f"dataset.clone_sample_field('<original>_responses', {responses!r})"
        )


def _check_attributes(samples: fo.Dataset | fo.DatasetView, config: ReferringEvaluationConfig, eval_key: str) -> None:
    """Raise ValueError if the run would overwrite an undeclared attribute of a label.

    The database searches the labels, because FiftyOne's `get_dynamic_field_schema` would read all attributes of all
    labels.
    """
    own, dataset = fields_of_run(samples, eval_key), samples._dataset
    for name in (config.gt_field, config.pred_field):
        paths = {f"{eval_key}{suffix}": f"{name}.detections.{eval_key}{suffix}" for suffix in ("", "_id", "_iou")}
        unknown = [its for its, path in paths.items() if path not in own and dataset.get_field(path) is None]
        if not unknown:
            continue
        having = {"$elemMatch": {"$or": [{attribute: {"$ne": None}} for attribute in unknown]}}
        wanted = {paths[attribute]: True for attribute in unknown}
        if found := dataset._sample_collection.find_one({f"{name}.detections": having}, wanted):
            there = {its for label in found[name]["detections"] for its, value in label.items() if value is not None}
            attribute = next(attribute for attribute in unknown if attribute in there)
            raise ValueError(f"detections in {name!r} have an attribute {attribute!r}; choose another key")


def _put_run(samples: fo.Dataset | fo.DatasetView, eval_key: str, results: ReferringResults) -> RunDocument | None:
    """Store a run under a name, and return the run that had the name before."""
    dataset = samples._dataset
    stages = samples._serialize(include_uuids=False) if isinstance(samples, fo.DatasetView) else None
    document = RunDocument(
        dataset_id=dataset._doc.id,
        key=eval_key,
        version=foc.VERSION,
        timestamp=datetime.now(UTC).replace(tzinfo=None),
        config=deepcopy(results.config.serialize()),
        view_stages=None if stages is None else [json_util.dumps(stage) for stage in stages],
    )
    document.results.put(json_util.dumps(results.serialize()).encode(), content_type="application/json")
    document.save(upsert=True)
    earlier = dataset._doc.evaluations.get(eval_key)
    dataset._doc.evaluations[eval_key] = document
    dataset.save()
    dataset._evaluation_cache[eval_key] = results
    return earlier


def _replaced(
    samples: fo.Dataset | fo.DatasetView, eval_key: str, earlier: RunDocument | None
) -> Iterator[RunDocument]:
    """Yield the runs that a new run of that name replaces.

    One had the name before, and others were left in the database by a killed evaluation.
    """
    if earlier is not None:
        yield earlier
    dataset = samples._dataset
    known = {earlier.id if earlier is not None else None, dataset._doc.evaluations[eval_key].id}
    for document in RunDocument.objects(dataset_id=dataset._doc.id, key=eval_key):
        of_us = str(document.config.get("cls", "")).endswith(f".{ReferringEvaluationConfig.__name__}")
        if of_us and document.id not in known:
            yield document


def _remove(samples: fo.Dataset | fo.DatasetView, eval_key: str, earlier: RunDocument) -> None:
    """Remove the fields and the results of a run that another one has replaced."""
    ReferringEvaluationConfig.from_dict(deepcopy(earlier.config)).build().cleanup(samples, eval_key)
    earlier.results.delete()
    earlier.delete()


class _Writer:
    """Writer of a run's fields.

    `set_values` would send each of the fields by itself, and the database write the whole document, masks and all, once
    for each of them. This class sends all fields of a sample at once.
    """

    def __init__(self, measured: Measured, results: ReferringResults, eval_key: str):
        self._dataset, self._config, self._key = measured.samples._dataset, measured.config, eval_key
        self._verdicts: Verdicts = measured.verdicts
        self._several = holds_several(measured.samples, measured.config.expression_field)
        self._rows = results.table.groupby("sample_id", sort=False).indices  # of each sample
        self._columns = {name: results.table[name].to_numpy() for name in ("iou", "box_iou", "target_area", "kind")}

    def write(self, ids: Sequence[str]) -> None:
        now = datetime.now(UTC).replace(tzinfo=None)
        paths = {"gt": f"{self._config.gt_field}.detections", "pred": f"{self._config.pred_field}.detections"}
        view = every_image(self._dataset).select(ids, ordered=True)
        read = view.values(["id", *(f"{path}.id" for path in paths.values())])
        writes = []
        for sample_id, *label_ids in zip(*read, strict=True):
            judged: Counter[tuple[str, str | None]] = Counter()
            for (side, path), of in zip(paths.items(), label_ids, strict=True):
                for label_id in of or ():
                    verdict = self._verdicts[side].get((sample_id, label_id))
                    found = (verdict.eval, verdict.match, verdict.iou) if verdict else (None, None, None)
                    judged[side, found[0]] += 1
                    where = {"_id": ObjectId(sample_id), f"{path}._id": ObjectId(label_id)}
                    names = (f"{path}.$.{self._key}{suffix}" for suffix in ("", "_id", "_iou"))
                    writes.append(UpdateOne(where, {"$set": dict(zip(names, found, strict=True))}))
            values = self._sample_values(sample_id)
            values |= {"tp": judged["pred", "tp"], "fp": judged["pred", "fp"], "fn": judged["gt", "fn"]}
            changed = {f"{self._key}_{name}": value for name, value in values.items()} | {"last_modified_at": now}
            writes.append(UpdateOne({"_id": ObjectId(sample_id)}, {"$set": changed}))
        self._dataset._bulk_write(writes, ids=[ObjectId(sample_id) for sample_id in ids])

    def _sample_values(self, sample_id: str) -> dict[str, Any]:
        """Return the values of `SAMPLE_FIELDS` on a sample; None without an expression."""
        at = self._rows.get(sample_id)
        if at is None:
            return dict.fromkeys(SAMPLE_FIELDS)
        rows: dict[str, np.ndarray] = {name: column[at] for name, column in self._columns.items()}
        targets, of = rows["target_area"] > 0, rows["kind"].tolist()
        return {
            "mask_iou": float(rows["iou"].mean()),
            "box_iou": float(rows["box_iou"][targets].mean()) if targets.any() else None,
            "no_target_correct": None if targets.all() else bool((rows["kind"][~targets] == kinds.CORRECT).all()),
            "failure": of if self._several else of[0],
        }
