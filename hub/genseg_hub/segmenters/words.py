"""SAM 3 by words: from a phrase to masks of all that it names, without a reasoner.

The score of a mask is the query's score times the score that the phrase is present at all. Thresholds and the order of
resizing and cutting off follow the authors' `Sam3Processor` and FiftyOne's zoo.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from genseg_hub.answers import MAX_INSTANCES, MAX_MASK_PIXELS
from genseg_hub.checkpoints.settings import WORD_TYPES
from genseg_hub.errors import SegmenterError
from genseg_hub.schema import Box
from genseg_hub.segmenters.base import CONFIG_FILE, Segmenter
from genseg_hub.segmenters.transformers import load_whole

THRESHOLD = 0.5  # a mask counts if its score is above
_PADDING = -10  # label of a box that is only padding
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Found:
    """Instances that a phrase names in an image, in the order of the model's queries.

    Attributes:
        boxes: (x1, y1, x2, y2) in pixels of the original, ordered and inside the image.
        masks: bool[H, W] of each; none is empty.
        scores: score of each, in (THRESHOLD, 1].
        left_out: number of further instances, with the lowest scores, that one answer has no room for.
    """

    boxes: tuple[Box, ...]
    masks: tuple[np.ndarray, ...]
    scores: tuple[float, ...]
    left_out: int = 0


class Words(Segmenter):
    """Sam3Model with its processor; it takes phrases, and no boxes or points.

    Args:
        model: model on its device, in float32.
        processor: processor for the model's image size.
        embedding_dtype: dtype of the image encoder, which does nearly all of the work.

    Raises:
        ValueError: the processor makes images of another size.
    """

    def __init__(
        self,
        model: transformers.Sam3Model,
        processor: transformers.Sam3Processor,
        embedding_dtype: torch.dtype = torch.float32,
    ):
        taken, made = model.config.image_size, processor.image_processor.size
        if not (made["height"] == made["width"] == taken):
            raise ValueError(
                f"the model takes images of {taken} pixels and its processor makes {made['height']} x {made['width']}; "
                "take both from one checkpoint"
            )
        super().__init__(taken, model.device)
        self._model, self._processor, self._dtype = model.eval(), processor, embedding_dtype
        self._most_tokens: int = model.text_encoder.config.max_position_embeddings

    @classmethod
    def load(cls, folder: Path, device: torch.device | str) -> Words:
        """Load the folder that `save_pretrained` of a model and its processor wrote.

        On a GPU the image encoder computes in bfloat16.

        Args:
            folder: folder of model and processor. The folder of a video model contains the detector.
            device: device for the model.

        Raises:
            ValueError: config.json names another kind of model, or the weights lack tensors.
            OSError: files are missing.
        """
        kind = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")).get("model_type")
        if kind not in WORD_TYPES:
            raise ValueError(
                f"{folder / CONFIG_FILE} is of the kind {kind!r}; SAM 3 by words is one of {', '.join(WORD_TYPES)}"
            )
        model = load_whole(transformers.Sam3Model, folder)
        processor = transformers.Sam3Processor.from_pretrained(folder, trust_remote_code=False)
        device = torch.device(device)
        return cls(model.to(device), processor, torch.float32 if device.type == "cpu" else torch.bfloat16)

    def find(
        self,
        image: np.ndarray,
        phrases: Sequence[str],
        key: Hashable = None,
        size: tuple[int, int] | None = None,
    ) -> list[Found]:
        """Return the instances that each phrase names; `Found` is empty for none.

        A phrase of more tokens than the model reads (32) is cut, as in the authors' code, and a warning says so.

        Args:
            image: uint8[h, w, 3], RGB; the original, or the original resized.
            phrases: one phrase or more, which the model answers together.
            key: see `Segmenter.segment`.
            size: (W, H) of the original in pixels; None if `image` is the original.

        Raises:
            SegmenterError: the model's numbers cannot be used.
        """
        width, height = size or (image.shape[1], image.shape[0])
        features, positions = self._embedding(image, (width, height), key)
        logits, boxes, scores = self._detect(features, positions, phrases)
        if not torch.isfinite(scores).all():
            raise SegmenterError("SAM 3 gives a score that is no number; try another dtype or device")
        return [self._found(*one, (width, height)) for one in zip(logits, boxes, scores, strict=True)]

    @torch.no_grad()
    def _embed(self, image: np.ndarray, size: tuple[int, int]) -> Any:
        inputs = self._processor(images=image, input_data_format="channels_last", return_tensors="pt")
        device, lower = self._model.device, self._dtype != torch.float32
        with torch.autocast(device.type, self._dtype if lower else None, enabled=lower):
            seen = self._model.get_vision_features(inputs["pixel_values"].to(device))
        return tuple(
            tuple(level.float() for level in levels) for levels in (seen.fpn_hidden_states, seen.fpn_position_encoding)
        )

    def _decode(
        self, embedding: Any, boxes: np.ndarray | None, points: np.ndarray, labels: np.ndarray, multimask: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        raise SegmenterError(
            "SAM 3 by words takes no boxes and no points; for them take a checkpoint with a segmenter, such as nano"
        )

    @torch.no_grad()
    def _detect(
        self, features: tuple[torch.Tensor, ...], positions: tuple[torch.Tensor, ...], phrases: Sequence[str]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits of masks [n, q, h, w], relative boxes [n, q, 4], scores [n, q]."""
        from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput  # slow, and only SAM 3 needs it

        tokens = self._processor.tokenizer(
            list(phrases), padding="max_length", max_length=self._most_tokens, truncation=True, return_tensors="pt"
        )
        self._tell_cut(phrases)
        count, device = len(phrases), self._model.device
        many = [tuple(level.expand(count, *level.shape[1:]) for level in part) for part in (features, positions)]
        output = self._model(
            vision_embeds=Sam3VisionEncoderOutput(fpn_hidden_states=many[0], fpn_position_encoding=many[1]),
            input_ids=tokens["input_ids"].to(device),
            attention_mask=tokens["attention_mask"].to(device),
            # Each prompt of the authors' model has a token that has looked at the image, with boxes or without.
            # Transformers gives this token only to prompts with boxes. A box of padding adds this token alone.
            input_boxes=torch.full((count, 1, 4), 0.5, device=device),
            input_boxes_labels=torch.full((count, 1), _PADDING, device=device),
        )
        scores = output.pred_logits.sigmoid() * output.presence_logits.sigmoid()
        return output.pred_masks, output.pred_boxes, scores

    def _tell_cut(self, phrases: Sequence[str]) -> None:
        for phrase in phrases:
            count = len(self._processor.tokenizer(phrase)["input_ids"])
            if count > self._most_tokens:
                _log.warning("SAM 3 reads %d of the %d tokens of %r", self._most_tokens, count, phrase[:80])

    @torch.no_grad()
    def _found(self, logits: torch.Tensor, boxes: torch.Tensor, scores: torch.Tensor, size: tuple[int, int]) -> Found:
        """Return the instances of one phrase.

        Each mask has the size of the original.
        """
        width, height = size
        room = max(1, min(MAX_INSTANCES, MAX_MASK_PIXELS // (width * height)))
        kept = torch.nonzero(scores > THRESHOLD)[:, 0]
        best = kept[scores[kept].argsort(descending=True, stable=True)[:room]].sort().values
        found: list[tuple[Box, np.ndarray, float]] = []
        for query in best.tolist():
            mask = torch.nn.functional.interpolate(
                logits[query][None, None], (height, width), mode="bilinear", align_corners=False
            )[0, 0]
            box = _inside(boxes[query].tolist(), size)
            if (inside := (mask.sigmoid() > 0.5).cpu().numpy()).any():
                found.append((box, inside, float(scores[query])))
        if not found:
            return Found((), (), ())
        its_boxes, masks, its_scores = zip(*found, strict=True)
        return Found(its_boxes, masks, its_scores, len(kept) - len(best))


def _inside(box: Sequence[float], size: tuple[int, int]) -> Box:
    """Turn a box relative to the image into pixels.

    The returned box is ordered, inside the image and at least a pixel wide and high.
    """
    edges = []
    for low, high, length in ((box[0], box[2], size[0]), (box[1], box[3], size[1])):
        low, high = sorted(min(max(edge * length, 0.0), float(length)) for edge in (low, high))
        if high - low < 1:
            low = min(math.floor(low), length - 1)
            high = low + 1
        edges.append((float(low), float(high)))
    (x1, x2), (y1, y2) = edges
    return x1, y1, x2, y2
