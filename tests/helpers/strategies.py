"""Hypothesis strategies for what comes from outside: answers of models, pictures, masks and tables."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable

import numpy as np
import pandas as pd
from datasets import ClassLabel, List, Value
from genseg_hub import answers, dialects
from genseg_hub.referring_dataset import RLE
from genseg_hub.schema import Failure, Prediction, normalize_expression
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask

ONE = '{"bbox_2d":[100,200,300,400],"points":[[150,250],[200,300]]}'
FRAGMENTS = [
    *("<think>", "</think>", "<thinking>", "<answer>", "</answer>", "```json", "```"),
    *("[", "]", "{", "}", ",", '"', "\\", "-", "[1,2,3,4]", "1e999", "NaN", "1e39", "1234567890"),
    *('"bbox_2d":', '"bbox":', '"points_1":[1,2]', '"point_2d":[1,2]', ONE, "<|box_start|>(1,2),(30,40)"),
    *("<bbox>", "</bbox>", "<points>[[1,2],[3,4]]</points>", "<labels>[1,0]</labels>"),
    *("\x00", "\ud800", "\udfff", "\uff19", "There is no dog in the image."),
]


def tagged(answer: str) -> str:
    return f"<think>because</think><answer>{answer}</answer>"


texts = st.text(st.characters(), max_size=40)  # with lone surrogates, unlike st.text()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["bbox_2d", "points", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)
numbers = st.integers(0, 1000) | st.sampled_from([-5, 1001, 2500, 1234567890, -(10**12), 10**400, 1e39, 1e308, 0.5])
boxes = st.lists(st.integers(0, 1000), min_size=4, max_size=4) | st.lists(numbers, min_size=4, max_size=4)
points = st.tuples(numbers, numbers).map(list)
# Boxes and points that a dialect reads as they are: in the image, with an area.
good_boxes = st.tuples(*[st.integers(0, 999)] * 4).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]) + 1, max(b[1], b[3]) + 1)
)
good_points = st.tuples(st.integers(0, 1000), st.integers(0, 1000))
_corner, _side = st.integers(0, 900), st.integers(20, 100)
small_boxes = st.tuples(_corner, _corner, _side, _side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
# Boxes about the middle, whose coordinates are neither shares of the image nor lie in one half of it.
_low, _high = st.integers(2, 499), st.integers(500, 1000)
middle_boxes = st.lists(st.tuples(_low, _low, _high, _high).map(list), min_size=1, max_size=4, unique_by=tuple)


@st.composite
def wellformed(draw) -> str:
    """Return an answer in the form of one of the dialects, with numbers of any size."""
    found = draw(st.lists(st.tuples(boxes, points, points), max_size=4))
    found *= draw(st.sampled_from([1, 1, 1, 40]))
    thought = f"<think>{draw(texts)}</think>"
    form = draw(st.sampled_from(["bbox_2d", "bbox", "points", "tags"]))
    if form == "tags":
        said = "".join(f"<bbox>{json.dumps(box)}</bbox>" for box, _, _ in found)
        inner = [point for _, a, b in found for point in (a, b)]
        return f"{thought}{said}<points>{json.dumps(inner)}</points><labels>{json.dumps([1, 0] * len(found))}</labels>"
    objects = [
        {"bbox_2d": box, "points": [a, b], "point_2d": a}
        if form == "bbox_2d"
        else {"bbox": box, "points_1": a, "points_2": b}
        if form == "bbox"
        else {"points": [a, b]}
        for box, a, b in found
    ]
    return f"{thought}<answer>{json.dumps(objects)}</answer>"


spoken = (
    texts
    | st.binary()
    | st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join)
    | json_values.map(lambda value: tagged(json.dumps(value)))
    | wellformed()
)
sizes = st.tuples(st.integers(1, 50), st.integers(1, 50))  # (width, height) of an image
shown_sizes = st.none() | st.tuples(st.integers(1, 3000), st.integers(1, 3000))


@st.composite
def predictions(draw) -> Prediction:
    """Return an answer that a dialect read, with random masks."""
    name, (width, height) = draw(st.sampled_from(dialects.names())), draw(sizes)
    dialect = dialects.get_dialect(name)
    response = answers.read(dialect, draw(spoken), (width, height), draw(st.booleans()), draw(shown_sizes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    masks = tuple(rng.random((height, width)) < rng.random() for _ in response.instances)
    scores = tuple(draw(st.floats(0, 1)) for _ in masks[:1]) + (0.5,) * len(masks[1:])
    return Prediction(response, masks, scores, (width, height), name)


failures = texts.map(lambda text: answers.storable(text, 30)).map(lambda text: Failure(text, ValueError(text)))
results = predictions() | failures


# Pictures

ORIENTATIONS = range(1, 9)
_MODES = {
    "JPEG": ["L", "RGB"],
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "WEBP": ["RGB", "RGBA"],
    "TIFF": ["1", "L", "P", "RGB", "RGBA", "I;16"],
}


def oriented(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


@st.composite
def picture_files(draw) -> bytes:
    """Return a picture file of any format, mode, size and orientation."""
    kind = draw(st.sampled_from(sorted(_MODES)))
    mode = draw(st.sampled_from(_MODES[kind]))
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    if mode == "I;16":
        image = Image.fromarray(draw(arrays(np.uint16, (height, width))))
    else:
        image = Image.fromarray(draw(arrays(np.uint8, (height, width, 3)))).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=oriented(draw(st.sampled_from(ORIENTATIONS))))
    return buffer.getvalue()


# Masks

shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))
masks = shapes.flatmap(lambda shape: arrays(bool, shape))
corners = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=5)  # of a polygon


def masks_of(shape: tuple[int, int], empty: bool = True) -> st.SearchStrategy[np.ndarray]:
    """Return masks of one shape, with or without empty ones."""
    return arrays(bool, shape) if empty else arrays(bool, shape).filter(np.any)


# Shapes of an annotator's file: a label, and corners that may lie outside an image of 40 x 30 pixels.
painted_shapes = st.lists(
    st.tuples(
        st.sampled_from(["target", "ignore", "something", "flag"]),
        st.lists(st.tuples(st.floats(-5, 45), st.floats(-5, 35)), min_size=1, max_size=6),
    ),
    max_size=5,
)


def runs_of(mask: np.ndarray) -> list[int]:
    """Return the lengths of a mask's runs, down the columns, outside it first."""
    flat = np.concatenate(([False], mask.ravel(order="F")))
    starts = np.flatnonzero(np.diff(flat)).tolist()
    edges = [0, *starts, mask.size]
    return [after - before for before, after in itertools.pairwise(edges)]


