"""Ask one sample: the answer while it is generated, then its labels on the sample.

Questions of this process are answered one after the other, and the model and the image stay warm between them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import fiftyone.core.json as foj
import numpy as np
from genseg_hub.images import image_size
from genseg_hub.schema import Failure, Prediction, Progress

from fiftyone_genseg import outputs
from fiftyone_genseg.fields import every_image
from fiftyone_genseg.segmentation import engines
from fiftyone_genseg.segmentation.request import SegmentRequest
from fiftyone_genseg.segmentation.run import Target, store, write
from fiftyone_genseg.segmentation.summary import Summary

if TYPE_CHECKING:
    from genseg_hub import GenSegR1

_AGAIN = 1.0  # seconds in which the App sends one click or key twice

_Question = tuple[str, str, str]  # dataset, sample and expression
_one_at_a_time = threading.Lock()
_declaring = threading.Lock()
_known = threading.Lock()
_open: dict[_Question, threading.Event] = {}  # with the wish to stop
_ended: dict[_Question, float] = {}


@dataclass(frozen=True)
class Asked:
    """Progress of a question.

    Attributes:
        progress: progress of the model.
        preview: the sample with the boxes and points of the answer, not saved; None before they are known, and after
            the labels are saved.
        stored: whether the result is saved on the sample.
        failure: why there is no answer; "" for none.
        new_field: whether the dataset has only now got the output field.
    """

    progress: Progress
    preview: fo.Sample | None = None
    stored: bool = False
    failure: str = ""
    new_field: bool = False


def ask(
    dataset: fo.Dataset,
    sample_id: str,
    request: SegmentRequest,
    api_key: str | None = None,
    token: str | None = None,
) -> Iterator[Asked]:
    """Ask one expression of one sample.

    The answer takes the place of an earlier result for the same expression. A question that is open already, or ended a
    moment ago, is not asked again: FiftyOne sends events twice.

    Args:
        dataset: the sample's own.
        sample_id: id of the sample.
        request: has one expression.
        api_key: key of the request's server; None for OPENAI_API_KEY.
        token: token of the Hub; None for HF_TOKEN.

    Yields:
        True if the output field is new; then the progress, the answer before its masks are made, and last the stored
        result.

    Raises:
        ValueError: the request does not have one expression, or there is no such sample.
        genseg_hub.errors.CheckpointError, genseg_hub.errors.ReasonerError: the model cannot be loaded.
    """
    if len(request.expressions) != 1:
        raise ValueError(f"ask one expression at a time, not {len(request.expressions)}")
    (expression,) = request.expressions
    question = dataset.name, sample_id, expression
    stopped = threading.Event()
    with _known:
        if question in _open or time.monotonic() - _ended.get(question, 0.0) < _AGAIN:
            return
        _open[question] = stopped
        _ended.clear()
    try:
        with _declaring:  # FiftyOne refuses to change one field in two threads
            new_field = dataset.get_field(request.output_field) is None
            outputs.declare_fields(dataset, request.output_field)
        if new_field:
            yield Asked(Progress(""), new_field=True)
        yield from _answered(dataset, sample_id, request, stopped, api_key, token)
    finally:
        with _known:
            del _open[question]
            _ended[question] = time.monotonic()


def stop(dataset_name: str, sample_id: str) -> bool:
    """Stop the questions about a sample, and return whether there were any.

    A question stops at its next word.
    """
    with _known:
        found = [wish for (name, sample, _), wish in _open.items() if (name, sample) == (dataset_name, sample_id)]
    for wish in found:
        wish.set()
    return bool(found)


@contextmanager
def warm_model(request: SegmentRequest, api_key: str | None = None, token: str | None = None) -> Iterator[GenSegR1]:
    """Lend the model of the questions, when no question is being answered.

    See `ask` for the arguments.
    """
    with _one_at_a_time, engines.model(request, api_key, token, keep=True) as model:
        yield model


def as_app_reads(sample: fo.Sample) -> dict[str, Any]:
    """Return a sample, saved or not, as the App reads it."""
    return foj.stringify(sample.to_mongo_dict(include_id=True))


def _answered(
    dataset: fo.Dataset,
    sample_id: str,
    request: SegmentRequest,
    stopped: threading.Event,
    api_key: str | None,
    token: str | None,
) -> Iterator[Asked]:
    (expression,) = request.expressions
    sample = sample_of(dataset, sample_id)
    progress = Progress("")
    result: Prediction | Failure | None = None
    yield Asked(progress)
    with warm_model(request, api_key, token) as model:
        pinned = model.checkpoint.pinned if model.checkpoint else "a model without a checkpoint"
        target = Target(request.output_field, pinned, request.options_in_words, request.labels)
        try:
            with closing(model.ask(sample.filepath, expression)) as states:
                for progress in states:
                    if stopped.is_set():
                        return
                    if progress.response and not progress.prediction:
                        yield Asked(progress, _preview(sample, progress, expression, target))
                    elif not progress.prediction:
                        yield Asked(progress)
            result = progress.prediction
        except Exception as error:  # noqa: BLE001  recorded on the sample, as a run does
            from genseg_hub.streaming import explain

            result = Failure(explain(error), error)
    assert result is not None
    write(dataset, {sample_id: [(expression, result)]}, target, Summary())
    yield Asked(progress, stored=True, failure=result.message if isinstance(result, Failure) else "")


def sample_of(dataset: fo.Dataset, sample_id: str) -> fo.Sample:
    """Return a sample of a dataset, also of one whose samples are groups.

    Raises:
        ValueError: there is no such sample.
    """
    found = every_image(dataset).select(sample_id)
    if not len(found):
        raise ValueError("the sample is gone, or is no image: close it, and reload the page")
    return found.first()


def _preview(sample: fo.Sample, progress: Progress, expression: str, target: Target) -> fo.Sample:
    """Put boxes and points on a sample in memory, before there are masks."""
    assert progress.response is not None
    width, height = image_size(sample.filepath)
    count = len(progress.response.instances)
    empty = np.zeros((height, width), dtype=bool)
    prediction = Prediction(progress.response, (empty,) * count, (0.0,) * count, (width, height))
    store(sample, target, [expression], [prediction], Summary())
    return sample
