"""Pictures of a slice's worst examples.

Ground truth is on the left, the prediction on the right.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import fiftyone as fo
import pandas as pd
from genseg_hub.images import load_image
from genseg_hub.overlay import draw_masks
from PIL import Image

from fiftyone_genseg import labels
from fiftyone_genseg.evaluation.config import ReferringEvaluationConfig
from fiftyone_genseg.fields import every_image, holds_several

HEIGHT = 220  # pixels
TEXTS = ("expression", "verdict", "reasoning")


def gallery(dataset: fo.Dataset, config: ReferringEvaluationConfig, examples: pd.DataFrame) -> dict[str, str | None]:
    """Return the values of the gallery, by name.

    The names are `picture_0`, `expression_0`, `verdict_0`, `reasoning_0`, `picture_1` and so on.

    Args:
        dataset: dataset that the run is about.
        config: config of the run.
        examples: rows of the run's table, one per picture.
    """
    several = holds_several(dataset, config.expression_field)
    ids = examples["sample_id"].unique().tolist()
    samples = {sample.id: sample for sample in every_image(dataset).select(ids)}
    data: dict[str, Any] = {}
    for number, row in enumerate(examples.to_dict("records")):
        sample, expression = samples.get(row["sample_id"]), row["expression"]
        verdict = f"{row['kind'].replace('_', ' ')}, IoU {row['iou']:.2f}"
        problem = "its sample was deleted" if sample is None else _missing_fields(sample, config)
        data |= {
            f"picture_{number}": _picture(sample, expression, config, several) if sample else None,
            f"expression_{number}": expression,
            f"verdict_{number}": f"{verdict}; {problem}" if problem else verdict,
            f"reasoning_{number}": (_reasoning(sample, expression, config) if sample else "") or "-",
        }
    return data


def _missing_fields(sample: fo.Sample, config: ReferringEvaluationConfig) -> str:
    """Return which of the run's fields are gone, in words."""
    gone = [name for name in (config.gt_field, config.pred_field) if not sample.has_field(name)]
    return f"no masks are drawn, because the field {' and '.join(gone)} was deleted" if gone else ""


def _picture(sample: fo.Sample, expression: str, config: ReferringEvaluationConfig, several: bool) -> str | None:
    """Return a data URI of both sides; None when the image cannot be read."""
    try:
        image = load_image(sample.filepath)
        truth, found = (
            sample[name] if sample.has_field(name) else None for name in (config.gt_field, config.pred_field)
        )
        found = labels.of_expression(found, expression)
        sides = [labels.of_expression(truth, expression) if several else truth, found]
        pictures = [draw_masks(image, labels.instance_masks(side, image.size)) for side in sides]
    except (OSError, ValueError):
        return None
    scale = HEIGHT / pictures[0].height
    size = max(1, round(pictures[0].width * scale)), HEIGHT
    both = Image.new("RGB", (2 * size[0] + 6, size[1]), "white")
    for number, picture in enumerate(pictures):
        both.paste(picture.resize(size), (number * (size[0] + 6), 0))
    buffer = io.BytesIO()
    both.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _reasoning(sample: fo.Sample, expression: str, config: ReferringEvaluationConfig) -> str:
    name = labels.responses_field(config.pred_field)
    for response in sample[name] or [] if sample.has_field(name) else []:
        if labels.attribute(response, "expression") == expression:
            return labels.attribute(response, "reasoning") or labels.attribute(response, "error") or ""
    return ""
