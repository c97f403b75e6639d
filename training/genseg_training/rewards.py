"""Rewards of GRPO that need no segmenter: TRL reward functions, one concept each.

Each function takes `completions` (chat messages or plain text) and the columns of the data: `image_size` (width,
height), `boxes` (xyxy pixels per true instance) and `masks` (COCO RLE per true instance). It returns one number per
completion. The Hungarian method on box IoU pairs predicted and true instances one to one. A sum over pairs is divided
by the larger number of instances, so that missing, extra and duplicated instances cost (as in VisionReasoner, arXiv
2505.12081). An instance that repeats another exactly is paired with no true instance, and counts in that number.

The GenSeg-R1 paper (arXiv 2602.09701) compares boxes and points with the ground truth by distance. An expression may
have no target. Formulas, scales and the following rule are this project's own. For an expression without a target, an
accuracy reward is 1 for an empty answer and 0 for any other. For an expression with a target, an empty answer earns 0.
An answer with an error (`Response.error`) also earns 0, because a policy could otherwise take back an instance by
cutting it short.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import Any

import numpy as np
from genseg_hub import answers
from genseg_hub.dialects import genseg
from genseg_hub.evaluation.metrics import box_iou
from genseg_hub.schema import Box, InstancePrompt, Response, Rle, decode_mask
from scipy.optimize import linear_sum_assignment

Completion = str | Sequence[dict[str, Any]]
Reward = Callable[..., list]
_FORMAT = re.compile(
    r"\s*(<think>)?(?:(?!</?(?:think|answer)>).)*</think>\s*<answer>(?:(?!</?(?:think|answer)>).)*</answer>\s*", re.S
)
L1_SCALE = 100.0
SPREAD = 0.2
NGRAM = 6
FEWEST_WORDS, MANY_WORDS, MOST_WORDS = 8, 200, 400  # of a thought
_TIE = 1e-6


def text_of(completion: Completion) -> str:
    """Return the text of a completion.

    Args:
        completion: plain text or chat messages.
    """
    return completion if isinstance(completion, str) else "".join(str(message["content"]) for message in completion)


def of_template(reward: Reward, thought_is_open: bool) -> Reward:
    """Return a reward for the completions of one chat template.

    Args:
        reward: a reward function of this module, or `MaskReward`.
        thought_is_open: whether the template's prompt ends inside an open thought (see `genseg_hub.thinking`). Each
            completion then gets the `<think>` that the prompt has.
    """
    opening = "<think>" if thought_is_open else ""

    @wraps(reward)
    def of_whole_answers(completions: Sequence[Completion], **kwargs) -> list:
        return reward([opening + text_of(completion) for completion in completions], whole=True, **kwargs)

    return of_whole_answers


@lru_cache(maxsize=4096)
def _parsed(text: str, size: tuple[int, int]) -> Response:
    return answers.read(genseg, text, size)


@lru_cache(maxsize=256)
def _mask(height: int, width: int, counts: str) -> np.ndarray:
    return decode_mask({"size": [height, width], "counts": counts})


def _box(numbers: Sequence[float]) -> Box:
    """Return a box from the list that the data holds."""
    x1, y1, x2, y2 = numbers
    return float(x1), float(y1), float(x2), float(y2)


def _own_box(said: InstancePrompt) -> Box:
    """Return the box of a predicted instance.

    Every instance has a box, because the dialect genseg reads no instance without one.
    """
    return said.box or (0.0, 0.0, 0.0, 0.0)


def _l1(a: Box, b: Box, size: Sequence[float]) -> float:
    """Return the mean distance of the sides.

    Each distance is divided by the image's width or height.
    """
    return float(np.mean([abs(x - y) / size[i % 2] for i, (x, y) in enumerate(zip(a, b, strict=True))]))


def _accuracy(
    completions: Sequence[Completion],
    image_size: Sequence[Sequence[int]],
    boxes: Sequence[Sequence[Box]],
    score: Callable[[InstancePrompt, int, int], float],
) -> list[float]:
    """Sum a score over the pairs of predicted and true instances.

    The score is `score(predicted, index of the example, index of the true instance)`. The sum is divided by the larger
    number of instances; empty answers follow the rule of this module. Among pairings with the same sum of IoUs the
    largest score counts, so that the order of instances makes no difference.
    """
    rewards = []
    for index, completion in enumerate(completions):
        width, height = image_size[index]
        response = _parsed(text_of(completion), (int(width), int(height)))
        predicted, truth = response.instances, [_box(box) for box in boxes[index]]
        if not truth:
            rewards.append(float(response.no_target))
        elif not predicted or response.error:
            rewards.append(0.0)
        else:
            ious = np.array([[box_iou(_own_box(p), box) for box in truth] for p in predicted])
            scores = np.array([[score(p, index, t) for t in range(len(truth))] for p in predicted])
            pairs = linear_sum_assignment(-(ious + _TIE * scores))
            rewards.append(float(scores[pairs].sum()) / max(len(predicted) + response.repeated, len(truth)))
    return rewards


def format_reward(completions: Sequence[Completion], whole: bool = False, **kwargs) -> list[float]:
    """Give 1 for one think part, then one answer part and nothing else; otherwise 0.

    The reward is from Seg-Zero (arXiv 2503.06520).

    Args:
        completions: chat messages or plain text.
        whole: whether `<think>` must stand in the text; otherwise it may have been in the prompt.
        **kwargs: further columns of the data, which are ignored.

    >>> format_reward(["<think>a</think><answer>[]</answer>", "a</think><answer>[]</answer>", "<answer>[]</answer>"])
    [1.0, 1.0, 0.0]
    """
    found = [_FORMAT.fullmatch(text_of(completion)) for completion in completions]
    return [float(match is not None and (match[1] is not None or not whole)) for match in found]


def schema_reward(completions: Sequence[Completion], image_size: Sequence[Sequence[int]], **kwargs) -> list[float]:
    """Reward an answer without error with 1, a repaired one with 0.5, else 0.

    The values are this project's own choice.

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
    """Return the mean IoU of paired boxes, in [0, 1].

    >>> answer = '<think></think><answer>[{"bbox_2d":[0,0,500,1000],"points":[[9,9],[9,9]]}]</answer>'
    >>> box_iou_reward([answer, answer], [(10, 10)] * 2, [[(0, 0, 10, 10)], []])
    [0.5, 0.0]
    """
    return _accuracy(completions, image_size, boxes, lambda said, i, t: box_iou(_own_box(said), _box(boxes[i][t])))


