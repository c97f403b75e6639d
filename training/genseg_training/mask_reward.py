"""The mask reward of GenSeg-R1-G: a frozen SAM 2 in the loop."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any

import cv2
import numpy as np
from genseg_hub import answers
from genseg_hub.cpu_threads import Cores
from genseg_hub.dialects import genseg
from genseg_hub.images import load_image
from genseg_hub.schema import InstancePrompt, Response, Rle, decode_mask
from genseg_hub.segmenters.base import Segmenter
from PIL import Image, ImageOps

from genseg_training.rewards import Completion, text_of

logger = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 8  # so many failures point to the segmenter, not to the images


class MaskReward:
    """Reward the IoU of an answer's masks with the true masks, in [0, 1].

    The IoU is of the two unions. Ignored pixels are removed from both, as in `metrics.measure`. The GenSeg-R1 paper
    (arXiv 2602.09701) states that SAM 2 in the loop scores the mask itself, and that expressions without a target are
    handled. This project chose the plain IoU of unions, which cIoU and mIoU measure, and the rule of `rewards` for
    empty answers.

    The segmenter embeds an image once for all its completions. It decodes all their instance prompts as one batch,
    equal prompts once. On a CPU two images share the cores at the same time, because operations on small images gain
    little from a second core. Each image in work needs the memory of one embedding and one decoding chunk.

    When the segmenter fails on an image, all completions about that image get None. TRL then leaves this reward out of
    the whole group, so that a failure favours no completion. The failure is logged and counted as `mask_reward_failed`
    (share of images). After `FAILURES_IN_A_ROW` failed images in a row the last error is raised.

    Args:
        segmenter: frozen, on its device.
        reduced: whether masks of a larger image are compared at the segmenter's resolution, so that no side is longer
            than `segmenter.side`. A reduced true mask holds the pixels of which at least half was true.

    Examples:
        >>> reward = MaskReward(segmenter)  # doctest: +SKIP
        >>> reward(completions, image=images, image_id=ids, masks=masks)  # doctest: +SKIP
        [0.93, 0.0, 0.91, 0.95]
    """

    __name__ = "mask_reward"  # what TRL logs it as

    def __init__(self, segmenter: Segmenter, reduced: bool = False):
        self._segmenter, self._reduced = segmenter, reduced
        self._failures_in_a_row = 0  # across batches, because a process's batch is often about one image

    def __call__(
        self,
        completions: Sequence[Completion],
        image: Sequence[Image.Image],
        image_id: Sequence[str],
        masks: Sequence[Sequence[Rle]],
        original: Sequence[Image.Image] | None = None,
        ignore: Sequence[Sequence[Rle]] | None = None,
        log_metric: Callable[[str, float], Any] = lambda name, value: None,
        **kwargs,
    ) -> list[float | None]:
        """Return one reward per completion.

        Args:
            completions: chat messages or plain text.
            image: the image of each completion's prompt.
            image_id: id of each completion; only equal images share an id.
            masks: true masks of each completion's expression (COCO RLE); none for no-target.
            original: the image of each completion, if `image` is smaller for the policy; None for `image`.
            ignore: pixels that do not count (COCO RLE), at most one mask for each completion; None for no such pixels.
            log_metric: TRL's function that logs a figure.
            **kwargs: further columns of the data, which are ignored.

        Raises:
            Exception: the segmenter's last error, when it failed on too many images in a row.
        """
        started = time.perf_counter()
        rewards: list[float | None] = [None] * len(completions)
        image = original or image
        ignore = ignore or [()] * len(completions)
        failed: list[Exception] = []
        groups = [list(group) for _, group in groupby(range(len(completions)), key=lambda index: image_id[index])]
        on_cpu = self._segmenter.device.type == "cpu"
        cores = Cores(divided=on_cpu)
        workers = min(2, cores.count, max(1, len(groups))) if on_cpu else 1

        def score(group: list[int]) -> list[float] | Exception:
            try:
                picture = load_image(image[group[0]])
                whole = picture.size
                if self._reduced and max(picture.size) > self._segmenter.side:
                    picture = ImageOps.contain(picture, (self._segmenter.side,) * 2)
                responses = [answers.read(genseg, text_of(completions[index]), picture.size) for index in group]
                with cores.share(workers):
                    unions = self._unions(np.array(picture), responses)
            except Exception as error:  # noqa: BLE001  one bad image must not end a long run
                traceback.clear_frames(error.__traceback__)  # the frames hold the embedding
                return error
            its_masks, its_ignored = ([column[index] for index in group] for column in (masks, ignore))
            return _scores(responses, unions, its_masks, its_ignored, whole)

        with ThreadPoolExecutor(workers, thread_name_prefix="mask_reward") as pool:
            for group, scores in zip(groups, pool.map(score, groups), strict=True):
                if isinstance(scores, Exception):
                    reason = f"{type(scores).__name__}: {scores}"
                    logger.warning("no mask reward for image %s: %s", image_id[group[0]], reason)
                    failed.append(scores)
                    self._failures_in_a_row += 1
                    continue
                self._failures_in_a_row = 0
                for index, value in zip(group, scores, strict=True):
                    rewards[index] = value
        if failed and self._failures_in_a_row >= FAILURES_IN_A_ROW:
            raise failed[-1]
        log_metric("mask_reward_failed", len(failed) / max(1, len(groups)))
        log_metric("mask_reward_seconds", time.perf_counter() - started)
        return rewards

    def _unions(self, pixels: np.ndarray, responses: Sequence[Response]) -> list[np.ndarray]:
        """Return the union of each response's masks, bool[H, W].

        A response with an error has an empty union.
        """
        asked: dict[InstancePrompt, int] = {}
        for response in responses:
            for instance in () if response.error else response.instances:
                asked.setdefault(instance, len(asked))
        masks, _ = self._segmenter.segment(pixels, list(asked))
        unions = []
        for response in responses:
            union = np.zeros(pixels.shape[:2], bool)
            for instance in () if response.error else response.instances:
                union |= masks[asked[instance]]
            unions.append(union)
        return unions


def _scores(
    responses: Sequence[Response],
    unions: Sequence[np.ndarray],
    masks: Sequence[Sequence[Rle]],
    ignore: Sequence[Sequence[Rle]],
    size: tuple[int, int],
) -> list[float]:
    """Return one reward per answer about an image.

    Args:
        responses: the answers.
        unions: masks of the answers, bool[h, w]; the image may have been reduced for them.
        masks: true masks of each answer's expression, as large as the image.
        ignore: pixels that do not count, as large as the image.
        size: (W, H) of the image in pixels.
    """
    scores = []
    known, target = None, np.zeros(0, bool)
    counted: np.ndarray | bool = True
    for response, union, true, ignored in zip(responses, unions, masks, ignore, strict=True):
        if true and (true, ignored) != known:  # completions of one prompt have equal true masks
            known = true, ignored
            counted = ~_union(ignored, size, union.shape) if ignored else True
            target = _union(true, size, union.shape) & counted
        scores.append(_score(response, union & counted if true else union, target if true else None))
    return scores


def _union(masks: Sequence[Rle], size: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """Return the union of masks as bool[h, w] of a shape, which may be reduced.

    Raises:
        ValueError: the masks are not (W, H) = `size`.
    """
    union: np.ndarray = np.any([decode_mask(dict(rle)) for rle in masks], axis=0)
    if union.shape != size[::-1]:
        raise ValueError(f"a true mask is {union.shape[::-1]}, and its image {size} (width, height): mend the data")
    if union.shape == shape:
        return union
    shares = cv2.resize(union.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
    reduced: np.ndarray = shares >= 0.5
    return reduced


def _score(response: Response, union: np.ndarray, target: np.ndarray | None) -> float:
    if target is None:
        return float(response.no_target)
    if response.error or not response.instances:
        return 0.0
    both, either = int(np.count_nonzero(union & target)), int(np.count_nonzero(union | target))
    return both / max(1, either)
