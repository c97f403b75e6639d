"""Turn the reasoner's boxes and points into FiftyOne labels, and back.

The App draws them over the masks. A box, its points and its mask have the same `expression` and `index`. FiftyOne's
`Instance` would link them, too, but its COCO exporter cannot write it. Coordinates have six decimals, a hundredth of a
pixel or less.
"""

from __future__ import annotations

from collections.abc import Sequence

import fiftyone as fo
from genseg_hub.schema import Box, InstancePrompt, Point, Prediction

_DECIMALS = 6


def relative_box(box: Box | None, size: tuple[int, int]) -> list[float] | None:
    """Return a box in pixels as relative xywh.

    `size` is the (width, height) of the image in pixels.
    """
    if box is None:
        return None
    (x1, y1, x2, y2), (width, height) = box, size
    return rounded([x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height])


def relative_points(points: Sequence[Point], size: tuple[int, int]) -> list[list[float]]:
    """Return points in pixels as relative xy.

    `size` is the (width, height) of the image in pixels.
    """
    width, height = size
    return [rounded([x / width, y / height]) for x, y in points]


def rounded(numbers: Sequence[float]) -> list[float]:
    """Return relative coordinates as they are stored."""
    return [round(number, _DECIMALS) for number in numbers]


def boxes(prediction: Prediction, **attributes: str) -> list[fo.Detection]:
    """Return one Detection without a mask for each box of a response.

    Args:
        prediction: prediction of one expression.
        **attributes: attributes of each label.
    """
    found = [relative_box(prompt.box, prediction.image_size) for prompt in prediction.response.instances]
    return [fo.Detection(bounding_box=box, index=number, **attributes) for number, box in enumerate(found, 1) if box]


def points(prediction: Prediction, **attributes: str) -> list[fo.Keypoint]:
    """Return Keypoints of a response: one per instance, and one for points outside.

    The Keypoint of points outside has the attribute `negative`.

    Args:
        prediction: prediction of one expression.
        **attributes: attributes of each label.
    """
    found = []
    for number, prompt in enumerate(prediction.response.instances, 1):
        if prompt.points:
            xy = relative_points(prompt.points, prediction.image_size)
            found.append(fo.Keypoint(points=xy, index=number, **attributes))
        if prompt.negative_points:
            xy = relative_points(prompt.negative_points, prediction.image_size)
            found.append(fo.Keypoint(points=xy, index=number, negative=True, **attributes))
    return found


def prompts(
    boxes: Sequence[fo.Detection], points: Sequence[fo.Keypoint], size: tuple[int, int]
) -> list[InstancePrompt]:
    """Return the instance prompts of stored boxes and points, one per `index`.

    This is the reverse of `boxes` and `points`. A label that a person drew has no index: such a box is an instance of
    its own, and such points belong to the first instance.

    Args:
        boxes: boxes of one expression.
        points: points of the same expression.
        size: (width, height) of the image in pixels.
    """
    width, height = size
    found: dict[int, tuple[list[Box], list[Point], list[Point]]] = {}
    free = 1 + max((label.index or 0 for label in (*boxes, *points)), default=0)
    for box in boxes:
        if box.index is None:
            box.index, free = free, free + 1
        x, y, w, h = box.bounding_box
        corners = x * width, y * height, (x + w) * width, (y + h) * height
        found.setdefault(box.index, ([], [], []))[0].append(corners)
    for each in points:
        index = each.index if each.index is not None else min(found, default=1)
        negative = each.has_field("negative") and each["negative"]
        _, inside, outside = found.setdefault(index, ([], [], []))
        (outside if negative else inside).extend((x * width, y * height) for x, y in each.points)
    return [
        InstancePrompt(its_boxes[-1] if its_boxes else None, tuple(inside), negative_points=tuple(outside))
        for _, (its_boxes, inside, outside) in sorted(found.items())
        if its_boxes or inside
    ]
