"""Settings of the panel "Ask" for a dataset: the model, and the output field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone as fo
from fiftyone.operators.store import ExecutionStore

from fiftyone_genseg import default_checkpoint
from fiftyone_genseg.segmentation.request import MODEL_OPTIONS, SegmentRequest

NAMES = ("checkpoint", "revision", "output_field", "device", "server", "served_model", "segmenter", "advanced")
_STORE, _KEY = "genseg_ask", "settings"


def load(dataset: fo.Dataset) -> dict[str, Any]:
    """Return the values of the form that the user sent last.

    Without a form the default checkpoint answers.
    """
    return {"checkpoint": default_checkpoint.find().name} | (_store(dataset).get(_KEY) or {})


def save(dataset: fo.Dataset, params: Mapping[str, Any]) -> None:
    """Keep the values of a form; others than settings are left out."""
    known = (*NAMES, *MODEL_OPTIONS)
    _store(dataset).set(_KEY, {name: params[name] for name in known if params.get(name) is not None})


def request_for(dataset: fo.Dataset, expression: str = "something") -> SegmentRequest:
    """Return the request for one expression, with the dataset's settings.

    Args:
        dataset: dataset that the question is about.
        expression: typed expression, perhaps with its class: "the red car -> car". The default suits callers that need
            the settings only.
    """
    return SegmentRequest.from_params(None, {**load(dataset), "source": "typed", "expressions": expression})


def _store(dataset: fo.Dataset) -> ExecutionStore:
    return ExecutionStore.create(_STORE, dataset._doc.id)
