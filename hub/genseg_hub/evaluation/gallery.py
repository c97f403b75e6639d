"""Choose the few expressions that a run's report shows, and draw them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from PIL import Image

from genseg_hub.evaluation import prediction_files, predictions
from genseg_hub.images import load_image
from genseg_hub.overlay import draw_masks, draw_prediction
from genseg_hub.referring_dataset import from_dataset
from genseg_hub.schema import Box, Failure, InstancePrompt, Prediction, ReferringExample, Response, decode_mask

WORST, MEDIAN, BEST, WRONG = "Worst IoU", "Median IoU", "Best IoU", "Nothing is meant, and something was found"
_EACH = 3
_SIDE = 320  # pixels of a picture's longer side
_QUALITY = 82
_MAX_TEXT = 600


class Choice:
    """Choice of the expressions that a report shows.

    Every result is added, but only a few numbers of it are kept.
    """

    def __init__(self) -> None:
        self._seen = 0
        # (IoU, area of the target, or of the prediction if there is no target, place)
        self._targets: list[tuple[float, int, int]] = []
        self._wrong: list[tuple[float, int, int]] = []

    def add(self, result: Prediction | Failure, row: dict[str, Any]) -> None:
        """Add the next example's result; failures have nothing to show.

        Args:
            result: result of the example.
            row: row of the example, from `Scores.add`.
        """
        if isinstance(result, Prediction):
            if row["target_area"]:
                self._targets.append((row["iou"], row["target_area"], self._seen))
            elif row["prediction_area"]:
                self._wrong.append((row["iou"], row["prediction_area"], self._seen))
        self._seen += 1

    def made(self, image_ids: Sequence[str]) -> dict[str, dict[int, float]]:
        """Return heading -> place of an example -> IoU.

        Under one heading each example has another image. Among equal IoUs the larger areas come first.

        Args:
            image_ids: ids of all examples, in their order.
        """
        worst = sorted(self._targets, key=lambda row: (row[0], -row[1], row[2]))
        middle = sorted(range(len(worst)), key=lambda rank: abs(rank - len(worst) // 2))
        candidates = {
            WORST: worst,
            BEST: sorted(self._targets, key=lambda row: (-row[0], -row[1], row[2])),
            MEDIAN: [worst[rank] for rank in middle],
            WRONG: sorted(self._wrong, key=lambda row: (-row[1], row[2])),
        }
        taken: set[int] = set()
        made: dict[str, dict[int, float]] = {}
        for heading, rows in candidates.items():
            found: dict[object, tuple[int, float]] = {}
            for iou, _, place in rows:
                if place not in taken:
                    found.setdefault(image_ids[place] or place, (place, iou))
                if len(found) == _EACH:
                    break
            made[heading] = dict(found.values())
            taken.update(made[heading])
        return {heading: made[heading] for heading in (WORST, MEDIAN, BEST, WRONG) if made[heading]}


@dataclass(frozen=True)
class Exhibit:
    """One expression of a report.

    Attributes:
        expression: the natural-language query.
        iou: IoU of its masks, under the policy of the run.
        meant, found: numbers of true and of predicted masks.
        answer: answer of the model, shortened; "" for predictions of another system.
        error: error of the answer, or of an image that cannot be drawn; "" for none.
        truth, predicted: pictures, JPEG in base64; "" if the image cannot be drawn.
    """

    expression: str
    iou: float
    meant: int
    found: int
    answer: str
    error: str
    truth: str = ""
    predicted: str = ""


def draw(examples: datasets.Dataset, index: prediction_files.Index, chosen: Choice) -> dict[str, list[Exhibit]]:
    """Draw the chosen examples of a run, by heading.

    An exhibit whose image cannot be drawn says why in its `error`.

    Args:
        examples: all examples of the run.
        index: index of their predictions.
        chosen: has seen all results.
    """
    shown: dict[str, list[Exhibit]] = {}
    for heading, ious in chosen.made(examples["image_id"][:]).items():
        for example, iou in zip(from_dataset(examples.select(ious)), ious.values(), strict=True):
            line = index.find(example)
            result = predictions.from_line(line) if line else None
            if isinstance(result, Prediction):
                shown.setdefault(heading, []).append(_exhibit(example, result, iou))
    return shown


def _exhibit(example: ReferringExample, prediction: Prediction, iou: float) -> Exhibit:
    response = prediction.response
    truth = predicted = ""
    error = response.error.value.replace("_", " ") if response.error else ""
    try:
        image = load_image(example.image)
        scale = _SIDE / max(image.size)
        small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        truth = _jpeg(draw_masks(small, [_resized(decode_mask(rle), small.size) for rle in example.masks or ()]))
        predicted = _jpeg(draw_prediction(small, _scaled(prediction, scale, small.size)))
    except (ValueError, OSError) as problem:
        error = str(problem)
    meant, found = len(example.masks or ()), len(prediction.masks)
    return Exhibit(example.expression, iou, meant, found, _short(response.text), error, truth, predicted)


def _scaled(prediction: Prediction, scale: float, size: tuple[int, int]) -> Prediction:
    width, height = size

    def inside(box: Box) -> Box:
        x1, y1, x2, y2 = (scale * value for value in box)
        return min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)

    prompts = []
    for prompt in prediction.response.instances:
        points = ((scale * x, scale * y) for x, y in prompt.points)
        seen = tuple((x, y) for x, y in points if 0 <= x <= width and 0 <= y <= height)
        prompts.append(InstancePrompt(inside(prompt.box) if prompt.box else None, seen))
    masks = tuple(_resized(mask, size) for mask in prediction.masks)
    return Prediction(Response("", instances=tuple(prompts)), masks, prediction.scores, size)


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def _jpeg(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + " …"