@st.composite
def rles_of(draw, mask: np.ndarray) -> dict:
    """Return an RLE of a mask as some tool writes it, perhaps with runs of length zero."""
    size = draw(st.sampled_from([list, tuple]))(mask.shape)
    runs = runs_of(mask)
    zeros = draw(st.lists(st.integers(0, len(runs) - 1), max_size=3))
    for place in sorted(zeros, reverse=True):
        runs[place : place + 1] = [runs[place], 0, 0]
    form = draw(st.sampled_from(["runs", "floats", "text", "bytes"]))
    if form == "runs":
        return {"size": size, "counts": runs}
    if form == "floats":
        return {"size": size, "counts": [float(run) for run in runs]}
    counts = coco_mask.frPyObjects({"size": list(mask.shape), "counts": runs}, *mask.shape)["counts"]
    return {"size": size, "counts": counts if form == "bytes" else counts.decode()}


@st.composite
def arrays_of(draw, mask: np.ndarray) -> np.ndarray:
    """Return an array that shows a mask, as some tool saves it."""
    value = draw(st.sampled_from([1, 128, 255]))
    grey = mask.astype(np.uint8) * value
    opaque = np.full(mask.shape, 255, np.uint8)
    black = np.zeros(mask.shape, np.uint8)
    return draw(
        st.sampled_from(
            [
                mask,
                grey,
                grey.astype(np.uint16) * 257,
                grey.astype(np.int32),
                grey / 255,
                grey[..., None],
                np.stack([grey] * 3, axis=-1),
                np.stack([black, grey, black], axis=-1),
                np.stack([grey, opaque], axis=-1),
                np.stack([grey, grey, grey, opaque], axis=-1),
                np.stack([opaque, opaque, opaque, grey], axis=-1),
                np.stack([black, black, black, grey], axis=-1) if mask.any() and not mask.all() else grey,
            ]
        )
    )


