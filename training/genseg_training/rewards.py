"""Rewards of GRPO that need no segmenter: TRL reward functions, one concept each.

Each takes `completions` (chat messages or plain text) and the columns of the data: `image_size`
[(width, height)], `boxes` (xyxy pixels per true instance) and `masks` (COCO RLE per true instance),
and returns one number per completion. Predicted and true instances are paired one to one by the
Hungarian method on box IoU, and a sum over pairs is divided by the larger number of instances, so
that missing, extra and duplicated instances cost (as VisionReasoner divides, arXiv 2505.12081).

What the GenSeg-R1 paper (arXiv 2602.09701) states is that boxes and points are compared with the
ground truth by distance, and that an expression may have no target. Formulas, scales and the
following rule are this project's own: where nothing is meant, an accuracy reward is 1 for an empty
answer and 0 for any other; where something is meant, an empty answer earns 0, and so does one with
anything wrong in it (`Response.error`), or cutting an instance short would be a way to take it back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from genseg_hub.dialects import genseg
from genseg_hub.evaluation.metrics import box_iou
from genseg_hub.schema import Box, InstancePrompt, Response, Rle, decode_mask
from scipy.optimize import linear_sum_assignment

Completion = str | Sequence[dict[str, Any]]
_FORMAT = re.compile(
    r"\s*<think>(?:(?!</?(?:think|answer)>).)*</think>\s*<answer>(?:(?!</?(?:think|answer)>).)*</answer>\s*", re.S
)
L1_SCALE = 100.0
SPREAD = 0.2
NGRAM = 6
_TIE = 1e-6


def text_of(completion: Completion) -> str:
    """The text of a completion, plain or conversational."""
    return completion if isinstance(completion, str) else "".join(str(message["content"]) for message in completion)


@lru_cache(maxsize=4096)
def _parsed(text: str, size: tuple[int, int]) -> Response:
    return genseg.parse(text, size)


@lru_cache(maxsize=256)
def _mask(height: int, width: int, counts: str) -> np.ndarray:
    return decode_mask({"size": [height, width], "counts": counts})


def _box(numbers: Sequence[float]) -> Box:
    """A box as the data holds it, a list."""
    x1, y1, x2, y2 = numbers
    return float(x1), float(y1), float(x2), float(y2)


def _l1(a: Box, b: Box, size: Sequence[float]) -> float:
    """Mean distance of the sides, each divided by the image's width or height."""
    return float(np.mean([abs(x - y) / size[i % 2] for i, (x, y) in enumerate(zip(a, b, strict=True))]))


def _accuracy(
    completions: Sequence[Completion],
    image_size: Sequence[Sequence[int]],
    boxes: Sequence[Sequence[Box]],
    score: Callable[[InstancePrompt, int, int], float],
) -> list[float]:
    """Sum of `score(predicted, index of the example, index of the true instance)` over the pairs,
    divided by the larger number of instances, with the rule for empty answers of this module. Of
    pairings with the same sum of IoUs the one of the largest score counts, so that order cannot."""
    rewards = []
    for index, completion in enumerate(completions):
        width, height = image_size[index]
        response = _parsed(text_of(completion), (int(width), int(height)))
        said, truth = response.instances, [_box(box) for box in boxes[index]]
        if not truth:
            rewards.append(float(response.no_target))
        elif not said or response.error:
            rewards.append(0.0)
        else:
            ious = np.array([[box_iou(p.box, box) for box in truth] for p in said])
            scores = np.array([[score(p, index, t) for t in range(len(truth))] for p in said])
            pairs = linear_sum_assignment(-(ious + _TIE * scores))
            rewards.append(float(scores[pairs].sum()) / max(len(said), len(truth)))
    return rewards


def format_reward(completions: Sequence[Completion], **kwargs) -> list[float]:
    """1 for exactly one think part followed by one answer part and nothing else, else 0 (Seg-Zero, arXiv 2503.06520).

    >>> format_reward(["<think>a</think><answer>[]</answer>", "<answer>[]</answer>"])
    [1.0, 0.0]
    """
    return [float(_FORMAT.fullmatch(text_of(completion)) is not None) for completion in completions]


def schema_reward(completions: Sequence[Completion], image_size: Sequence[Sequence[int]], **kwargs) -> list[float]:
    """1 for an answer that is read without error and without repair, 0.5 after a repair, else 0 (own choice).

    >>> good = '<think>a</think><answer>[{"bbox_2d":[0,0,9,9],"points":[[2,2],[5,5]]}]</answer>'
    >>> schema_reward([good, good.replace("}]<", "},]<"), "no"], image_size=[(100, 100)] * 3)
    [1.0, 0.5, 0.0]
    """
    rewards = []
    for completion, (width, height) in zip(completions, image_size, strict=True):
        response = _parsed(text_of(completion), (int(width), int(height)))
        rewards.append(0.0 if response.error else 0.5 if response.repaired else 1.0)
    return rewards


