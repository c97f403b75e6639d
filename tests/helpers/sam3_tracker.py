"""A tiny tracker of SAM 3 with random weights."""

from __future__ import annotations

import torch
import transformers

VISION = {
    "model_type": "sam3_vision_model",
    "fpn_hidden_size": 64,
    "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    "backbone_config": {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 112,
        "patch_size": 14,
        "window_size": 4,
        "global_attn_indexes": [1],
        "pretrain_image_size": 56,
    },
}
_CONFIG = {
    "vision_config": VISION,
    "prompt_encoder_config": {"hidden_size": 64, "image_size": 112, "patch_size": 14},
    "mask_decoder_config": {"hidden_size": 64, "mlp_dim": 128, "iou_head_hidden_dim": 64},
}


def model() -> transformers.Sam3TrackerModel:
    torch.manual_seed(0)
    return transformers.Sam3TrackerModel(transformers.Sam3TrackerConfig(**_CONFIG)).eval()


def processor() -> transformers.Sam3TrackerProcessor:
    size = {"height": 112, "width": 112}
    return transformers.Sam3TrackerProcessor(transformers.Sam3ImageProcessor(size=size))
