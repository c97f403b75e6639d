"""The segmenter: a frozen SAM that turns instance prompts into masks.

It knows pixels, boxes and points. It knows nothing of expressions, chats or the reasoner.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from genseg_hub.schema import InstancePrompt

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
# What one decoding chunk keeps at once stays about below this many float32 values (256 MB).
_MAX_VALUES = 64_000_000
# Float32 values per pixel of what the model sees that an instance takes in the decoder: measured 7 (sam2), 10
# (Transformers) at 1024 pixels. Its upsampled logits come after that.
_DECODER_VALUES = 8


class Segmenter(abc.ABC):
    """Masks of instance prompts, an image embedded once however many prompts refer to it; for any number of threads.

    Args:
        side: pixels of the square that the model sees of every image.
        device: where the model is.
    """

    def __init__(self, side: int, device: torch.device):
        self._side, self.device = side, device
        self._last: tuple[object, Any] = None, None  # a key and its embedding

    def segment(
        self, image: np.ndarray, instances: Sequence[InstancePrompt], key: object = None, multimask: bool = False
    ) -> tuple[list[np.ndarray], list[float]]:
        """One mask per instance prompt.

        Args:
            image: uint8[H, W, 3], RGB.
            instances: boxes and points in pixels of `image`; points may be missing.
            key: identity of the image; when it equals the last call's, the embedding is reused.
            multimask: take the best, by predicted IoU, of the model's three masks instead of its single one.

        Returns:
            Masks bool[H, W] and predicted IoUs in [0, 1], in the order of `instances`.
        """
        if not instances:
            return [], []
        embedding = self._embedding(image, key)
        masks: list[np.ndarray] = [np.empty(0)] * len(instances)
        scores: list[float] = [0.0] * len(instances)
        upsampled = image.shape[0] * image.shape[1] * (3 if multimask else 1)
        chunk = max(1, _MAX_VALUES // max(upsampled, _DECODER_VALUES * self._side**2))
        # The models attend to what fills a row up, so only instances with as many points are decoded together.
        alike: dict[int, list[int]] = {}
        for i, instance in enumerate(instances):
            alike.setdefault(len(instance.points) + len(instance.negative_points), []).append(i)
        for indices in alike.values():
            for start in range(0, len(indices), chunk):
                part = indices[start : start + chunk]
                given = [instances[i] for i in part]
                boxes = np.array([instance.box for instance in given], dtype=np.float32)
                points = np.array([(*i.points, *i.negative_points) for i in given], dtype=np.float32)
                labels = np.array([[1] * len(i.points) + [0] * len(i.negative_points) for i in given], dtype=np.int64)
                decoded = self._decode(embedding, boxes, points, labels, multimask)
                for i, mask, score in zip(part, *decoded, strict=True):
                    masks[i], scores[i] = mask, float(np.clip(score, 0, 1))
        return masks, scores

    def _embedding(self, image: np.ndarray, key: object) -> Any:
        last = self._last  # once: another thread may replace it
        if key is None or key != last[0]:
            last = self._last = None, None  # room for the next one
            last = self._last = key, self._embed(image)
        return last[1]

    @abc.abstractmethod
    def _embed(self, image: np.ndarray) -> Any:
        """What `_decode` needs of uint8[H, W, 3]."""

    @abc.abstractmethod
    def _decode(
        self, embedding: Any, boxes: np.ndarray, points: np.ndarray, labels: np.ndarray, multimask: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Masks bool[n, H, W] and predicted IoUs float[n] on an embedded image, of boxes float32[n, 4] with as many
        points each: float32[n, p, 2] and int64[n, p], 1 for inside and 0 for outside; p may be 0."""
