"""Attributes of an expression, computed without the model.

Each is one column of text values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

NONE = "none"
SEVERAL = "several"
UNKNOWN = "unknown"
# English only. Longer phrases come first: the first that matches at a place is taken there.
_WORDS = {
    "space": (
        "to the left of|to the right of|left of|right of|on top of|in front of|next to|in the middle|at the top|"
        "at the bottom|leftmost|rightmost|topmost|bottommost|lowest|uppermost|above|below|under|beneath|over|behind|"
        "beside|between|inside|near|around|on|in|left|right|top|bottom|middle|center|centre|front|back|corner"
    ),
    "comparison": (
        "largest|smallest|biggest|tallest|shortest|longest|closest|nearest|farthest|furthest|oldest|youngest|"
        "larger|smaller|bigger|taller|shorter|longer|closer|nearer|farther|older|younger|more|less|most|least"
    ),
    "colour": (
        "red|orange|yellow|green|cyan|blue|purple|violet|pink|magenta|brown|black|white|gray|grey|gold|silver|beige"
    ),
    "count": "all|both|every|each|two|three|four|five|six|seven|eight|nine|ten",
    "ordinal": "first|second|third|fourth|fifth|last",
    "negation": "not|no|without|except|nothing|none|never|neither|isn't|aren't|doesn't|don't",
}
WORDS = {name: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for name, words in _WORDS.items()}
LENGTHS = ((2, "1-2 words"), (5, "3-5 words"), (10, "6-10 words"))
SIZES = ((0.01, "below 1%"), (0.05, "1-5%"), (0.2, "5-20%"))


def words(expressions: Iterable[str], pattern: re.Pattern[str]) -> list[str]:
    """Return each expression's term, "none", or "several" for different terms."""
    values = []
    for expression in expressions:
        found = {term.lower() for term in pattern.findall(expression)}
        values.append(NONE if not found else found.pop() if len(found) == 1 else SEVERAL)
    return values


def _binned(values: np.ndarray, bins: Sequence[tuple[float, str]], beyond: str) -> np.ndarray:
    return np.select([values <= limit for limit, _ in bins], [name for _, name in bins], beyond)


def attributes(table: pd.DataFrame, fields: Mapping[str, Sequence] | None = None) -> pd.DataFrame:
    """Return all attributes, one row per expression, one categorical column each.

    `length` in words; `targets` (none, one, several); `size`: the targets' share of the image; `position` of the
    targets' centre in a grid of three by three; `same_class_distractors`, if the run knew the objects of the image; and
    the terms of space, comparison, colour, count, ordinal and negation. Columns with a single value are left out.

    Args:
        table: table with the columns expression, status, n_true, target_area, image_area, target_x, target_y,
            distractors.
        fields: further attributes, name -> one value per row; None becomes "none". Numbers with
            more than 10 different values are cut at their quartiles.
    """
    unique, codes = np.unique(table["expression"].astype(str).to_numpy(), return_inverse=True)
    columns: dict[str, np.ndarray] = {
        "length": _binned(np.array([len(e.split()) for e in unique], dtype=int), LENGTHS, "over 10 words")[codes]
    }
    has_target = (table["target_area"] > 0).to_numpy()
    columns["targets"] = np.select([~has_target, table["n_true"] > 1], [NONE, SEVERAL], "one")
    share = (table["target_area"] / np.maximum(table["image_area"], 1)).to_numpy()
    measured = (table["status"] != "failed").to_numpy()
    columns["size"] = np.select(
        [~has_target, measured], [np.full(len(table), NONE), _binned(share, SIZES, "over 20%")], UNKNOWN
    )
    across = _binned(table["target_x"].to_numpy(), ((1 / 3, "left"), (2 / 3, "centre")), "right")
    down = _binned(table["target_y"].to_numpy(), ((1 / 3, "top"), (2 / 3, "middle")), "bottom")
    where = np.char.add(np.char.add(down, " "), across)
    columns["position"] = np.select([~has_target, measured], [np.full(len(table), NONE), where], UNKNOWN)
    known = (table["distractors"] >= 0).to_numpy()
    counts = _binned(table["distractors"].to_numpy(), ((0, "0"), (1, "1")), "2 or more")
    columns["same_class_distractors"] = np.where(known, counts, NONE)
    for name, pattern in WORDS.items():
        columns[name] = np.array(words(unique, pattern))[codes]
    for name, values in (fields or {}).items():
        columns[name] = _as_text(pd.Series(list(values)))
    frame = pd.DataFrame({name: pd.Categorical(values) for name, values in columns.items()}, index=table.index)
    return frame.loc[:, frame.nunique() > 1]


def _as_text(values: pd.Series) -> np.ndarray:
    if pd.api.types.is_float_dtype(values):
        values = values.replace([np.inf, -np.inf], np.nan)
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and values.nunique() > 10:
        values = pd.qcut(values, 4, duplicates="drop")
    return values.astype(object).map(lambda value: NONE if pd.isna(value) else str(value)).to_numpy()
