"""The segmenter of the sam2 package: SAM 2."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_image_predictor import SAM2ImagePredictor

from genseg_hub.segmenters.base import CONFIG_FILE, WEIGHTS_FILE, Segmenter


def build_sam2(base: str, overrides: Mapping[str, Any] | None = None) -> SAM2Base:
    """Return an untrained SAM 2 in eval mode.

    Args:
        base: a configuration of the sam2 package, such as "sam2.1/sam2.1_hiera_l".
        overrides: dotted keys of its `model` section -> values, for other sizes.

    Raises:
        ValueError: the base does not exist, or an override names a class (`_target_`), because configurations are data
            and must not choose code.
    """
    file = resources.files("sam2").joinpath("configs", *f"{base}.yaml".split("/"))
    if ".." in base or not file.is_file():
        raise ValueError(f"sam2 ships no configuration {base!r}; for example: sam2.1/sam2.1_hiera_l")
    config = OmegaConf.create(file.read_text()).model
    stability = {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }  # the defaults of sam2.build_sam.build_sam2
    settings: dict[str, Any] = {f"sam_mask_decoder_extra_args.{key}": value for key, value in stability.items()}
    for key, value in (overrides or {}).items():
        numbers = value if isinstance(value, list) else [value]
        if "_target_" in key or not all(isinstance(number, int | float) for number in numbers):
            raise ValueError(f"a SAM 2 configuration may set numbers and lists of numbers only, got {key}: {value!r}")
        settings[key] = value
    for key, value in settings.items():
        OmegaConf.update(config, key, value, force_add=True)
    OmegaConf.resolve(config)
    return instantiate(config, _recursive_=True).eval()


def save_sam2(model: SAM2Base, folder: Path, base: str, overrides: Mapping[str, Any]) -> None:
    """Write `config.json` and `model.safetensors`, which `load_sam2` reads.

    Args:
        model: SAM 2.
        folder: folder, which is created if missing.
        base: as `build_sam2` took it.
        overrides: as `build_sam2` took them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps({"base": base, "overrides": dict(overrides)}, indent=2) + "\n")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def load_sam2(folder: Path) -> SAM2Base:
    """Load the model that `save_sam2` wrote into a folder."""
    config = json.loads((folder / CONFIG_FILE).read_text())
    model = build_sam2(config["base"], config["overrides"])
    model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    return model


class Sam2Segmenter(Segmenter):
    """The sam2 package's SAM 2.

    Args:
        model: a SAM 2, on its device.
    """

    def __init__(self, model: SAM2Base):
        super().__init__(model.image_size, model.device)
        self._predictor = SAM2ImagePredictor(model.eval(), disable_torch_jit=True)
        # The predictor's own sizes are for 1024 pixels only.
        self._predictor._bb_feat_sizes = [(self.side // stride, self.side // stride) for stride in (4, 8, 16)]

    @classmethod
    def load(cls, weights: Path, config: str | None, device: torch.device | str) -> Sam2Segmenter:
        """Load a segmenter.

        Args:
            weights: folder that `save_sam2` wrote, or a file of the SAM 2 authors.
            config: for a file, its configuration in the sam2 package; None for a folder.
            device: device for the model.
        """
        if config is None:
            model = load_sam2(weights)
        else:
            model = build_sam2(config)
            model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["model"])
        return cls(model.to(device))

    def _embed(self, image: np.ndarray, size: tuple[int, int]) -> SAM2ImagePredictor:
        predictor = copy.copy(self._predictor)  # the copy shares the model, not the image
        predictor.set_image(image)
        predictor._orig_hw = [size[::-1]]
        return predictor

    def _decode(
        self,
        embedding: SAM2ImagePredictor,
        boxes: np.ndarray | None,
        points: np.ndarray,
        labels: np.ndarray,
        multimask: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        # `predict` calls these two, and then converts the bool masks to floats.
        _, *prompts = embedding._prep_prompts(
            points if labels.size else None, labels if labels.size else None, boxes, None, normalize_coords=True
        )
        masks, ious, _ = embedding._predict(*prompts, multimask_output=multimask)
        best = ious.argmax(1)
        each = torch.arange(len(best), device=best.device)
        return masks[each, best].cpu().numpy(), ious[each, best].float().cpu().numpy()
