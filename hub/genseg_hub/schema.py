"""Data that travels through the system, as frozen dataclasses.

Coordinates are absolute pixels of the original image, xyxy, floats. Masks are bool[H, W] in memory and COCO RLE
(pycocotools) at rest. This module knows no model, no prompt and no FiftyOne.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

Box = tuple[float, float, float, float]
Point = tuple[float, float]
Rle = dict[str, Any]
_MOST_GROUPS = 7  # of 5 bits, in a number of 32 bits
ImageLike = str | Path | bytes | Image.Image | np.ndarray


def normalize_expression(expression: str) -> str:
    """Return the one form in which an expression is asked, stored and found.

    The text is in Unicode form NFC. Control characters, lone surrogates and line separators become spaces, each run of
    white space becomes one space, and white space at both ends is removed. Normalizing twice changes nothing.
    """
    if expression.isascii() and expression.isprintable():
        return " ".join(expression.split())
    printable = "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in expression)
    return " ".join(unicodedata.normalize("NFC", printable).split())


def encode_mask(mask: np.ndarray) -> Rle:
    """Encode a bool[H, W] mask as COCO RLE: {"size": [H, W], "counts": str}.

    The counts equal `pycocotools.mask.encode` of the whole image. Here the mask's own box is enough, unless the box
    takes most of the image.
    """
    height, width = map(int, mask.shape)
    mask = mask if mask.dtype == bool else mask != 0
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    changes = np.empty(0, np.int64)
    if len(rows):
        top, left = rows[0], columns[0]
        part = mask[top : rows[-1] + 1, left : columns[-1] + 1].T
        if 2 * part.size > mask.size:
            rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
            return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
        framed = np.zeros((part.shape[0], part.shape[1] + 2), bool)
        framed[:, 1:-1] = part
        column, row = np.divmod(np.flatnonzero(framed[:, 1:] != framed[:, :-1]), part.shape[1] + 1)
        changes = (left + column) * height + top + row
        if part.shape[1] == height:  # a run goes on from the foot of a column to the head of the next
            ends_where_next_begins = np.flatnonzero(changes[1:] == changes[:-1])
            changes = np.delete(changes, np.concatenate((ends_where_next_begins, ends_where_next_begins + 1)))
    if not len(changes) or changes[-1] != height * width:
        changes = np.append(changes, height * width)
    return {"size": [height, width], "counts": _compressed(np.diff(changes, prepend=0))}


def _compressed(runs: np.ndarray) -> str:
    """Return the counts that `rle_runs` reads.

    rleToString of cocoapi's maskApi.c writes the same text.
    """
    left = runs.astype(np.int64)
    left[3:] -= runs[1:-2]
    groups = np.zeros((len(left), _MOST_GROUPS), np.uint8)
    begun, number = np.ones(len(left), bool), 0
    while begun.any():
        bits = left & 31
        left = left >> 5
        goes_on = np.where(bits & 16, left != -1, left != 0)
        groups[:, number] = np.where(begun, (bits | (goes_on << 5)) + 48, 0)
        begun, number = begun & goes_on, number + 1
    return groups[groups > 0].tobytes().decode("ascii")


# A number is up to six characters that announce a next one, then a last one. pycocotools reads past a broken end.
_COUNTS = re.compile(r"(?:[P-o]{0,6}[0-O])+")


def check_rle(rle: Rle) -> None:
    """Raise ValueError unless the runs of a compressed RLE cover its size exactly.

    pycocotools does not check this. With too few pixels it returns uninitialized memory, and with empty runs it writes
    past the end of its buffer.
    """
    height, width = map(int, rle["size"])
    runs = rle_runs(rle["counts"])
    pixels = height * width
    whole = runs[0] >= 0 and runs[1:].min(initial=1) > 0 and runs.max() <= pixels and runs.sum() == pixels
    if height < 1 or width < 1 or not whole:
        raise ValueError(f"the counts of an RLE do not cover a mask of {height} x {width} (height, width)")


def rle_runs(counts: str | bytes) -> np.ndarray:
    """Return the lengths of the runs of a compressed RLE: int64[runs].

    The runs lie outside and inside the mask in turn. rleFrString of cocoapi's maskApi.c reads this format: groups of 5
    bits, the lowest group first. Bit 32 announces another group and the highest bit is the sign. From the fourth run on
    a number is the difference to the last run but one.

    Raises:
        ValueError: the counts are malformed; pycocotools would read past their end.
    """
    text = counts.decode("latin1") if isinstance(counts, bytes) else counts
    if not isinstance(text, str) or not _COUNTS.fullmatch(text):
        raise ValueError("the counts of an RLE are malformed")
    groups = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(groups < 32)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    places = 5 * (np.arange(len(groups)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((groups & 31) << places, starts) - ((groups[ends] >> 4) << 5 * lengths)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs


def decode_mask(rle: Rle) -> np.ndarray:
    """Decode a COCO RLE into bool[H, W].

    Raises:
        ValueError: as `check_rle`.
    """
    check_rle(rle)
    return coco_mask.decode(rle).astype(bool)


class ResponseError(StrEnum):
    """Reasons why an answer of the reasoner cannot be used as it is."""

    NO_ANSWER_TAG = "no_answer_tag"
    TRUNCATED = "truncated"
    TRUNCATED_THOUGHT = "truncated_thought"
    INVALID_JSON = "invalid_json"
    WRONG_SCHEMA = "wrong_schema"
    WRONG_SCALE = "wrong_scale"
    BOX_OUT_OF_IMAGE = "box_out_of_image"
    POINT_OUT_OF_IMAGE = "point_out_of_image"
    EMPTY_BOX = "empty_box"
    TOO_MANY_INSTANCES = "too_many_instances"
    TOO_MANY_ROUNDS = "too_many_rounds"


@dataclass(frozen=True)
class InstancePrompt:
    """One referred instance in the words of the reasoner.

    Attributes:
        box: (x1, y1, x2, y2) in pixels of the original image, ordered and inside the image; None if the reasoner gave
            points only.
        points: interior points (x, y) in pixels of the original image.
        points_outside_box: number of `points` outside `box`. They are reported, never moved.
        negative_points: points (x, y) outside the instance; only some dialects have them.
    """

    box: Box | None
    points: tuple[Point, ...]
    points_outside_box: int = 0
    negative_points: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Response:
    """The parsed answer of the reasoner, as `answers.read` makes it.

    Attributes:
        text: the generated answer, at most `answers.MAX_CHARACTERS`; U+FFFD replaces characters that no file can hold.
        reasoning: the think part, at most `answers.MAX_REASONING_CHARACTERS`; "" if there is none.
        instances: the usable instance prompts; () is a no-target answer when `error` is None.
        error: the first error, None for a clean answer. Readable instances are kept beside an error.
        repaired: whether the JSON had to be repaired before it could be read.
        no_target_in_words: whether the no-target answer was read from words, a null or an empty box instead of `[]`.
        repeated: number of instances that were left out because they repeat an earlier one exactly.
        cut: whether the text or the reasoning was longer, and the rest is lost.
        tokens: number of tokens that the reasoner generated; None if unknown. Two responses that differ only in it are
            equal.
    """

    text: str
    reasoning: str = ""
    instances: tuple[InstancePrompt, ...] = ()
    error: ResponseError | None = None
    repaired: bool = False
    no_target_in_words: bool = False
    repeated: int = 0
    cut: bool = False
    tokens: int | None = field(default=None, compare=False)

    @property
    def no_target(self) -> bool:
        """Return whether the reasoner answered that the expression refers to nothing.

        An answer with an error does not count.
        """
        return self.error is None and not self.instances


@dataclass(frozen=True)
class ReferringExample:
    """An image, an expression and the masks it refers to.

    Attributes:
        image: path, content of an image file, PIL image or uint8[H, W, 3].
        expression: the natural-language query.
        masks: COCO RLE of every referred instance; () for no-target; None when unknown.
        example_id, image_id: identifiers, "" for none. Neighbours with the same non-empty `image_id` share the image.
        attributes: facts about the expression, for slicing.
        ignore: COCO RLE of the pixels that no metric counts.
    """

    image: ImageLike
    expression: str
    masks: tuple[Rle, ...] | None = None
    example_id: str = ""
    image_id: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    ignore: Rle | None = None


@dataclass(frozen=True)
class Cost:
    """Cost of a prediction on the machine that made it, see `costs.measured`.

    Attributes:
        seconds: wall-clock time between the result before it and this one, without loading the model.
        memory_bytes: memory of the process that answered, see `costs.memory_bytes`. A server's memory is not in it.
        device: type of the model's device: "cuda", "mps" or "cpu". With a server, the segmenter's.
    """

    seconds: float
    memory_bytes: int
    device: str


@dataclass(frozen=True, eq=False)
class Prediction:
    """Result of one expression in one image.

    Attributes:
        response: the parsed answer.
        masks: one bool[H, W] per instance of `response`, in the same order.
        scores: scores of each mask, in [0, 1]: the segmenter's predicted IoU, or the score of SAM 3 by words.
        image_size: (width, height) of the original image in pixels.
        dialect: name of the dialect that read the answer; "" where none did, as for SAM 3 and other systems.
        cost: cost of the prediction; None if nobody measured it.
    """

    response: Response
    masks: tuple[np.ndarray, ...]
    scores: tuple[float, ...]
    image_size: tuple[int, int]
    dialect: str = ""
    cost: Cost | None = None

    @property
    def mask(self) -> np.ndarray:
        """Return the union of the instance masks, bool[H, W]; all False for no-target."""
        width, height = self.image_size
        union = np.zeros((height, width), dtype=bool)
        for mask in self.masks:
            union |= mask
        return union

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as JSON-ready values; masks become COCO RLE."""
        return {
            "image_size": list(self.image_size),
            "dialect": self.dialect,
            "reasoning": self.response.reasoning,
            "error": self.response.error.value if self.response.error else None,
            "no_target": self.response.no_target,
            "no_target_in_words": self.response.no_target_in_words,
            "repaired": self.response.repaired,
            "repeated": self.response.repeated,
            "cut": self.response.cut,
            "tokens": self.response.tokens,
            "cost": asdict(self.cost) if self.cost else None,
            "instances": [
                {
                    "box": None if instance.box is None else list(instance.box),
                    "points": [list(point) for point in instance.points],
                    "negative_points": [list(point) for point in instance.negative_points],
                    "score": score,
                    "mask": encode_mask(mask),
                }
                for instance, mask, score in zip(self.response.instances, self.masks, self.scores, strict=True)
            ],
        }


@dataclass(frozen=True, eq=False)
class Progress:
    """State of one question while it is answered.

    Attributes:
        text: the generated text so far, as in `Response`; "" before the first token.
        reasoning: the think part so far; "" if there is none.
        response: the parsed answer; None while the reasoner generates.
        prediction: the answer with its masks; None until the last state.
    """

    text: str
    reasoning: str = ""
    response: Response | None = None
    prediction: Prediction | None = None


@dataclass(frozen=True)
class Failure:
    """Reason why an example has no prediction."""

    message: str
    cause: Exception
