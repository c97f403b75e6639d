"""Base of segmenters: frozen SAM models that turn instance prompts into masks.

A segmenter knows pixels, boxes and points. It knows no expressions, chats or reasoners.
"""

from __future__ import annotations

import abc
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch

from genseg_hub.schema import InstancePrompt

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
# Approximate limit of the float32 values of one decoding chunk (256 MB).
MAX_VALUES = 64_000_000
# As MAX_VALUES, of the logits at the size of the image: one mask of 12 megapixels at a time.
_MAX_UPSAMPLED = 16_000_000
# Float32 values of one instance in the decoder, per pixel of the model's input: measured 7 (sam2) and 10 (Transformers)
# at 1024 pixels. The upsampled logits need more memory only later.
_DECODER_VALUES = 8
# Images whose embeddings are kept: the last one, and another that is compared with it. SAM 2 large has 17 MB of each.
_KEPT_IMAGES = 2


class Segmenter(abc.ABC):
    """Make masks of instance prompts, with one embedding per image.

    Several threads may use it. The embeddings of the last images are kept, for later prompts about them.

    Args:
        side: pixels of the square to which every image is resized for the model.
        device: device of the model.
    """

    def __init__(self, side: int, device: torch.device):
        self.side, self.device = side, device
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()  # key -> embedding, the last used at the end
        self._lock = Lock()  # of `_kept`

    def segment(
        self,
        image: np.ndarray,
        instances: Sequence[InstancePrompt],
        key: Hashable = None,
        multimask: bool = False,
        size: tuple[int, int] | None = None,
    ) -> tuple[list[np.ndarray], list[float]]:
        """Return one mask per instance prompt.

        Args:
            image: uint8[h, w, 3], RGB; the original, or the original resized.
            instances: boxes and points in pixels of the original; either may be missing, but not both.
            key: identity of the image; if it equals a key of the last images, the embedding is reused. None keeps
                nothing.
            multimask: take the model's best of three masks, by predicted IoU, instead of its single mask.
            size: (W, H) of the original in pixels; None if `image` is the original.

        Returns:
            Masks bool[H, W] and predicted IoUs in [0, 1], in the order of `instances`.
        """
        if not instances:
            return [], []
        width, height = size or (image.shape[1], image.shape[0])
        embedding = self._embedding(image, (width, height), key)
        masks: list[np.ndarray] = [np.empty(0)] * len(instances)
        scores: list[float] = [0.0] * len(instances)
        upsampled = width * height * (3 if multimask else 1)
        chunk = max(1, min(MAX_VALUES // (_DECODER_VALUES * self.side**2), _MAX_UPSAMPLED // upsampled))
        # The models attend to padding, so only instances with the same parts are decoded together.
        alike: dict[tuple[bool, int], list[int]] = {}
        for i, instance in enumerate(instances):
            parts = instance.box is not None, len(instance.points) + len(instance.negative_points)
            alike.setdefault(parts, []).append(i)
        for (boxed, _), indices in alike.items():
            for start in range(0, len(indices), chunk):
                part = indices[start : start + chunk]
                given = [instances[i] for i in part]
                boxes = np.array([instance.box for instance in given], dtype=np.float32) if boxed else None
                points = np.array([(*i.points, *i.negative_points) for i in given], dtype=np.float32)
                labels = np.array([[1] * len(i.points) + [0] * len(i.negative_points) for i in given], dtype=np.int64)
                decoded = self._decode(embedding, boxes, points, labels, multimask)
                for i, mask, score in zip(part, *decoded, strict=True):
                    masks[i], scores[i] = mask, float(np.clip(score, 0, 1))
        return masks, scores

    def release(self) -> None:
        """Free the kept embeddings."""
        with self._lock:
            self._kept.clear()

    def _embedding(self, image: np.ndarray, size: tuple[int, int], key: Hashable) -> Any:
        if key is None:
            return self._embed(image, size)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            self._trim(_KEPT_IMAGES - 1)  # frees memory before the new embedding takes it
        embedding = self._embed(image, size)
        with self._lock:
            self._kept[key] = embedding
            self._kept.move_to_end(key)
            self._trim(_KEPT_IMAGES)  # another thread may have kept one meanwhile
        return embedding

    def _trim(self, most: int) -> None:
        while len(self._kept) > most:
            self._kept.popitem(last=False)

    @abc.abstractmethod
    def _embed(self, image: np.ndarray, size: tuple[int, int]) -> Any:
        """Return the embedding of uint8[h, w, 3] for `_decode`.

        Prompts and masks are of an image of `size` (W, H).
        """

    @abc.abstractmethod
    def _decode(
        self, embedding: Any, boxes: np.ndarray | None, points: np.ndarray, labels: np.ndarray, multimask: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return masks bool[n, H, W] and predicted IoUs float[n] of n prompts.

        Each prompt has p points; p may be 0.

        Args:
            embedding: embedding of the image, from `_embed`.
            boxes: float32[n, 4], xyxy pixels; None for prompts of points only.
            points: float32[n, p, 2], pixels.
            labels: int64[n, p], 1 for a point inside the instance and 0 for a point outside.
            multimask: see `segment`.
        """