def box_l1_reward(
    completions: Sequence[Completion], image_size: Sequence[Sequence[int]], boxes: Sequence[Sequence[Box]], **kwargs
) -> list[float]:
    """Return the mean of exp(-d / 100) over paired boxes, in [0, 1].

    d is the mean distance of the four sides in thousandths of the image. Unlike IoU it tells which of two disjoint
    boxes is nearer.

    >>> answer = '<think></think><answer>[{"bbox_2d":[0,0,500,1000],"points":[[9,9],[9,9]]}]</answer>'
    >>> [round(r, 3) for r in box_l1_reward([answer], [(10, 10)], [[(0, 0, 10, 10)]])]
    [0.287]
    """

    def score(said: InstancePrompt, i: int, t: int) -> float:
        return float(np.exp(-1000 * _l1(_own_box(said), _box(boxes[i][t]), image_size[i]) / L1_SCALE))

    return _accuracy(completions, image_size, boxes, score)


def points_reward(
    completions: Sequence[Completion],
    image_size: Sequence[Sequence[int]],
    boxes: Sequence[Sequence[Box]],
    masks: Sequence[Sequence[Rle]],
    **kwargs,
) -> list[float]:
    """Reward points inside the true mask and far from each other, in [0, 1].

    A pair's score is a share times min(1, d / 0.2 of the true box's diagonal). The share is of the two points that lie
    inside the true mask and inside their own box. d is the distance of the points plus one thousandth of the image,
    which is the smallest distance that an answer can express.

    >>> from genseg_hub.schema import encode_mask
    >>> answer = '<think></think><answer>[{"bbox_2d":[0,0,500,1000],"points":[[100,500],[400,500]]}]</answer>'
    >>> mask = np.zeros((10, 10), bool); mask[:, :3] = True
    >>> points_reward([answer], [(10, 10)], [[(0, 0, 3, 10)]], [[encode_mask(mask)]])
    [0.5]
    """

    def score(said: InstancePrompt, i: int, t: int) -> float:
        rle = masks[i][t]
        mask = _mask(*rle["size"], rle["counts"])
        x1, y1, x2, y2 = _own_box(said)
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
    """Divide the smaller by the larger number of instances, in [0, 1].

    >>> answer = '<think></think><answer>[{"bbox_2d":[0,0,500,1000],"points":[[9,9],[9,9]]}]</answer>'
    >>> count_reward([answer, answer], [(10, 10)] * 2, [[(0, 0, 5, 5)] * 2, []])
    [0.5, 0.0]
    """
    return _accuracy(completions, image_size, boxes, lambda said, i, t: 1.0)


def thought_reward(completions: Sequence[Completion], **kwargs) -> list[float]:
    """Reward a thought of a fitting length, in [0, 1].

    An answer with another form than `format_reward` wants earns 0. The reward rises to 1 over the first 8 different
    words, because a word that is repeated says nothing new. It is 1 up to 200 words in all, and falls to 0 at 400. The
    falling side is DAPO's soft overlong punishment (arXiv 2503.14476, equation 13), in words instead of tokens. The
    rising side and the numbers are this project's own.

    >>> answer = "<think>{}</think><answer>[]</answer>"
    >>> thoughts = ["", "one two three four", "w " * 20, " ".join(map(str, range(20))), " ".join(map(str, range(900)))]
    >>> thought_reward([answer.format(thought) for thought in thoughts])
    [0.0, 0.5, 0.125, 1.0, 0.0]
    """
    rewards = []
    for completion, well_formed in zip(completions, format_reward(completions, **kwargs), strict=True):
        words = text_of(completion).partition("</think>")[0].replace("<think>", " ").split()
        enough = min(1.0, len(set(words)) / FEWEST_WORDS)
        short = min(1.0, max(0.0, (MOST_WORDS - len(words)) / (MOST_WORDS - MANY_WORDS)))
        rewards.append(well_formed * min(enough, short))
    return rewards


def repetition_penalty(completions: Sequence[Completion], **kwargs) -> list[float]:
    """Return minus the share of sequences of 6 words that occurred before, in [-1, 0].

    The penalty follows Yeo et al. (arXiv 2502.03373).

    >>> [round(r, 3) for r in repetition_penalty(["a b c d e f g", "a b c d e f a b c d e f"])]
    [0.0, -0.143]
    """
    rewards = []
    for completion in completions:
        words = text_of(completion).split()
        runs = [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]
        rewards.append(len(set(runs)) / len(runs) - 1 if runs else 0.0)
    return rewards
