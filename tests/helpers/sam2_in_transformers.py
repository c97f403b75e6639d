"""Convert a SAM 2 of the sam2 package into Transformers' SAM 2 with the same weights."""

from __future__ import annotations

import re
from pathlib import Path

import torch
import transformers
from sam2.modeling.sam2_base import SAM2Base

# Names of the parts in Transformers' Sam2Model, which keeps the middle layer of an MLP of three in a list.
_NAMES = (
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^image_encoder\.trunk\.patch_embed\.proj\b", "vision_encoder.backbone.patch_embed.projection"),
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^sam_prompt_encoder\.pe_layer\.\w+$", "prompt_encoder.shared_embedding.positional_embedding"),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"\.norm(\d|_final_attn)\.", r".layer_norm\1."),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
    (r"(mlps\.\d|_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(mlps\.\d|_head)\.layers\.2\.", r"\1.proj_out."),
    (r"(mlps\.\d|_head)\.layers\.1\.", r"\1.layers.0."),
)
_VIDEO = re.compile(r"memory_|maskmem|obj_ptr|no_obj|mask_downsample|no_mem_pos")


def configuration(model: SAM2Base) -> transformers.Sam2Config:
    trunk, neck, size = model.image_encoder.trunk, model.image_encoder.neck, model.image_size
    blocks = [end - start for start, end in zip([-1, *trunk.stage_ends], trunk.stage_ends, strict=False)]
    first = trunk.blocks[0]
    return transformers.Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": first.dim_out,
                "num_attention_heads": first.attn.num_heads,
                "image_size": [size, size],
                "blocks_per_stage": blocks,
                "embed_dim_per_stage": trunk.channel_list[::-1],
                "num_attention_heads_per_stage": [trunk.blocks[end].attn.num_heads for end in trunk.stage_ends],
                "window_size_per_stage": list(trunk.window_spec),
                "global_attention_blocks": list(trunk.global_att_blocks),
                "window_positional_embedding_background_size": list(trunk.window_pos_embed_bkg_spatial_size),
            },
            "backbone_channel_list": trunk.channel_list,
            "backbone_feature_sizes": [[size // stride] * 2 for stride in (4, 8, 16)],
            "fpn_hidden_size": neck.d_model,
        },
        prompt_encoder_config={"hidden_size": model.hidden_dim, "image_size": size},
        mask_decoder_config={"hidden_size": model.hidden_dim},
    )


def convert(model: SAM2Base) -> transformers.Sam2Model:
    state = {}
    for name, tensor in model.state_dict().items():
        if _VIDEO.match(name):
            continue
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        state[name] = tensor
    points = [state.pop(f"prompt_encoder.point_embeddings.{i}.weight") for i in range(4)]
    state["prompt_encoder.point_embed.weight"] = torch.cat(points)
    position = "prompt_encoder.shared_embedding.positional_embedding"
    state["shared_image_embedding.positional_embedding"] = state[position]
    converted = transformers.Sam2Model(configuration(model))
    converted.load_state_dict(state)
    return converted.eval()


def save(model: SAM2Base, folder: Path) -> Path:
    convert(model).save_pretrained(folder)
    processor(model.image_size).save_pretrained(folder)
    return folder


def processor(side: int) -> transformers.Sam2Processor:
    size = {"height": side, "width": side}
    return transformers.Sam2Processor(transformers.Sam2ImageProcessor(size=size))