def box_iou_reward(
    completions: Sequence[Completion], image_size: Sequence[Sequence[int]], boxes: Sequence[Sequence[Box]], **kwargs
) -> list[float]:
    """Mean IoU of paired boxes, in [0, 1].

    >>> answer = '<think></think><answer>[{"bbox_2d":[0,0,500,1000],"points":[[9,9],[9,9]]}]</answer>'
    >>> box_iou_reward([answer, answer], [(10, 10)] * 2, [[(0, 0, 10, 10)], []])
    [0.5, 0.0]
    """
    return _accuracy(completions, image_size, boxes, lambda said, i, t: box_iou(said.box, _box(boxes[i][t])))


def box_l1_reward(
    completions: Sequence[Completion], image_size: Sequence[Sequence[int]], boxes: Sequence[Sequence[Box]], **kwargs
) -> list[float]:
    """exp(-d / 100) of paired boxes, in [0, 1]: d is the mean distance of the four sides in
    thousandths of the image. Unlike IoU it tells which of two disjoint boxes is nearer.

    >>> answer = '<think></think><answer>[{"bbox_2d":[0,0,500,1000],"points":[[9,9],[9,9]]}]</answer>'
    >>> [round(r, 3) for r in box_l1_reward([answer], [(10, 10)], [[(0, 0, 10, 10)]])]
    [0.287]
    """

    def score(said: InstancePrompt, i: int, t: int) -> float:
        return float(np.exp(-1000 * _l1(said.box, _box(boxes[i][t]), image_size[i]) / L1_SCALE))

    return _accuracy(completions, image_size, boxes, score)


def points_reward(
    completions: Sequence[Completion],
    image_size: Sequence[Sequence[int]],
    boxes: Sequence[Sequence[Box]],
    masks: Sequence[Sequence[Rle]],
    **kwargs,
) -> list[float]:
    """Share of a pair's two points that lie inside the true mask and inside their own box, times
    min(1, d / 0.2 of the true box's diagonal), in [0, 1]: d is the distance of the points plus one
    thousandth of the image, the least that an answer can tell.

    >>> from genseg_hub.schema import encode_mask
    >>> answer = '<think></think><answer>[{"bbox_2d":[0,0,500,1000],"points":[[100,500],[400,500]]}]</answer>'
    >>> mask = np.zeros((10, 10), bool); mask[:, :3] = True
    >>> points_reward([answer], [(10, 10)], [[(0, 0, 3, 10)]], [[encode_mask(mask)]])
    [0.5]
    """

    def score(said: InstancePrompt, i: int, t: int) -> float:
        rle = masks[i][t]
        mask = _mask(*rle["size"], rle["counts"])
        x1, y1, x2, y2 = said.box
        inside = [
            x1 <= x <= x2 and y1 <= y <= y2 and bool(mask[min(int(y), len(mask) - 1), min(int(x), mask.shape[1] - 1)])
            for x, y in said.points
        ]
        if len(said.points) < 2:
            return 0.0
        (ax, ay), (bx, by) = said.points[:2]
        left, top, right, bottom = _box(boxes[i][t])
        step = max(image_size[i]) / 1000
        apart = (np.hypot(ax - bx, ay - by) + step) / max(SPREAD * np.hypot(right - left, bottom - top), step)
        return float(sum(inside[:2]) / 2 * min(1.0, apart))

    return _accuracy(completions, image_size, boxes, score)


def count_reward(
    completions: Sequence[Completion], image_size: Sequence[Sequence[int]], boxes: Sequence[Sequence[Box]], **kwargs
) -> list[float]:
    """Smaller over larger number of instances, in [0, 1].

    >>> answer = '<think></think><answer>[{"bbox_2d":[0,0,500,1000],"points":[[9,9],[9,9]]}]</answer>'
    >>> count_reward([answer, answer], [(10, 10)] * 2, [[(0, 0, 5, 5)] * 2, []])
    [0.5, 0.0]
    """
    return _accuracy(completions, image_size, boxes, lambda said, i, t: 1.0)


def repetition_penalty(completions: Sequence[Completion], **kwargs) -> list[float]:
    """Minus the share of runs of 6 words that occurred before, in [-1, 0] (after Yeo et al., arXiv 2502.03373).

    >>> [round(r, 3) for r in repetition_penalty(["a b c d e f g", "a b c d e f a b c d e f"])]
    [0.0, -0.143]
    """
    rewards = []
    for completion in completions:
        words = text_of(completion).split()
        runs = [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]
        rewards.append(len(set(runs)) / len(runs) - 1 if runs else 0.0)
    return rewards