# Tables


@st.composite
def tables(draw) -> tuple[str, str, list[list[int]]]:
    """Return the name of a table's file, its text as pandas or a person writes it, and the ids of each of its rows."""
    rows = draw(st.lists(st.lists(st.sampled_from([41, 42]), max_size=2, unique=True), min_size=1, max_size=6))
    if draw(st.booleans()) or not any(rows):
        forms = [str, lambda ids: " ".join(map(str, ids)), lambda ids: ", ".join(map(str, ids)), repr]
        forms += [lambda ids: str(np.array(ids, int)), lambda ids: str([np.int64(i) for i in ids])]
        form = draw(st.sampled_from(forms))
        cells: list = [form(ids) for ids in rows]
    else:
        rows = [ids[:1] for ids in rows]
        cells = [ids[0] if ids else None for ids in rows]  # pandas makes floats of them where one is missing
    frame = pd.DataFrame(
        {"image": "a.jpg", "expression": [f"thing {i}" for i in range(len(rows))], "annotations": cells}
    )
    if draw(st.booleans()):
        return "expressions.jsonl", frame.to_json(orient="records", lines=True), rows
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    return "expressions.csv", frame.to_csv(index=draw(st.booleans()), quoting=quoting), rows


def _or_none(strategy):
    return st.none() | strategy


_TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
_COLUMNS = {
    "string": (Value("string"), _or_none(_TEXT)),
    "int": (Value("int64"), _or_none(st.integers(-(2**63), 2**63 - 1))),
    "float": (Value("float64"), _or_none(st.floats(allow_nan=False))),
    "bool": (Value("bool"), _or_none(st.booleans())),
    "time": (
        Value("timestamp[ms]"),
        _or_none(st.datetimes().map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000))),
    ),
    "day": (Value("date32"), _or_none(st.dates())),
    "strings": (List(Value("string")), _or_none(st.lists(_TEXT, max_size=2))),
    "floats": (List(Value("float32")), _or_none(st.lists(st.floats(width=32, allow_nan=False), max_size=2))),
    "class": (ClassLabel(names=["cat", "dog"]), _or_none(st.integers(-1, 1))),
}
_COLUMN_NAMES = (
    "ref_id",
    "category",
    "split",
    "a.b",
    "a_b",
    "_x",
    "id",
    "metadata",
    "ground_truth",
    "tags",
    "self",
    "é ü",
    "column_id",
)


@st.composite
def column_tables(draw, rle: Callable[[int], dict]) -> tuple[list[dict], dict]:
    """Return rows of a `datasets.Dataset` with columns of any kinds and names, and the types of the columns.

    Args:
        draw: of Hypothesis.
        rle: returns a mask for a number.
    """
    kinds = draw(st.dictionaries(st.sampled_from(_COLUMN_NAMES), st.sampled_from(sorted(_COLUMNS)), min_size=4))
    features = {name: _COLUMNS[kind][0] for name, kind in kinds.items()}
    values = {name: _COLUMNS[kind][1] for name, kind in kinds.items()}
    if draw(st.booleans()):
        features["ignore"] = List(RLE)
        values["ignore"] = st.sampled_from([[], [rle(99)]])
    if draw(st.booleans()):
        features["tags"] = List(Value("string"))
        values["tags"] = st.lists(st.sampled_from("abc"), unique=True)
    values["masks"] = st.lists(st.integers(0, 9).map(rle), max_size=3)
    values["expression"] = _TEXT.filter(normalize_expression)
    return draw(st.lists(st.fixed_dictionaries(values), min_size=1, max_size=3)), features
