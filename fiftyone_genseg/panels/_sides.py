"""One expression of a sample: two fields' answers, and the ground truth."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.operators import types
from genseg_hub.errors import MaskError
from genseg_hub.overlay import draw_masks
from PIL import Image

from fiftyone_genseg import labels, messages
from fiftyone_genseg.cards import Card
from fiftyone_genseg.evaluation.differences import Pair, mask_iou, truth_of
from fiftyone_genseg.panels import _answers, _layout
from fiftyone_genseg.statuses import NO_TARGET, SEGMENTED, in_words

_HEIGHT = 220  # pixels of a picture in the panel
_LONGEST_SIDE = 640  # pixels of a picture as it is sent
_SIDES = ("first", "second", "truth")
_ANSWERED = (in_words(SEGMENTED), in_words(NO_TARGET))
_BESIDE = {"grid": {"sx": {"gridTemplateColumns": "repeat(auto-fit, minmax(min(270px, 100%), 1fr))"}}}


def add(panel: types.Object, number: int, sides: Sequence[str]) -> None:
    """Add the parts of one expression, below each other in a narrow panel.

    Args:
        panel: panel to add them to.
        number: number of the expression in the panel.
        sides: the sides that there are, see `content`.
    """
    panel.str(f"about_{number}", view=types.MarkdownView())
    row = panel.grid(f"sides_{number}", orientation="vertical", gap=2, componentsProps=_BESIDE)
    for side in sides:
        part = row.v_stack(side, gap=1)
        part.view("picture", types.ImageView(height=f"{_HEIGHT}px", alt=side, componentsProps=_layout.NARROW_IMAGE))
        part.str("words", view=types.MarkdownView())


def content(
    sample: fo.Sample, image: Image.Image | None, pair: Pair, names: tuple[str, str], threshold: float
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the heading of an expression, and the picture and the words of each side.

    Args:
        sample: sample of the expression.
        image: image of the sample; None if it cannot be read.
        pair: the two answers.
        names: names of the two fields.
        threshold: mask IoU below which two answers differ.
    """
    truth = truth_of(sample, pair.expression)
    sides = {
        side: _side(sample, image, name, card, pair.expression, truth)
        for side, name, card in zip(_SIDES, names, (pair.first, pair.second), strict=False)
    }
    if truth is not None:
        count = len(truth.detections)
        said = f"{count} instance{'' if count == 1 else 's'}" if count else "nothing is meant"
        sides["truth"] = _with_picture(["**ground truth**", said], image, truth)
    return _heading(pair, threshold), sides


def _heading(pair: Pair, threshold: float) -> str:
    """Return the expression, and how much its two answers have in common."""
    if pair.problem:
        said = f"the masks cannot be compared: {messages.plain(pair.problem)}"
    elif pair.first is None or pair.second is None:
        said = "only one of both was asked"
    elif pair.first.outcome != pair.second.outcome:
        said = "**other outcome**"
    elif pair.iou is None:
        said = "same outcome"
    else:
        figure = f"mask IoU {pair.iou:.2f}"
        said = f"**{figure}**, below {threshold}" if pair.differs(threshold) else figure
    return f"###### {messages.plain(pair.expression)}\n\n{said}"


def _side(
    sample: fo.Sample,
    image: Image.Image | None,
    name: str,
    card: Card | None,
    expression: str,
    truth: fo.Detections | None,
) -> dict[str, Any]:
    if card is None:
        return {"picture": None, "words": f"**{name}**\n\nnot asked"}
    found = labels.of_expression(sample[name], expression)
    facts, *further = map(messages.plain, _answers.words(card))
    if truth is not None and card.outcome in _ANSWERED:
        with suppress(MaskError):  # that the picture meets, too
            facts += f" · IoU {mask_iou(sample, found, truth, expression):.2f} with the ground truth"
    return _with_picture([f"**{name}**", facts, *further], image, found)


def _with_picture(lines: list[str], image: Image.Image | None, found: fo.Detections) -> dict[str, Any]:
    """Return the words of a side, and its masks on the image.

    There is no picture if a mask cannot be read.
    """
    picture = None
    if image is not None:
        try:
            picture = _picture(image, labels.instance_masks(found, image.size))
        except MaskError as error:
            lines = [*lines, messages.plain(str(error))]
    return {"picture": picture, "words": "\n\n".join(lines)}


def _picture(image: Image.Image, masks: Sequence[np.ndarray]) -> str:
    """Return a data URI of a small image with its masks."""
    small = image.copy()
    small.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    resized = [np.asarray(Image.fromarray(mask).resize(small.size, Image.Resampling.NEAREST)) for mask in masks]
    buffer = io.BytesIO()
    draw_masks(small, resized).save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
