"""Segmenters of Transformers: SAM 2, and SAM 3 by boxes and points.

Images are resized as in the authors' code: SAM 2 keeps fractions of grey levels, and SAM 3 rounds them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from genseg_hub.segmenters.base import CONFIG_FILE, Segmenter

# `model_type` of config.json -> image processor; the folder of a video model contains the image model.
_PROCESSORS: dict[str, Any] = {
    "sam2": transformers.Sam2Processor,
    "sam2_video": transformers.Sam2Processor,
    "sam3_tracker": transformers.Sam3TrackerProcessor,
    "sam3_video": transformers.Sam3TrackerProcessor,
}


def load_whole(kind: Any, folder: Path) -> Any:
    """Load a frozen model of Transformers in float32, with all of its weights.

    Args:
        kind: class of the model, or an auto class.
        folder: folder of the model.

    Raises:
        ValueError: the weights lack tensors, which Transformers would fill with random numbers.
        OSError: files are missing.
    """
    model, found = kind.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    if lacking := sorted(found["missing_keys"]):
        raise ValueError(
            f"the weights in {folder} lack {len(lacking)} tensors: {', '.join(lacking[:3])} ...; pull them again"
        )
    return model.requires_grad_(False)  # else autocast on a GPU keeps a second copy of the image encoder


class TransformersSegmenter(Segmenter):
    """Sam2Model or Sam3TrackerModel with its processor.

    Args:
        model: model on its device, in float32, because coordinates need this precision.
        processor: processor for the model's image size.
        embedding_dtype: dtype of the image encoder, which does nearly all of the work.

    Raises:
        ValueError: the processor makes images of another size.
    """

    def __init__(
        self,
        model: transformers.Sam2Model | transformers.Sam3TrackerModel,
        processor: transformers.Sam2Processor | transformers.Sam3TrackerProcessor,
        embedding_dtype: torch.dtype = torch.float32,
    ):
        taken, made = model.prompt_encoder.input_image_size, processor.image_processor.size
        if not (made["height"] == made["width"] == processor.target_size == taken):
            raise ValueError(
                f"the model takes images of {taken} pixels and its processor makes {made['height']} x {made['width']}, "
                f"with coordinates up to {processor.target_size}; take both from one checkpoint"
            )
        super().__init__(processor.target_size, model.device)
        self._model, self._processor, self._dtype = model.eval(), processor, embedding_dtype

    @classmethod
    def load(cls, folder: Path, device: torch.device | str) -> TransformersSegmenter:
        """Load the folder that `save_pretrained` of a model and its processor wrote.

        On a GPU the image encoder computes in bfloat16.

        Args:
            folder: folder of model and processor.
            device: device for the model.

        Raises:
            ValueError: config.json names another kind of model, or the weights lack tensors.
            OSError: files are missing.
        """
        kind = json.loads((folder / CONFIG_FILE).read_text()).get("model_type")
        if not isinstance(kind, str) or kind not in _PROCESSORS:
            raise ValueError(
                f"{folder / CONFIG_FILE} is of the kind {kind!r}; a segmenter is one of {', '.join(_PROCESSORS)}, "
                "or a folder of `genseg-train export`"
            )
        model = load_whole(transformers.AutoModelForMaskGeneration, folder)
        processor = _PROCESSORS[kind].from_pretrained(folder, trust_remote_code=False)
        device = torch.device(device)
        return cls(model.to(device), processor, torch.float32 if device.type == "cpu" else torch.bfloat16)

    @torch.no_grad()
    def _embed(self, image: np.ndarray, size: tuple[int, int]) -> tuple[list[torch.Tensor], list[tuple[int, ...]]]:
        # For uint8 the processor rounds, which differs from the sam2 package by up to a grey level.
        pixels = image.astype(np.float32) if isinstance(self._model, transformers.Sam2Model) else image
        inputs = self._processor(images=pixels, input_data_format="channels_last", return_tensors="pt")
        device, lower = self._model.device, self._dtype != torch.float32
        with torch.autocast(device.type, self._dtype if lower else None, enabled=lower):
            embeddings = self._model.get_image_embeddings(inputs["pixel_values"].to(device))
        return [embedding.float() for embedding in embeddings], [size[::-1]]

    @torch.no_grad()
    def _decode(
        self, embedding: Any, boxes: np.ndarray | None, points: np.ndarray, labels: np.ndarray, multimask: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        image, size = embedding
        prompts: dict[str, Any] = {} if boxes is None else {"input_boxes": boxes[None]}
        if labels.size:
            prompts |= {"input_points": points[None], "input_labels": labels[None]}
        inputs = self._processor(original_sizes=size, return_tensors="pt", **prompts).to(self._model.device)
        del inputs["original_sizes"]
        output = self._model(image_embeddings=image, multimask_output=multimask, **inputs)
        ious, logits = output.iou_scores[0], output.pred_masks[0]  # float[n, m] and float[n, m, side / 4, side / 4]
        best = ious.argmax(1)
        each = torch.arange(len(best), device=best.device)
        (masks,) = self._processor.post_process_masks([logits[each, best][:, None]], size)
        return masks[:, 0].cpu().numpy(), ious[each, best].float().cpu().numpy()
