"""Tables of an evaluation, and how they are stored.

One table has a row per expression, and the other table has a row per pair of instances.
"""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
from genseg_hub.evaluation.metrics import Overlap

from fiftyone_genseg.statuses import FAILED, MISSING, UNPARSABLE

# One row per expression. Positions are shares of the image; -1 distractors means unknown. Unknown COSTS are NaN.
TABLE = {
    "sample_id": "str",
    "image": "int32",
    "expression": "str",
    "status": "category",
    "intersection": "int64",
    "target_area": "int64",
    "prediction_area": "int64",
    "image_area": "int64",
    "box_iou": "float32",
    "n_true": "int32",
    "n_predicted": "int32",
    "n_missed": "int32",
    "n_extra": "int32",
    "target_x": "float32",
    "target_y": "float32",
    "distractors": "int32",
    "seconds": "float32",
    "tokens": "float32",
    "memory_bytes": "float32",
}
COSTS = ("seconds", "tokens", "memory_bytes")
MATCHES = {"gt_id": "str", "pred_id": "str", "iou": "float32", "confidence": "float32"}
_IDS = ("sample_id", "gt_id", "pred_id")


def answered(table: pd.DataFrame) -> np.ndarray:
    """Return bool[N]: the expressions with a usable answer.

    An answer is usable when it gave a mask, or said properly that nothing is meant. A failed, missing or unreadable
    answer without a mask is none.

    Args:
        table: table with the columns status and prediction_area.
    """
    status = table["status"].astype(str)
    unreadable = (status == UNPARSABLE) & (table["prediction_area"] == 0)
    return ~(unreadable | status.isin([FAILED, MISSING])).to_numpy()


def overlap(table: pd.DataFrame) -> Overlap:
    """Return the columns that the metrics need."""
    columns = {name: table[name].to_numpy() for name in Overlap._fields if name != "answered"}
    return Overlap(**columns, answered=answered(table))


def pack(frame: pd.DataFrame) -> str:
    """Return a table as Base64 of Parquet, with object ids as 12 bytes.

    The bytes become Base64, because FiftyOne stores the results of a run as JSON.
    """
    frame = frame.copy()
    for name in frame.columns.intersection(_IDS):
        frame[name] = [bytes.fromhex(value) for value in frame[name]]
    buffer = io.BytesIO()
    plain = [name for name in frame.columns if name in _IDS or pd.api.types.is_float_dtype(frame[name])]
    frame.to_parquet(
        buffer,
        index=False,
        compression="zstd",
        compression_level=9,
        use_dictionary=[name for name in frame.columns if name not in plain],
    )
    return base64.b64encode(buffer.getvalue()).decode()


def unpack(data: str | bytes, columns: dict[str, str]) -> pd.DataFrame:
    """Return the table that `pack` was given.

    Args:
        data: as `pack` returns it, or the bare Parquet that earlier versions stored.
        columns: `TABLE` or `MATCHES`; columns that the data lacks are left out.
    """
    parquet = base64.b64decode(data) if isinstance(data, str) else data
    frame = pd.read_parquet(io.BytesIO(parquet))
    for name in frame.columns.intersection(_IDS):
        frame[name] = [value.hex() for value in frame[name]]
    return frame.astype({name: kind for name, kind in columns.items() if name in frame})
